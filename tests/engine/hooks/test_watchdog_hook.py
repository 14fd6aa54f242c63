"""Runs that would wait for ever."""

import os
import re
import signal
import subprocess
import sys

import pytest
from tiny_run import ROOT, log_rows, write_config

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.hooks import WatchdogHook

# One image of the second class takes for ever, in the first worker that meets it.
HANGING = """
import time
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

@TRANSFORMS.register_module()
class WaitForEver(BaseTransform):
    def transform(self, results):
        if results['img_path'].endswith('c1/3.JPEG'):
            time.sleep(10000)
        return results
"""
EXTRA = """
custom_imports['imports'].append('hanging')
custom_hooks = [dict(type='WatchdogHook', timeout={timeout})]
val_cfg = val_dataloader = val_evaluator = None
train_cfg = dict(type='ExactEpochBasedTrainLoop', max_epochs=1000)
default_hooks.update(checkpoint=dict(type='CheckpointHook', interval=1000))
"""


def start(tmp_path, command, extra: str) -> subprocess.Popen:
    (tmp_path / 'hanging.py').write_text(HANGING)
    config = write_config(tmp_path, EXTRA.format(timeout=8) + extra)
    path = f'{ROOT}:{tmp_path}'
    return subprocess.Popen(
        [*command[:-1], ROOT / 'tools' / command[-1], config]
        + (['2'] if command[-1].endswith('.sh') else [])
        + ['--work-dir', tmp_path / 'run'],
        env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_a_worker_that_hangs_ends_the_run(tmp_path, workers):
    extra = f'train_dataloader.update(num_workers={workers})\n'
    extra += (
        "train_dataloader['dataset']['pipeline'].insert(1, dict(type='WaitForEver'))"
    )
    run = start(tmp_path, [sys.executable, 'train.py'], extra)
    out, _ = run.communicate(timeout=600)
    assert run.returncode == 1
    assert re.search(
        r'Rank 0 has waited .* for data: worker \d is reading /\S+JPEG', out
    )
    assert 'resume it from its last checkpoint' in out


@pytest.mark.slow
def test_a_process_that_is_stopped_ends_the_others(tmp_path):
    run = start(tmp_path, ['dist_train.sh'], '')
    while len(log_rows(tmp_path / 'run')) < 3:
        assert run.poll() is None
    command = ['pgrep', '-P', str(run.pid)]
    ranks = subprocess.run(command, capture_output=True, text=True).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGSTOP)
    out, _ = run.communicate(timeout=600)
    assert run.returncode == 1
    assert out.count('another of the 2 processes') == 1, 'the stopped one says nothing'
    assert 'Rank 0 has waited for ' in out


def test_no_time_at_all():
    with pytest.raises(ValueError, match='timeout must be positive, got 0'):
        WatchdogHook(timeout=0)
