"""tools/train.py and the scripts that start it, on runs of a second."""

import os
import stat
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader
from tiny_run import ROOT, log_rows, run_shell, run_tool, write_config


@HOOKS.register_module()
class Interruption(Hook):
    """Somebody presses Control-C in the second epoch."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == 1:
            raise KeyboardInterrupt


def load(path: Path) -> dict:
    return CheckpointLoader.load_checkpoint(str(path), 'cpu')


@pytest.mark.slow
def test_resumed_run_ends_where_the_unbroken_one_does(tmp_path):
    config = write_config(tmp_path)
    run_tool('train.py', config, '--work-dir', tmp_path / 'unbroken')
    hook = "custom_hooks = [dict(type='Interruption')]"
    interrupted = write_config(tmp_path, hook, name='interrupted')
    with pytest.raises(SystemExit, match='130'):
        run_tool('train.py', interrupted, '--work-dir', tmp_path / 'broken')
    assert not (tmp_path / 'broken/epoch_2.pth').exists()
    run_tool('train.py', config, '--work-dir', tmp_path / 'broken', '--resume')

    ends = [load(tmp_path / run / 'epoch_2.pth') for run in ('unbroken', 'broken')]
    assert ends[1]['meta']['iter'] == ends[0]['meta']['iter'] == 8
    assert ends[1]['param_schedulers'] == ends[0]['param_schedulers']
    for part in ('state_dict', 'optimizer'):
        torch.testing.assert_close(ends[1][part], ends[0][part], rtol=0, atol=0)
    steps = [row['step'] for row in log_rows(tmp_path / 'broken')]
    assert steps == list(range(1, 9))
    log = next((tmp_path / 'unbroken').glob('*/vis_data/scalars.json'))
    assert log.read_text().count('accuracy/top1') == 2


def test_resume_from_a_named_checkpoint_runs_nothing_that_it_brings(tmp_path):
    config = write_config(tmp_path)
    options = ('--cfg-options', 'train_cfg.max_epochs=1')
    run_tool('train.py', config, '--work-dir', tmp_path / 'first', *options)
    first, mark = tmp_path / 'first/epoch_1.pth', tmp_path / 'executed'
    checkpoint = load(first)
    # mmengine reads this text as a config file.
    checkpoint['meta']['config'] = f'import os\nos.mkdir({str(mark)!r})\n'
    torch.save(checkpoint, first)
    run_tool('train.py', config, '--work-dir', tmp_path / 'second', '--resume', first)
    assert [row['step'] for row in log_rows(tmp_path / 'second')] == [5, 6, 7, 8]
    assert not mark.exists()


def test_resume_without_a_checkpoint_says_where_and_what_to_do(tmp_path):
    config = write_config(tmp_path)
    empty = tmp_path / 'empty'
    with pytest.raises(FileNotFoundError, match=f'no checkpoint in {empty}.*anew'):
        run_tool('train.py', config, '--work-dir', empty, '--resume')
    with pytest.raises(FileNotFoundError, match='no checkpoint nowhere.pth'):
        run_tool('train.py', config, '--work-dir', empty, '--resume', 'nowhere.pth')
    assert not empty.exists(), 'nothing was started'


def test_auto_scale_lr_scales_by_the_batch_and_no_validate_leaves_that_out(tmp_path):
    config = write_config(tmp_path, 'auto_scale_lr = dict(base_batch_size=16)')
    args = ('--no-validate', '--cfg-options', 'train_cfg.max_epochs=1')
    run_tool(
        'train.py', config, '--work-dir', tmp_path / 'run', '--auto-scale-lr', *args
    )
    group = load(tmp_path / 'run/epoch_1.pth')['optimizer']['param_groups'][0]
    assert group['initial_lr'] == pytest.approx(1e-3 * 4 / 16)
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    assert 'accuracy/top1' not in log.read_text(), 'with --no-validate'


def test_auto_scale_lr_needs_a_batch_size(tmp_path):
    with pytest.raises(ValueError, match='base_batch_size'):
        run_tool('train.py', write_config(tmp_path), '--auto-scale-lr')


def test_amp_is_taken_back_without_gpu_with_one_warning(tmp_path):
    config = write_config(tmp_path, "optim_wrapper['type'] = 'OptimWrapper'\n")
    with pytest.warns(UserWarning, match='No GPU here: mixed precision is off') as seen:
        run_tool(
            'train.py',
            *(config, '--work-dir', tmp_path / 'run', '--amp', '--no-validate'),
            *('--cfg-options', 'train_cfg.max_epochs=1'),
        )
    assert sum('No GPU here' in str(w.message) for w in seen) == 1
    assert (tmp_path / 'run/epoch_1.pth').exists()


@pytest.mark.slow
def test_two_processes_train_on_a_cpu_and_one_goes_on(tmp_path):
    """Two processes train, one goes on: AMP and SyncBN are off, said once."""
    config = write_config(tmp_path)
    args = (config, 2, '--work-dir', tmp_path / 'run', '--cfg-options')
    done = run_shell('dist_train.sh', *args, 'train_cfg.max_epochs=1')
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('No GPU here') == 1
    assert 'mixed precision is off, SyncBN is replaced by BN' in done.stderr
    # 16 images, 2 processes of 4 images: 2 steps.
    assert [row['step'] for row in log_rows(tmp_path / 'run')] == [1, 2]

    done = run_shell('dist_train.sh', config, 1, *args[2:4], '--resume')
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / 'run/epoch_2.pth')['meta']['iter'] == 2 + 4


def fake(path: Path) -> Path:
    """A program that prints its arguments and the threads it may use."""
    path.write_text(
        '#!/bin/sh\necho "threads=$OMP_NUM_THREADS,$MKL_NUM_THREADS" "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_dist_train_hands_its_arguments_on(tmp_path):
    python = str(fake(tmp_path / 'python'))
    cores = len(os.sched_getaffinity(0))
    env = dict(PYTHON=python, OMP_NUM_THREADS='', MKL_NUM_THREADS='')
    out = run_shell('dist_train.sh', 'my config.py', cores, '--amp', **env).stdout
    assert out.startswith(f'threads=1,1 {ROOT}/tools/torchrun.py --standalone')
    assert ' --max_restarts=0 ' in out
    assert f'--nproc_per_node={cores} {ROOT}/tools/train.py my config.py --amp' in out
    assert out.rstrip().endswith('--launcher pytorch')

    assert run_shell('dist_train.sh', 'c.py', 1, **env).stdout.startswith(
        f'threads={cores},{cores} '
    )

    out = run_shell('dist_train.sh', 'c.py', 8, **env, MAX_RESTARTS='3').stdout
    assert ' --max_restarts=3 ' in out

    env.update(NNODES='2', NODE_RANK='1', MASTER_ADDR='node0', PORT='1234')
    out = run_shell('dist_train.sh', 'c.py', 8, **env).stdout
    assert '--nnodes=2 --node_rank=1 --master_addr=node0 --master_port=1234' in out


def test_slurm_train_hands_its_arguments_on(tmp_path):
    fake(tmp_path / 'srun')
    env = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='4', PYTHON='python3')
    args = ('part', 'job', 'c.py', 'work', '--amp')
    out = run_shell('slurm_train.sh', *args, **env, SRUN_ARGS='--time=1:00 -v').stdout
    assert '--partition=part --job-name=job --gres=gpu:4 --ntasks=4' in out
    assert '--ntasks-per-node=4 --cpus-per-task=8' in out
    assert '--time=1:00 -v python3 -u' in out
    assert 'tools/train.py c.py --work-dir work --amp --launcher slurm' in out
    assert '--signal=USR1@120 ' in out and '--requeue' not in out
    out = run_shell('slurm_train.sh', *args, **env, GRACE='30').stdout
    assert '--signal=USR1@30 ' in out


def run_batch_job(tmp_path, code: int) -> tuple[str, str]:
    """What sbatch and scontrol get if the training ends with this code."""
    log = tmp_path / 'log'
    log.write_text('')
    for name, then in dict(
        sbatch='for script; do :; done; SLURM_JOB_ID=7 sh -c "$script"',
        srun=f'exit {code}',
        scontrol='exit 0',
    ).items():
        program = fake(tmp_path / name)
        program.write_text(f'#!/bin/bash\necho {name} "$@" >> {log}\n{then}\n')
    env = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', PYTHON='python3', REQUEUE='1')
    done = run_shell('slurm_train.sh', 'part', 'job', 'my c.py', 'work', '--amp', **env)
    assert done.returncode == code
    submitted, *ran = log.read_text().split('\nsrun ')
    return submitted, ran[0]


def test_a_slurm_job_that_saved_and_stopped_is_requeued(tmp_path):
    submitted, ran = run_batch_job(tmp_path, 75)
    assert '--partition=part' in submitted and '--signal=USR1@120' in submitted
    assert '--requeue --open-mode=append' in submitted
    assert 'tools/train.py my c.py --work-dir work --resume auto --amp' in ran
    assert ran.endswith('scontrol requeue 7\n')


@pytest.mark.parametrize('code', [0, 1])
def test_a_slurm_job_that_ended_is_not_requeued(tmp_path, code):
    assert 'scontrol' not in run_batch_job(tmp_path, code)[1]


@pytest.mark.slow
def test_resume_auto_serves_the_first_start_and_the_restart(tmp_path):
    config = write_config(tmp_path)
    args = (config, '--work-dir', tmp_path / 'run', '--resume')
    with pytest.raises(FileNotFoundError, match='no checkpoint in'):
        run_tool('train.py', *args)
    run_tool('train.py', *args, 'auto', '--cfg-options', 'train_cfg.max_epochs=1')
    run_tool('train.py', *args, 'auto')
    steps = [row['step'] for row in log_rows(tmp_path / 'run')]
    assert steps == list(range(1, 9))


@pytest.mark.slow
def test_torchrun_restarts_a_run_of_which_a_process_dies(tmp_path):
    extra = """
custom_imports['imports'].append('dying')
custom_hooks = [dict(type='Dying')]
"""
    (tmp_path / 'dying.py').write_text("""
import os
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Dying(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if get_rank() == 1 and runner.iter == 3 and not runner._resume:
            os.kill(os.getpid(), 9)
""")
    config = write_config(tmp_path, extra)
    args = (config, 2, '--work-dir', tmp_path / 'run', '--resume', 'auto')
    env = dict(PYTHONPATH=str(tmp_path), MAX_RESTARTS='1')
    done = run_shell('dist_train.sh', *args, **env)
    assert done.returncode == 0, done.stderr
    steps = [row['step'] for row in log_rows(tmp_path / 'run')]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    assert steps[-2:] == [3, 4]


@pytest.mark.parametrize('script', ['dist_train', 'dist_test', 'slurm_train'])
def test_scripts_without_arguments_explain_themselves(script):
    done = run_shell(f'{script}.sh', 'only.py')
    assert done.returncode == 2
    assert f'tools/{script}.sh ' in done.stderr
