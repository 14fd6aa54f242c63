"""Each mended break, on the stack that has it and on the one that has not."""

import colorsys
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import mmcv
import mmengine
import mmengine.logging
import numpy as np
import pytest
import scipy.interpolate
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version
from tiny import Payload

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
    del sys.modules['pkg_resources']  # for good: pytest takes it for the real one


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


# Run without mmdtm: prints which breaks the libraries themselves still have.
UNMENDED = """
import json, os, pickle, sys, warnings

warnings.simplefilter('ignore')
broken = {}


def attempt(name, error):
    def run(call):
        try:
            call()
            broken[name] = False
        except error as raised:
            broken[name] = True
            print(name, repr(raised), file=sys.stderr)
    return run


@attempt('declare_torchvision_ops', RuntimeError)
def _():
    import torchvision

if broken['declare_torchvision_ops']:  # else nothing that needs it imports
    from mmdtm.compat import declare_torchvision_ops
    for name in [n for n in sys.modules if n.split('.')[0] == 'torchvision']:
        del sys.modules[name]
    declare_torchvision_ops()


@attempt('stub_mmcv_ops', ImportError)
def _():
    import mmseg.models

import mmcv, numpy as np, torch
from mmpretrain.models.utils import resize_relative_position_bias_table


@attempt('restore_interp2d', NotImplementedError)
def _():
    resize_relative_position_bias_table(7, 15, torch.randn(49, 2), 2)


@attempt('mend_hue', OverflowError)
def _():
    mmcv.adjust_hue(np.zeros((1, 1, 3), np.uint8), -0.1)


@attempt('name_forked_mmseg', ModuleNotFoundError)
def _():
    from mmengine.config import Config
    Config._get_cfg_path('mmseg::_base_/datasets/ade20k.py', 'config.py')


@attempt('guard_mmengine', (AssertionError, pickle.UnpicklingError))
def _():
    from mmengine.runner import CheckpointLoader
    mark = os.path.join(sys.argv[1], 'executed')
    try:  # the forks run a payload
        CheckpointLoader.load_checkpoint(os.path.join(sys.argv[1], 'hostile.pth'))
    except Exception:
        pass
    assert not os.path.exists(mark)
    # upstream refuses a log
    CheckpointLoader.load_checkpoint(os.path.join(sys.argv[1], 'log.pth'))


@attempt('provide_pkg_resources', ModuleNotFoundError)
def _():
    import mmengine.utils
    sys.modules['pkg_resources'] = None  # as setuptools >= 82 has it
    mmengine.utils.get_installed_path('torch')


@attempt('init_processes_without_gpu', (AttributeError, RuntimeError))
def _():
    from mmengine.dist import init_dist
    init_dist('pytorch', backend='gloo')

print(json.dumps(broken))
"""


@pytest.mark.slow
def test_every_patch_is_still_needed(tmp_path):
    """Where this fails upstream is mended: drop the patch of that name."""
    import torchvision  # its import is mended above

    torch.save(dict(meta=Payload(tmp_path / 'executed')), tmp_path / 'hostile.pth')
    torch.save(dict(log=HistoryBuffer([1.0], [1])), tmp_path / 'log.pth')
    process = subprocess.run(
        [sys.executable, '-c', UNMENDED, str(tmp_path)],
        env=os.environ
        | dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0')
        | dict(MASTER_ADDR='127.0.0.1', MASTER_PORT='0'),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    forks = digit_version(mmengine.__version__) >= digit_version('0.10.8')
    torch_build, vision_build = (
        version.partition('+')[2]
        for version in (torch.__version__, torchvision.__version__)
    )
    assert json.loads(process.stdout.splitlines()[-1]) == dict(
        declare_torchvision_ops=torch_build != vision_build,
        stub_mmcv_ops=not forks and importlib.util.find_spec('mmcv._ext') is None,
        provide_pkg_resources=not forks,
        name_forked_mmseg=forks,
        restore_interp2d=digit_version(scipy.__version__) >= digit_version('1.14'),
        mend_hue=digit_version(np.__version__) >= digit_version('2')
        and digit_version(mmcv.__version__) < digit_version('2.3.6'),
        init_processes_without_gpu=not torch.cuda.is_available(),
        guard_mmengine=True,
    )
