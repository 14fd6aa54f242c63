"""Runs that are told to stop, and go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny_run import ROOT, log_rows, run_tool, write_config

import mmdtm.plugin  # noqa: F401

HOOK = """
custom_hooks = [dict(type='PreemptionHook'), dict(type='SignalInStep', **{})]
default_hooks.update(checkpoint=dict(type='CheckpointHook', **{}))
"""
pytestmark = pytest.mark.filterwarnings('ignore:No GPU here')


@HOOKS.register_module()
class SignalInStep(Hook):
    """Somebody sends a signal while a step is computed."""

    def __init__(self, step: int, name: str = 'SIGTERM', times: int = 1) -> None:
        self.step, self.name, self.times = step, name, times

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.step and not runner._resume:
            for _ in range(self.times):
                os.kill(os.getpid(), getattr(signal, self.name))


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob('*.pth*')}


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1', 'SIGINT'])
def test_a_signal_ends_the_run_after_its_step(tmp_path, name, capfd):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    extra = HOOK.format(dict(step=3, name=name, times=2), dict(interval=1))
    args = (write_config(tmp_path, extra), '--work-dir', tmp_path / 'run', '--resume')
    with pytest.raises(SystemExit) as stop:
        run_tool('train.py', *args, 'auto')  # there is nothing to resume from
    assert stop.value.code == 75
    assert checkpoints(tmp_path / 'run') == {'iter_3.pth'}
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith('run/iter_3.pth')
    out = capfd.readouterr().out
    assert out.count('Stopped by') == 1
    assert f'Stopped by {name} after step 3, which is saved in {tmp_path}' in out
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]

    run_tool('train.py', *args, 'auto')
    # The next regular checkpoint takes its place.
    assert checkpoints(tmp_path / 'run') == {'epoch_1.pth', 'epoch_2.pth'}
    assert [row['step'] for row in log_rows(tmp_path / 'run')][:4] == [1, 2, 3, 4]


def test_what_is_just_saved_is_not_saved_again(tmp_path):
    saves = []

    @HOOKS.register_module(force=True)
    class CountSaves(Hook):
        def before_save_checkpoint(self, runner, checkpoint):
            saves.append(runner.iter + 1)

    extra = HOOK.format(dict(step=2), dict(by_epoch=False, interval=2))
    extra += "custom_hooks.append(dict(type='CountSaves'))"
    config = write_config(tmp_path, extra)
    with pytest.raises(SystemExit):
        run_tool('train.py', config, '--work-dir', tmp_path / 'run')
    assert saves == [2]
    assert checkpoints(tmp_path / 'run') == {'iter_2.pth'}


def test_a_signal_in_the_last_step_changes_nothing(tmp_path):
    config = write_config(tmp_path, HOOK.format(dict(step=8), dict(interval=1)))
    run_tool('train.py', config, '--work-dir', tmp_path / 'run')
    assert checkpoints(tmp_path / 'run') == {'epoch_1.pth', 'epoch_2.pth'}


@pytest.mark.slow
def test_another_runs_checkpoint_is_not_removed(tmp_path):
    config = write_config(tmp_path, HOOK.format(dict(step=3), dict(interval=1)))
    with pytest.raises(SystemExit):
        run_tool('train.py', config, '--work-dir', tmp_path / 'first')
    place = ('--work-dir', tmp_path / 'second')
    run_tool('train.py', config, *place, '--resume', tmp_path / 'first/iter_3.pth')
    assert checkpoints(tmp_path / 'first') == {'iter_3.pth'}
    saved = torch.load(tmp_path / 'second/epoch_2.pth', weights_only=False)
    assert 'preemption_checkpoint' not in saved['message_hub']['runtime_info']


# Long enough to be met by a signal, with workers that a Ctrl-C reaches, too. One
# process, and a second Ctrl-C, are in tests/attack.
LONG = """
custom_hooks = [dict(type='PreemptionHook')]
train_cfg.update(max_epochs=10000)
train_dataloader.update(num_workers=2, persistent_workers=True)
default_hooks.update(checkpoint=dict(type='CheckpointHook', interval=10000))
val_cfg = val_dataloader = val_evaluator = None
"""


@pytest.fixture
def start(tmp_path):
    """Starts two processes through torchrun, and ends what is left of them."""
    config = write_config(tmp_path, LONG)
    command = [
        ROOT / 'tools/dist_train.sh',
        config,
        '2',
        '--work-dir',
        tmp_path / 'run',
    ]
    run = subprocess.Popen(
        command,
        env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(log_rows(tmp_path / 'run')) < 3:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.1)
    yield run
    left = subprocess.run(['pgrep', '-f', tmp_path], capture_output=True, text=True)
    for number in left.stdout.split():
        os.kill(int(number), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1', 'SIGINT'])
def test_processes_stop_together(start, tmp_path, name):
    start.send_signal(getattr(signal, name))
    out, err = start.communicate(timeout=100)
    assert start.returncode == 75, err
    assert 'Traceback' not in out + err
    assert out.count('Stopped by') == 1
    assert len(checkpoints(tmp_path / 'run')) == 1
