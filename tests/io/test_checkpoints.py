"""Checkpoints as training programs save them; test_weights.py has the bad ones."""

import argparse
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, checkpoint
from mmengine.runner import save_checkpoint as save

import mmdtm.prepare  # noqa: F401
from mmdtm.io.checkpoints import read_checkpoint
from mmdtm.io.weights import read_weights


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


def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.pth')
    for path in (tmp_path / 'pipe.pth', Path('/dev/zero'), tmp_path):
        with pytest.raises(ValueError, match=f'{path} is not a file'):
            read_checkpoint(path)
