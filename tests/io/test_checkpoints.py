"""Checkpoints: nothing in one is executed, and a bad one says what it is."""

import argparse
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, checkpoint
from mmengine.runner import save_checkpoint as save

import mmdtm.prepare  # noqa: F401
from mmdtm.io.checkpoints import read_checkpoint
from mmdtm.io.weights import read_weights


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
            ValueError, match=f'(?s){path} is not loaded.*not a checkpoint'
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


def test_command_line_of_a_training_program_loads(tmp_path):
    path = tmp_path / 'theirs.pth'
    torch.save(dict(model={'w': torch.ones(2)}, args=argparse.Namespace(lr=0.1)), path)
    assert read_checkpoint(path)['args'].lr == 0.1
    assert list(read_weights(path)[0]) == ['w']


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        ([torch.ones(1)], 'a list'),
        (None, 'a NoneType'),
        (torch.ones(1), 'a Tensor'),
        (dict(state_dict=None, meta={}), 'state_dict, meta'),
        (dict(state_dict=[torch.ones(1)]), 'state_dict'),
    ],
    ids=['list', 'none', 'tensor', 'state_dict none', 'state_dict list'],
)
def test_file_without_tensors_by_name_says_what_it_has(tmp_path, content, found):
    path = tmp_path / 'odd.pth'
    torch.save(content, path)
    for load in (CheckpointLoader.load_checkpoint, read_weights):
        with pytest.raises(ValueError, match=f'{path} holds no weights.*{found}'):
            load(str(path))


def bomb(path: Path) -> Path:
    """A checkpoint of 100 MB of zeros that was compressed to a small file."""
    whole = io.BytesIO()
    torch.save({'state_dict': {'w': torch.zeros(25_000_000)}}, whole)
    with (
        zipfile.ZipFile(whole) as source,
        zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    return path


def test_zip_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = bomb(tmp_path / 'bomb.pth')
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(torch, 'load', lambda *args, **kwargs: pytest.fail('read'))
    for load in (CheckpointLoader.load_checkpoint, read_weights):
        with pytest.raises(ValueError, match=f'{path} is not loaded.*100,0'):
            load(str(path))
    with pytest.raises(ValueError, match='The checkpoint is not loaded'):
        read_checkpoint(io.BytesIO(path.read_bytes()))


def test_tensors_that_claim_more_than_the_file_has_are_refused(tmp_path):
    path = tmp_path / 'claims.pth'
    torch.save({'state_dict': {'w': torch.zeros(1).expand(2**20, 2**20)}}, path)
    for load in (CheckpointLoader.load_checkpoint, read_weights):
        with pytest.raises(ValueError, match=f'{path} is not loaded: w has .*1048576'):
            load(str(path))
    torch.save({'w': torch.zeros(1).expand(100, 100)}, path)  # harmless
    assert read_weights(path)[0]['w'].shape == (100, 100)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'ema_state_dict'])
def test_values_that_are_not_finite_are_refused(tmp_path, value, wrapper):
    path = tmp_path / 'diverged.pth'
    weights = dict(good=torch.ones(3), bad=torch.tensor([1, value]).half())
    torch.save({wrapper: weights} if wrapper else weights, path)
    loads = [CheckpointLoader.load_checkpoint]
    loads += [read_weights] if wrapper != 'ema_state_dict' else []
    for load in loads:
        with pytest.raises(ValueError, match=f'{path} has NaN.* 1 of 2 tensors: bad'):
            load(str(path))


def test_masks_and_numbers_of_eight_bits_are_finite(tmp_path):
    weights = dict(mask=torch.tensor([0.0, -np.inf]), index=torch.arange(3))
    weights['small'] = torch.ones(2).to(torch.float8_e4m3fn)
    torch.save(weights, tmp_path / 'good.pth')
    assert len(read_weights(tmp_path / 'good.pth')[0]) == 3


def test_checkpoint_loads_from_memory():
    file = io.BytesIO()
    torch.save({'w': torch.arange(3)}, file)
    file.seek(0)
    assert read_checkpoint(file)['w'].tolist() == [0, 1, 2]


def test_download_loads_and_is_kept(tmp_path):
    torch.save({'w': torch.arange(3)}, tmp_path / 'w-abc.pth')
    url = (tmp_path / 'w-abc.pth').as_uri()
    for _ in range(2):
        loaded = checkpoint.load_url(url, model_dir=str(tmp_path / 'hub'))
        assert loaded['w'].tolist() == [0, 1, 2]
        (tmp_path / 'w-abc.pth').unlink(missing_ok=True)
    assert (tmp_path / 'hub' / 'w-abc.pth').is_file()


def test_download_of_another_digest_is_refused(tmp_path):
    torch.save({'w': torch.arange(3)}, tmp_path / 'w-abc.pth')
    with pytest.raises(RuntimeError, match='invalid hash'):
        checkpoint.load_url(
            (tmp_path / 'w-abc.pth').as_uri(),
            model_dir=str(tmp_path / 'hub'),
            check_hash=True,
        )
    assert not list((tmp_path / 'hub').iterdir())


def test_config_in_a_checkpoint_is_not_handed_on(tmp_path):
    """Runner.resume would execute it."""
    path = tmp_path / 'old.pth'
    torch.save(dict(state_dict={}, meta=dict(config='1 / 0', epoch=3)), path)
    assert read_checkpoint(path)['meta'] == dict(epoch=3)
