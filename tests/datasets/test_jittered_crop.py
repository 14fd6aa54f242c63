"""JitteredResizedCrop: mmpretrain's two transforms, to the bit."""

import numpy as np
import pytest
from mmpretrain.registry import TRANSFORMS

import mmdtm.plugin  # noqa: F401

CROP = dict(scale=64, crop_ratio_range=(0.2, 1.0), interpolation='bicubic')
JITTERS = [
    dict(brightness=0.4, contrast=0.4, saturation=0.4),
    dict(brightness=0.9, contrast=0.9, saturation=0.9, hue=0.2),
    dict(contrast=0.4),
    dict(brightness=0.4, saturation=0.4),
    dict(),
]


def smooth_image(height: int, width: int, seed: int) -> np.ndarray:
    """Random colours that change slowly, as a photograph's, and reach 0 and 255."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / 40
    a, b, c = random.uniform(-1, 1, (3, 3))
    waves = np.sin(a * x + b * y + 5 * c) + random.normal(0, 0.2, (height, width, 3))
    return np.clip(128 + 150 * waves, 0, 255).astype(np.uint8)


def both(image: np.ndarray, jitter: dict, seed: int, **options):
    """What the two transforms and the one make, and the next random number of each."""
    two = [
        TRANSFORMS.build(dict(type='ColorJitter', backend='cv2', **jitter)),
        TRANSFORMS.build(dict(type='RandomResizedCrop', backend='pillow', **CROP)),
    ]
    one = dict(type='JitteredResizedCrop', color_jitter=jitter, backend='pillow')
    made = []
    for steps in (two, [TRANSFORMS.build(one | CROP | options)]):
        np.random.seed(seed)
        results = dict(img=image, img_shape=image.shape[:2])
        for step in steps:
            results = step(results)
        made.append((results, np.random.random()))
    return made


@pytest.mark.parametrize('jitter', JITTERS, ids=lambda jitter: '-'.join(jitter))
def test_equal_to_the_two_transforms_to_the_bit(jitter):
    """Over all orders of the jitter's steps, and pixels packed in either order."""
    for seed in range(40):
        image = smooth_image(97 + seed, 150 - seed, seed)
        if seed % 2:  # as Pillow's decoder gives it
            image = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
        (expected, after), (got, after_one) = both(image, jitter, seed)
        np.testing.assert_array_equal(got['img'], expected['img'])
        assert got['img_shape'] == expected['img_shape'] == (64, 64, 3)
        assert after == after_one


def test_equal_on_photographs(photos):
    load = TRANSFORMS.build(dict(type='LoadWholeImage'))
    for seed, path in enumerate(sorted(photos.glob('train/*/*'))[:16]):
        image = load(dict(img_path=str(path)))['img']
        (expected, _), (got, _) = both(image, JITTERS[0], seed)
        np.testing.assert_array_equal(got['img'], expected['img'])


def test_the_mean_grey_of_fewer_pixels_changes_little():
    differences = []
    for seed in range(20):
        image = smooth_image(200, 300, seed)
        (expected, after), (got, after_one) = both(
            image, JITTERS[0], seed, grey_stride=4
        )
        assert after == after_one
        differences.append(np.abs(got['img'].astype(int) - expected['img']))
    assert 0 < np.mean(differences) < 0.5 and np.max(differences) <= 5


def test_wrong_stride():
    with pytest.raises(ValueError, match='grey_stride is 0. Give a number'):
        TRANSFORMS.build(
            dict(type='JitteredResizedCrop', color_jitter={}, grey_stride=0, **CROP)
        )
