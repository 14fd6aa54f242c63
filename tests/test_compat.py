"""Each mended break, on the stack that has it and on the one that has not."""

import colorsys
import importlib
import importlib.metadata
import logging
import os
import pickle
import signal
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import mmcv
import mmengine.logging
import numpy as np
import pytest
import scipy.interpolate
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, checkpoint
from mmengine.runner import save_checkpoint as save

from mmdtm import compat

compat.apply()


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


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


class Reach:
    """Gets at a function's globals with nothing but ``getattr`` when unpickled."""

    def __reduce__(self):
        return (getattr, (HistoryBuffer.mean, '__globals__'))


@pytest.fixture
def hostile(tmp_path):
    """A checkpoint with a payload, and the file it would create."""
    mark = tmp_path / 'executed'
    torch.save(
        dict(state_dict={'weight': torch.ones(1)}, meta=Payload(mark)),
        tmp_path / 'hostile.pth',
    )
    # It works where nobody forbids it.
    torch.load(tmp_path / 'hostile.pth', weights_only=False)
    mark.rmdir()
    yield tmp_path / 'hostile.pth'
    assert not mark.exists(), 'the payload ran'


def test_checkpoint_with_a_payload_is_refused(hostile):
    with pytest.raises(ValueError, match=f'{hostile} is not loaded.*any code'):
        CheckpointLoader.load_checkpoint(str(hostile))


def test_init_cfg_with_a_payload_is_refused(hostile):
    module = BaseModule(dict(type='Pretrained', checkpoint=str(hostile)))
    with pytest.raises(ValueError, match=str(hostile)):
        module.init_weights()


def test_download_with_a_payload_is_refused(hostile, tmp_path):
    with pytest.raises(ValueError, match='is not loaded'):
        checkpoint.load_url(hostile.as_uri(), model_dir=str(tmp_path / 'hub'))


def test_legacy_file_with_a_payload_is_refused(hostile, tmp_path):
    data = torch.load(hostile, weights_only=False)
    (tmp_path / 'executed').rmdir()
    data['meta'] = Payload(tmp_path / 'executed')
    legacy = tmp_path / 'legacy.pth'
    torch.save(data, legacy, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=str(legacy)):
        CheckpointLoader.load_checkpoint(str(legacy))


def test_bare_pickle_is_refused(tmp_path):
    path = tmp_path / 'bare.pth'
    path.write_bytes(pickle.dumps(Payload(tmp_path / 'executed')))
    with pytest.raises(ValueError, match=str(path)):
        CheckpointLoader.load_checkpoint(str(path))
    assert not (tmp_path / 'executed').exists()


def test_getattr_reaches_nothing_but_the_logs_own_statistics(tmp_path):
    path = tmp_path / 'reach.pth'
    torch.save(dict(meta=Reach()), path)
    with pytest.raises(ValueError, match='__globals__'):
        CheckpointLoader.load_checkpoint(str(path))


def test_damaged_checkpoint_is_named(tmp_path):
    whole, half = tmp_path / 'whole.pth', tmp_path / 'half.pth'
    torch.save(dict(state_dict={'weight': torch.randn(1000)}), whole)
    half.write_bytes(whole.read_bytes()[:2000])
    none = tmp_path / 'none.pth'
    none.write_text('not found')
    for path in (half, none):
        with pytest.raises(
            ValueError, match=f'(?s){path} is not loaded.*no checkpoint'
        ):
            CheckpointLoader.load_checkpoint(str(path))


def test_checkpoint_with_logs_and_numpy_numbers_loads(tmp_path):
    log = HistoryBuffer([1.0, 3.0], [1, 1])
    info = {
        np.dtype(kind).name: np.ones(2, kind)[0]
        for kind in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')
    }
    info['array'] = np.arange(6).reshape(2, 3)
    hub = dict(log_scalars={'train/loss': log}, runtime_info=info)
    save(dict(message_hub=hub, weight=torch.ones(2)), str(tmp_path / 'log.pth'))

    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'log.pth'))
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 2.0
    np.testing.assert_equal(loaded['message_hub']['runtime_info'], info)


@pytest.mark.parametrize('moment', ['fsync', 'replace'])
def test_process_killed_while_saving_leaves_the_old_checkpoint(tmp_path, moment):
    path = str(tmp_path / 'epoch_1.pth')
    save(dict(epoch=torch.tensor(1)), path)
    child = os.fork()
    if child == 0:
        setattr(os, moment, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
        save(dict(epoch=torch.tensor(2)), path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert CheckpointLoader.load_checkpoint(path)['epoch'] == 1
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']

    save(dict(epoch=torch.tensor(2)), path)  # what was left is no hindrance
    assert CheckpointLoader.load_checkpoint(path)['epoch'] == 2
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']


def test_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    LocalBackend().put(b'old', path)
    monkeypatch.setattr(os, 'fsync', lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LocalBackend().put(b'new', path)
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


class Runner:
    """As much of a Runner as CheckpointHook's saving needs."""

    def __init__(self, work_dir: Path):
        self.work_dir = str(work_dir)
        self.message_hub = SimpleNamespace(update_info=lambda *args: None)
        self.disk_full = False

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        if self.disk_full:
            raise OSError('No space left on device')
        LocalBackend().put(b'weights', Path(out_dir, filename))


def test_old_checkpoint_stays_until_the_new_one_stands(tmp_path):
    hook, runner = CheckpointHook(max_keep_ckpts=1), Runner(tmp_path)
    hook.out_dir, hook.file_backend = str(tmp_path), LocalBackend()
    hook.keep_ckpt_ids = deque([], 1)

    def kept() -> list[str]:
        return sorted(path.name for path in tmp_path.glob('*.pth'))

    hook._save_checkpoint_with_step(runner, 1, meta={})
    hook._save_checkpoint_with_step(runner, 2, meta={})
    assert kept() == ['epoch_2.pth']
    runner.disk_full = True
    with pytest.raises(OSError, match='No space'):
        hook._save_checkpoint_with_step(runner, 3, meta={})
    assert kept() == ['epoch_2.pth']
    assert isinstance(hook.file_backend, LocalBackend)
