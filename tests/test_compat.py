"""Each mended break, on the stack that has it and on the one that has not."""

import colorsys
import importlib
import importlib.metadata
import logging
import sys
from pathlib import Path

import mmcv
import mmengine.logging
import numpy as np
import pytest
import scipy.interpolate
import torch
from mmengine.config import Config

import mmdtm.prepare  # noqa: F401
from mmdtm import compat


def test_segmentation_imports_without_compiled_operators():
    import mmseg.models

    assert mmseg.models.EncoderDecoder
    with pytest.raises((ModuleNotFoundError, ImportError)):
        from mmcv.ops import DeformConv2d  # noqa: F401


def test_pkg_resources_stands_in(monkeypatch):
    """What mmengine 0.10.7 does with it, reloading included."""
    monkeypatch.delitem(sys.modules, 'pkg_resources', raising=False)
    monkeypatch.setattr(sys, 'meta_path', [compat._PkgResources(), *sys.meta_path])
    import pkg_resources

    importlib.reload(pkg_resources)
    torch_files = pkg_resources.get_distribution('torch')
    assert Path(torch_files.location, 'torch', '__init__.py').is_file()
    assert torch_files.has_metadata('METADATA')
    assert not torch_files.has_metadata('no_such_file')
    assert torch_files.get_metadata('METADATA').startswith('Metadata-Version')
    with pytest.raises(pkg_resources.DistributionNotFound):
        pkg_resources.get_distribution('no-such-library')
    monkeypatch.delitem(sys.modules, 'pkg_resources')


@pytest.mark.parametrize(
    'base', ['mmseg::_base_/datasets/ade20k.py', 'mmpretrain::_base_/models/vgg16.py']
)
def test_bases_of_the_libraries(tmp_path, base):
    path = tmp_path / 'inherits.py'
    path.write_text(f"_base_ = '{base}'\nown = 1\n")
    cfg = Config.fromfile(path)
    assert cfg.own == 1 and len(cfg) > 1


def test_debug_messages_without_logger_are_not_printed(capsys):
    mmengine.logging.print_log('debugging', level=logging.DEBUG)
    mmengine.logging.print_log('informing')
    assert capsys.readouterr().out == 'informing\n'


def test_interp2d_is_bicubic_and_keeps_the_axes_apart():
    """A cubic polynomial is its own bicubic spline."""

    def f(x, y):
        return x**3 - 2 * x * y + 5 * y**2

    x, y = np.linspace(-1, 1, 5), np.linspace(0, 2, 7)
    new_x, new_y = np.linspace(-1, 1, 9), np.linspace(0.1, 1.9, 4)
    spline = scipy.interpolate.interp2d(x, y, f(x, y[:, None]), kind='cubic')
    expected = f(new_x, new_y[:, None])
    assert spline(new_x, new_y).shape == (4, 9)
    np.testing.assert_allclose(spline(new_x, new_y), expected, atol=1e-12)


def test_libraries_resize_position_tables():
    from mmpretrain.models.utils import resize_relative_position_bias_table

    table = torch.randn(7 * 7, 2)
    resized = resize_relative_position_bias_table(7, 15, table, 2)
    assert resized.shape == (15 * 15, 2)
    # The centre, no displacement, stays what it is.
    torch.testing.assert_close(resized[15 * 7 + 7], table[7 * 3 + 3])


@pytest.mark.parametrize('turn', [-0.5, -0.3, -0.004, 0.0, 0.25])
def test_hue_turns_both_ways(turn):
    """Against the standard library, pixel by pixel, to the 8 bits' rounding."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    expected = np.empty((8, 8, 3))
    for place in np.ndindex(8, 8):
        blue, green, red = pixels[place] / 255
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        step = int(turn * 255) / 256
        expected[place] = colorsys.hsv_to_rgb((hue + step) % 1, saturation, value)
    turned = mmcv.adjust_hue(pixels, turn, backend='cv2')
    # Hue, saturation and value are rounded to 8 bits on the way.
    np.testing.assert_allclose(turned[..., ::-1], expected * 255, atol=8)
    assert np.abs(turned[..., ::-1] - expected * 255).mean() < 2
