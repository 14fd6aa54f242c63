"""AtomicCheckpointHook: at any moment the newest whole checkpoint is there."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

import mmdtm.io.atomic
import mmdtm.plugin  # noqa: F401
from mmdtm.io.checkpoints import read_checkpoint


class Model(nn.Module):
    """One weight; its step counts up."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def train_step(self, data, optim_wrapper):
        self.weight.data += 1
        return dict(loss=self.weight.detach().clone())

    def val_step(self, data):
        return [data]


class Scores(Evaluator):
    """Gives the next of these scores."""

    def __init__(self, scores):
        super().__init__([])
        self.scores = iter(scores)

    def evaluate(self, size):
        return next(self.scores)


def run(work_dir: Path, epochs: int = 3, scores=(), **hook) -> Runner:
    loader = DataLoader(range(2), batch_size=1)
    runner = Runner(
        Model(),
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook', interval=1, **hook)
        ),
        default_scope='mmpretrain',
        experiment_name=work_dir.name,
        **(
            dict(
                val_dataloader=loader,
                val_cfg=dict(type='ValLoop'),
                val_evaluator=Scores(scores),
            )
            if scores
            else {}
        ),
    )
    runner.train()
    return runner


def saved(work_dir: Path) -> list[str]:
    return sorted(
        str(path.relative_to(work_dir))
        for path in work_dir.iterdir()
        if path.is_file() and path.suffix != '.py'
    )


def test_newest_are_kept_and_last_checkpoint_names_the_last(tmp_path):
    run(tmp_path, epochs=4, max_keep_ckpts=2)
    assert saved(tmp_path) == ['epoch_3.pth', 'epoch_4.pth', 'last_checkpoint']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')
    loaded = read_checkpoint(tmp_path / 'epoch_4.pth')
    assert loaded['state_dict']['weight'] == 8
    assert loaded['meta']['epoch'] == 4 and loaded['meta']['iter'] == 8
    assert loaded['message_hub']['runtime_info']['keep_ckpt_ids'] == [3, 4]


@pytest.mark.parametrize('moment', range(8))
def test_killed_anywhere_while_saving_keeps_a_whole_checkpoint(tmp_path, moment):
    """Of every write's steps: made, synced, named; and the removal."""
    child = os.fork()
    if child == 0:
        count = -6  # epoch 1: two files of three steps each

        def step(call):
            def counted(*args, **kwargs):
                nonlocal count
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return call(*args, **kwargs)

            return counted

        for module, name in (
            (os, 'fsync'),
            (os, 'replace'),
            (mmdtm.io.atomic.secrets, 'token_hex'),
            (LocalBackend, 'remove'),
        ):
            setattr(module, name, step(getattr(module, name)))
        try:
            run(tmp_path, epochs=3, max_keep_ckpts=1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    last = Path((tmp_path / 'last_checkpoint').read_text())
    assert read_checkpoint(last)['state_dict']['weight'] in (2, 4)
    for path in tmp_path.glob('*.pth'):
        read_checkpoint(path)

    run(tmp_path, epochs=3, max_keep_ckpts=1)
    assert not list(tmp_path.glob('*.tmp'))


def test_outdated_goes_after_the_new_one_stands(tmp_path, monkeypatch):
    there = []
    replace = os.replace

    def look(part, path):
        if path.suffix == '.pth':
            there.append(saved(tmp_path)[:1])
        replace(part, path)

    monkeypatch.setattr(os, 'replace', look)
    run(tmp_path, epochs=3, max_keep_ckpts=1)
    assert [files[0] for files in there][1:] == ['epoch_1.pth', 'epoch_2.pth']


def fail_on(monkeypatch, name: str) -> None:
    """Let no file of this name be written."""
    write = Path.write_bytes

    def full(path, data):
        if path.name.startswith(name):
            write(path, data[:10])
            raise OSError(28, 'No space left on device')
        return write(path, data)

    monkeypatch.setattr(Path, 'write_bytes', full)


def test_full_disk_keeps_the_last_good_one_and_saves_at_the_next(tmp_path, monkeypatch):
    fail_on(monkeypatch, 'epoch_2.pth')
    runner = run(tmp_path, epochs=3, max_keep_ckpts=1)
    assert saved(tmp_path) == ['epoch_3.pth', 'last_checkpoint']
    log = next(tmp_path.rglob('*.log')).read_text()
    assert 'step 2 is not saved' in log and 'No space left' in log
    assert f'until then {tmp_path / "epoch_1.pth"}' in log
    info = read_checkpoint(tmp_path / 'epoch_3.pth')['message_hub']['runtime_info']
    assert info['keep_ckpt_ids'] == [3]
    assert runner.iter == 6


def test_full_disk_at_the_end_is_an_error(tmp_path, monkeypatch):
    fail_on(monkeypatch, 'epoch_3.pth')
    with pytest.raises(OSError, match='No space left'):
        run(tmp_path, epochs=3, max_keep_ckpts=1)
    assert saved(tmp_path) == ['epoch_2.pth', 'last_checkpoint']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')


@pytest.mark.parametrize('keys', ['acc', ['acc', 'mIoU']], ids=['one', 'two'])
def test_best_is_kept_until_a_better_one_stands(tmp_path, monkeypatch, keys):
    fail_on(monkeypatch, 'best_acc_epoch_2.pth')
    scores = [dict(acc=a, mIoU=m) for a, m in ((1.0, 1.0), (2.0, 0.0), (1.5, 2.0))]
    run(tmp_path, scores=scores, save_best=keys, max_keep_ckpts=1)
    # The second is not saved, so the third is better than what is there.
    best = ['best_acc_epoch_3.pth']
    if keys != 'acc':
        best.append('best_mIoU_epoch_3.pth')
    assert saved(tmp_path) == [*best, 'epoch_3.pth', 'last_checkpoint']
    info = read_checkpoint(tmp_path / 'epoch_3.pth')['message_hub']['runtime_info']
    assert info['best_score' if keys == 'acc' else 'best_score_acc'] == 1.5


def test_best_of_an_earlier_epoch_stays(tmp_path):
    scores = [dict(acc=a) for a in (1.0, 3.0, 2.0)]
    run(tmp_path, scores=scores, save_best='acc', max_keep_ckpts=1)
    assert saved(tmp_path) == ['best_acc_epoch_2.pth', 'epoch_3.pth', 'last_checkpoint']


def test_mmengine_still_removes_before_it_saves(tmp_path):
    """Else this hook is needed no more."""
    order = []
    hook = CheckpointHook(max_keep_ckpts=1)
    hook.out_dir, hook.keep_ckpt_ids = (
        str(tmp_path),
        __import__('collections').deque([1], 1),
    )
    hook.file_backend = SimpleNamespace(
        join_path=os.path.join,
        isfile=lambda path: True,
        remove=lambda path: order.append('remove'),
    )
    runner = SimpleNamespace(
        message_hub=SimpleNamespace(update_info=lambda *args: None),
        save_checkpoint=lambda *args, **kwargs: order.append('save'),
        work_dir=str(tmp_path),
    )
    hook._save_checkpoint_with_step(runner, 2, meta={})
    assert order == ['remove', 'save']
