"""Decoding whole images, and refusing others."""

import numpy as np
import pytest
from mmpretrain.registry import TRANSFORMS
from PIL import Image

import mmdtm.plugin  # noqa: F401
from mmdtm.datasets.transforms import BadImageError


def test_whole_image_is_decoded_as_pillow_does(photos):
    load = TRANSFORMS.build(dict(type='LoadWholeImage'))
    for path in sorted(photos.glob('train/*/*'))[:3]:
        loaded = load(dict(img_path=str(path)))['img']
        expected = np.asarray(Image.open(path).convert('RGB'))
        np.testing.assert_array_equal(loaded[..., ::-1], expected)


@pytest.mark.parametrize('kept', [0.0, 0.01, 0.5, 0.9])
def test_truncated_photograph_is_refused(photos, tmp_path, kept):
    photo = next(photos.glob('train/*/*'))
    path = tmp_path / 'cut.JPEG'
    data = photo.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(BadImageError, match=f'{path} is not a whole image'):
        TRANSFORMS.build(dict(type='LoadWholeImage'))(dict(img_path=str(path)))
