"""Decoding whole images, and refusing others."""

import os

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


def load(path, **kwargs):
    return TRANSFORMS.build(dict(type='LoadWholeImage', **kwargs))(
        dict(img_path=str(path))
    )


def test_what_is_not_a_regular_file_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'device.jpg').symlink_to('/dev/zero')
    for name in ('pipe.jpg', 'device.jpg'):
        with pytest.raises(BadImageError, match=f'{name} is not a regular file'):
            load(tmp_path / name)


def test_an_image_of_too_many_pixels_is_refused_undecoded(tmp_path, monkeypatch):
    bomb, small = tmp_path / 'bomb.png', tmp_path / 'small.png'
    Image.new('1', (9000, 9000)).save(bomb)
    Image.new('RGB', (5, 4)).save(small)
    monkeypatch.setattr('mmcv.imfrombytes', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(BadImageError, match='bomb.png has 9000 x 9000 pixels'):
        load(bomb)
    with pytest.raises(BadImageError, match='5 x 4 pixels, .* max_pixels=19'):
        load(small, max_pixels=19)
    monkeypatch.undo()
    assert load(small, max_pixels=20)['img'].shape == (4, 5, 3)
    assert load(small, max_pixels=None)['img'].shape == (4, 5, 3)
