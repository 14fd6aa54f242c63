"""Runs that are told to stop, and go on."""

import functools
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


# Long enough to be met by a signal, with workers that a Ctrl-C reaches, too.
LONG = """
custom_hooks = [dict(type='PreemptionHook')]
train_cfg.update(max_epochs=10000)
train_dataloader.update(num_workers=2, persistent_workers=True)
default_hooks.update(checkpoint=dict(type='CheckpointHook', interval=10000))
val_cfg = val_dataloader = val_evaluator = None
"""


@pytest.fixture
def start(tmp_path):
    """Starts runs of their own, and ends what is left of them."""
    yield functools.partial(_start, tmp_path)
    left = subprocess.run(['pgrep', '-f', tmp_path], capture_output=True, text=True)
    for number in left.stdout.split():
        os.kill(int(number), signal.SIGKILL)


def _start(tmp_path: Path, processes: int, extra: str = '') -> subprocess.Popen:
    config = write_config(tmp_path, LONG + extra)
    command = [sys.executable, ROOT / 'tools/train.py', config]
    if processes > 1:
        command = [ROOT / 'tools/dist_train.sh', config, str(processes)]
    path = f'{ROOT}:{tmp_path}'
    run = subprocess.Popen(
        [*command, '--work-dir', tmp_path / 'run'],
        env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(log_rows(tmp_path / 'run')) < 3:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.1)
    return run


@pytest.mark.slow
def test_control_c_reaches_the_workers_too(start, tmp_path):
    run = start(1)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=100)
    assert run.returncode == 75, err
    assert 'Traceback' not in out + err
    assert 'Ctrl-C again ends at once' in err and 'Stopped by SIGINT' in out
    assert len(checkpoints(tmp_path / 'run')) == 1


@pytest.mark.slow
def test_a_second_control_c_ends_at_once(start, tmp_path):
    wait = """
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class StepForEver(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        import time
        if runner.iter == 4:
            time.sleep(1000)
"""
    (tmp_path / 'step_for_ever.py').write_text(wait)
    extra = """
custom_imports['imports'].append('step_for_ever')
custom_hooks.append(dict(type='StepForEver'))
"""
    run = start(1, extra)
    for _ in range(2):
        time.sleep(2)
        os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=20)
    assert run.returncode == -signal.SIGINT
    assert 'Traceback' not in out + err
    assert checkpoints(tmp_path / 'run') == set()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1', 'SIGINT'])
def test_processes_stop_together(start, tmp_path, name):
    run = start(2)
    run.send_signal(getattr(signal, name))
    out, err = run.communicate(timeout=100)
    assert run.returncode == 75, err
    assert 'Traceback' not in out + err
    assert out.count('Stopped by') == 1
    assert len(checkpoints(tmp_path / 'run')) == 1


@pytest.mark.slow
def test_one_process_tells_the_others(start, tmp_path):
    run = start(2)
    command = ['pgrep', '-P', str(run.pid)]
    workers = subprocess.run(command, capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGUSR1)
    out, err = run.communicate(timeout=100)
    assert run.returncode == 75, err
    assert out.count('Stopped by') == 1
    assert len(checkpoints(tmp_path / 'run')) == 1
