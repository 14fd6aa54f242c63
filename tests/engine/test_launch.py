"""From a command line to the config that runs, without running it."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import warnings
from pathlib import Path
from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from tiny_run import log_rows, write_config

from mmdtm.engine import launch


def parse(tmp_path, text: str, *args) -> Config:
    """Loads a config of this text as the tools do."""
    path = tmp_path / 'some_name.py'
    path.write_text(text)
    parser = launch.argument_parser('')
    return launch.load_config(parser.parse_args([str(path), *map(str, args)]))


def test_work_dir_is_given_or_configured_or_named_after_the_config(tmp_path):
    assert parse(tmp_path, '').work_dir == 'work_dirs/some_name'
    assert parse(tmp_path, "work_dir = 'own'").work_dir == 'own'
    assert parse(tmp_path, "work_dir = 'own'", '--work-dir', 'cli').work_dir == 'cli'


def test_cfg_options_change_the_config(tmp_path):
    options = ('--cfg-options', 'a.b=2', 'c=[3,4]')
    cfg = parse(tmp_path, 'a = dict(b=1)', *options)
    assert cfg.a.b == 2 and cfg.c == [3, 4]


def test_data_loaders_are_completed_as_mmpretrain_does(tmp_path):
    text = "default_scope = '{}'\ntrain_dataloader = dict(num_workers={})"
    loader = parse(tmp_path, text.format('mmpretrain', 2)).train_dataloader
    assert loader.collate_fn == dict(type='default_collate')
    assert loader.pin_memory and loader.persistent_workers
    loader = parse(tmp_path, text.format('mmpretrain', 0)).train_dataloader
    assert not loader.persistent_workers, 'there are none'
    loader = parse(tmp_path, text.format('mmseg', 2)).train_dataloader
    assert loader == dict(num_workers=2), 'mmsegmentation collates otherwise'


def test_workers_can_be_switched_off(tmp_path):
    """Although the config, here mmsegmentation's, wants them to persist."""
    text = 'train_dataloader = dict(num_workers=2, persistent_workers=True)'
    options = ('--cfg-options', 'train_dataloader.num_workers=0')
    loader = parse(tmp_path, text, *options).train_dataloader
    assert loader == dict(num_workers=0, persistent_workers=False)


def test_a_run_that_is_over_before_its_rate_falls_is_refused(tmp_path):
    """Schedules last as long as training, so that a short one may never begin."""
    text = "param_scheduler = [dict(type='LinearLR', end=10),\n"
    text += "    dict(type='CosineAnnealingLR', begin=10)]\n"
    text += (
        "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs={})\nmodel = dict()"
    )
    message = r'max_epochs=10 .*param_scheduler\.1 .*param_scheduler\.0\.end=N'
    with pytest.raises(ValueError, match=message):
        launch.build_runner(parse(tmp_path, text.format(10)))
    launch._check_schedule(parse(tmp_path, text.format(11)))
    shorter = ('--cfg-options', 'param_scheduler.0.end=2', 'param_scheduler.1.begin=2')
    launch._check_schedule(parse(tmp_path, text.format(10), *shorter))


def test_deterministic_runs_may_use_cublas(tmp_path, monkeypatch):
    """torch refuses its calls without, see torch.use_deterministic_algorithms."""
    monkeypatch.setattr(launch.Runner, 'from_cfg', mock.MagicMock())
    for deterministic in (False, True):
        monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
        text = f'model = dict()\nrandomness = dict(deterministic={deterministic})'
        launch.build_runner(parse(tmp_path, text))
        assert ('CUBLAS_WORKSPACE_CONFIG' in os.environ) == deterministic


GPU_CONFIG = """
norm = dict(type='SyncBN')
model = dict(backbone=dict(norm_cfg=norm), heads=[dict(norm_cfg=norm)])
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic',
    optimizer=dict(type='SGD', lr=1.0), accumulative_counts=2)
train_dataloader = dict(pin_memory=True)
test_cfg = dict(fp16=True)
env_cfg = dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl'))
find_unused_parameters = True
"""


def test_nothing_is_changed_where_there_is_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    cfg = parse(tmp_path, GPU_CONFIG, '--launcher', 'pytorch')
    before = cfg.to_dict()
    launch.fit_to_device(cfg)
    assert cfg.to_dict() == before


def test_config_is_fitted_to_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    cfg = parse(tmp_path, GPU_CONFIG, '--launcher', 'pytorch')
    with pytest.warns(UserWarning, match='No GPU here') as seen:
        launch.fit_to_device(cfg)
    assert len(seen) == 1
    assert 'mixed precision is off, mixed precision of test_cfg is off, ' in str(
        seen[0].message
    )
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=1.0),
        accumulative_counts=2,
    )
    assert 'SyncBN' not in str(cfg.model) and str(cfg.model).count("'BN'") == 2
    assert not cfg.train_dataloader.pin_memory and not cfg.test_cfg.fp16
    assert cfg.env_cfg == dict(cudnn_benchmark=True, dist_cfg=dict(backend='gloo'))
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )


def test_only_the_first_process_warns(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setenv('RANK', '1')
    cfg = parse(tmp_path, GPU_CONFIG)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        launch.fit_to_device(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'model_wrapper_cfg' not in cfg, 'one process needs no wrapper'


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for age, name in enumerate(names):
        (folder / name).touch()
        os.utime(folder / name, (age, age))


def test_the_checkpoint_of_a_folder_is_its_last(tmp_path):
    run, moved = tmp_path / 'run', tmp_path / 'moved'
    touch(run, 'epoch_1.pth', 'iter_9.pth', 'epoch_2.pth', 'best_top1_epoch_1.pth')
    (run / 'last_checkpoint').write_text(f'{run}/epoch_1.pth')
    assert launch.find_checkpoint(str(run)) == f'{run}/epoch_1.pth'
    assert launch.find_checkpoint(f'{run}/iter_9.pth') == f'{run}/iter_9.pth'

    run.rename(moved)
    assert launch.find_checkpoint(str(moved)) == f'{moved}/epoch_1.pth'

    for text in ('', f'{run}/epoch_7.pth'):  # half-written; a file that is gone
        (moved / 'last_checkpoint').write_text(text)
        assert launch.find_checkpoint(str(moved)) == f'{moved}/epoch_2.pth'

    address = 'https://host/epoch_3.pth'
    assert launch.find_checkpoint(address) == address


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    touch(tmp_path / 'run', 'epoch_1.pth.tmp', 'best_top1_epoch_1.pth')
    for place in ('run', 'nowhere'):
        with pytest.raises(FileNotFoundError, match=f'no checkpoint in {tmp_path}/'):
            launch.find_checkpoint(str(tmp_path / place))
    with pytest.raises(FileNotFoundError, match='no checkpoint .*gone.pth'):
        launch.find_checkpoint(str(tmp_path / 'gone.pth'))


@pytest.fixture
def other_run(tmp_path):
    """Another process that has claimed the folder, and its worker."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        launch.claim_folder(str(tmp_path / 'run'))
        worker = os.fork()
        if worker:
            os.write(told, f'{worker}\n'.encode())
        signal.pause()
    worker = int(os.read(ready, 20))
    yield pid
    os.kill(worker, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_second_run_in_a_work_folder_is_refused(tmp_path, other_run, monkeypatch):
    folder = str(tmp_path / 'run')
    who = f'process {other_run} on {socket.gethostname()} since 20'
    with pytest.raises(BlockingIOError, match=f'run: another run is at .*{who}'):
        launch.claim_folder(folder)
    monkeypatch.setenv('RANK', '1')
    launch.claim_folder(folder, 'pytorch')  # the first process does it
    with pytest.raises(BlockingIOError, match=who):
        launch.claim_folder(folder)

    os.kill(other_run, signal.SIGKILL)
    os.waitpid(other_run, 0)
    launch.claim_folder(folder)  # although the worker is still there
    assert f'process {os.getpid()} on' in (tmp_path / 'run/.lock').read_text()


def test_a_file_system_without_locks_is_no_reason_not_to_run(tmp_path, monkeypatch):
    def unsupported(file, flags):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', unsupported)
    with pytest.warns(UserWarning, match='run cannot be locked .*No locks'):
        launch.claim_folder(str(tmp_path / 'run'))


class NoRoom(Hook):
    """Lets the second and third step's curves find no folder."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        folder = Path(runner.log_dir, 'vis_data')
        if runner.iter == 1:
            folder.rename(f'{folder}_away')
        if runner.iter == 3:
            Path(f'{folder}_away').rename(folder)


def test_curves_that_cannot_be_written_do_not_end_a_run(tmp_path):
    extra = 'train_cfg.update(max_epochs=1)\nval_cfg = val_dataloader = None\n'
    extra += 'val_evaluator = None\n'
    path = write_config(tmp_path, extra)
    cfg = launch.load_config(
        launch.argument_parser('').parse_args(
            [str(path), '--work-dir', f'{tmp_path}/run']
        )
    )
    runner = launch.build_runner(cfg)
    runner.register_hook(NoRoom())
    runner.train()
    assert [row['step'] for row in log_rows(tmp_path / 'run')] == [1, 4]
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert log.count('LocalVisBackend cannot write') == 1
