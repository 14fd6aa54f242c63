"""BlockMaskGenerator: exact counts, blocks, and clear errors."""

import numpy as np
import pytest

from mmdtm.datasets.transforms import BlockMaskGenerator


@pytest.fixture(autouse=True)
def _numpy_seed():
    np.random.seed(0)


def test_every_draw_masks_exactly_78_of_196():
    generator = BlockMaskGenerator(14, mask_ratio=0.4)
    masks = np.stack([generator.draw() for _ in range(10_000)])
    assert masks.shape == (10_000, 14, 14) and masks.dtype == bool
    assert (masks.sum((1, 2)) == 78).all()
    # Corners are masked least, yet all four alike: no side is out of reach.
    share = masks.mean(0)
    corners = share[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert share.max() < 0.9 and corners.min() > 0.04
    assert corners.max() < 1.5 * corners.min()
    assert len(np.unique(masks.reshape(10_000, -1), axis=0)) > 9_500


@pytest.mark.parametrize('tenths', range(1, 10))
def test_ratios(tenths):
    generator = BlockMaskGenerator((14, 10), mask_ratio=tenths / 10)
    for _ in range(200):
        assert generator.draw().sum() == 14 * tenths


def test_masks_are_blocks():
    """Masked patches have far more masked neighbours than scattered ones do."""
    generator = BlockMaskGenerator(14, mask_ratio=0.4)
    masks = np.stack([generator.draw() for _ in range(500)])
    pairs = (masks[:, :, 1:] & masks[:, :, :-1]).sum((1, 2)).mean()
    scattered = 78 / 196 * 77 / 195 * 14 * 13  # expected for independent patches
    assert pairs > 1.7 * scattered


def test_aspect_and_area_limits():
    generator = BlockMaskGenerator(14, 0.4, min_num_patches=4, min_aspect=0.5)
    for _ in range(500):
        top, bottom, begin, end = generator._draw_block(9)
        height, width = bottom - top, end - begin
        assert 0 <= top < bottom <= 14 and 0 <= begin < end <= 14
        assert 1 <= height * width <= 15  # 9 and the rounding of both sides
        assert 1 / 3 <= height / width <= 3


def test_transform_adds_the_mask():
    results = BlockMaskGenerator(4, 0.5).transform(dict(img=1))
    assert results['img'] == 1 and results['mask'].sum() == 8


@pytest.mark.parametrize(
    'arguments, word',
    [
        (dict(mask_ratio=0.0), 'mask_ratio'),
        (dict(mask_ratio=1.0), 'mask_ratio'),
        (dict(mask_ratio=-0.4), 'mask_ratio'),
        (dict(mask_ratio=0.001), 'masks none'),
        (dict(input_size=0), 'input_size'),
        (dict(input_size=(1, 2, 3)), 'input_size'),
        (dict(min_num_patches=0), 'at least one patch'),
        (dict(min_aspect=0.0), 'aspect'),
        (dict(min_aspect=1.1), 'aspect'),
    ],
)
def test_bad_arguments_are_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        BlockMaskGenerator(**(dict(input_size=14) | arguments))
