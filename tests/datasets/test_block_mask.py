"""BlockMaskGenerator: exact counts, blocks, and clear errors."""

import math

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
def test_every_ratio_masks_its_share_exactly(tenths):
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


def test_blocks_keep_to_their_aspect_and_area():
    generator = BlockMaskGenerator(14, 0.4, min_num_patches=4, min_aspect=0.5)
    nothing = np.zeros((14, 14), dtype=bool)
    for _ in range(500):
        height, width = generator._draw_sides(4, 9)
        assert 1 <= height * width <= 15  # 9 and the rounding of both sides
        assert 1 / 3 <= height / width <= 3
        rows, columns = generator._place(nothing, height, width)
        assert len(rows) == height * width
        assert np.ptp(rows) == height - 1 and np.ptp(columns) == width - 1


def beit_mask(side: int, count: int, smallest: int, aspect: float) -> list[list[bool]]:
    """BEiT v2's rules, patch by patch, with numpy's global generator."""
    mask = [[False] * side for _ in range(side)]
    masked = 0
    while masked < count:
        for _ in range(10):
            area = np.random.uniform(smallest, count - masked)
            ratio = math.exp(np.random.uniform(math.log(aspect), math.log(1 / aspect)))
            height = round(math.sqrt(area * ratio))
            width = round(math.sqrt(area / ratio))
            if not (height < side and width < side):
                continue
            top = np.random.randint(0, side - height + 1)
            begin = np.random.randint(0, side - width + 1)
            new = [
                (row, column)
                for row in range(top, top + height)
                for column in range(begin, begin + width)
                if not mask[row][column]
            ]
            if 0 < len(new) <= count - masked:
                break
        else:
            free = [(r, c) for r in range(side) for c in range(side) if not mask[r][c]]
            chosen = np.random.choice(len(free), count - masked, replace=False)
            new = [free[i] for i in chosen]
        for row, column in new:
            mask[row][column] = True
        masked += len(new)
    return mask


def test_whole_blocks_are_beits_rules():
    """As configs/release/ draws them."""
    generator = BlockMaskGenerator(14, 75 / 196, whole_blocks=True)
    np.random.seed(3)
    masks = [generator.draw() for _ in range(300)]
    np.random.seed(3)
    assert [beit_mask(14, 75, 16, 0.3) for _ in masks] == [m.tolist() for m in masks]
    assert {int(mask.sum()) for mask in masks} == {75}


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
        (dict(min_num_patches=0), 'min_num_patches is 0. Give an int at least 1'),
        (dict(min_aspect=0.0), 'aspect'),
        (dict(min_aspect=1.1), 'aspect'),
    ],
)
def test_bad_arguments_are_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        BlockMaskGenerator(**(dict(input_size=14) | arguments))
