"""Nothing waits for the device between two lines of the log."""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from tiny_run import log_rows, train_dtm

from mmdtm.smoke import BATCH

CONFIG = Path(__file__).parents[2] / 'configs/dtm_vit-b_300e.py'
# What brings a value from the device to Python.
WAITING = ('item', 'tolist', 'numpy', 'cpu', '__bool__', '__float__', '__int__')


class Watch(Hook):
    """Counts the waits of each training step, and breaks one loss or gradient."""

    priority = 'LOWEST'

    def __init__(self, monkeypatch) -> None:
        self.now, self.waits, self.states = [], [], []
        for name in WAITING:
            monkeypatch.setattr(torch.Tensor, name, self._counting(name))

    def _counting(self, name):
        original = getattr(torch.Tensor, name)

        def wrapped(tensor, *args, **kwargs):
            self.now.append(name)
            return original(tensor, *args, **kwargs)

        return wrapped

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.now.clear()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.waits.append(list(self.now))
        self.states.append(state_of(runner))


def state_of(runner) -> list[torch.Tensor]:
    """Weights, moments and step counts."""
    optimizer = runner.optim_wrapper.optimizer
    values = [p for p in runner.model.parameters() if p.requires_grad]
    for state in optimizer.state.values():
        values += [state[key] for key in sorted(state)]
    return [value.detach().clone() for value in values]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """`train_dtm` here, watched."""
    watch = Watch(monkeypatch)
    run = partial(train_dtm, tmp_path, watch)
    run.watch, run.folder = watch, tmp_path / 'run'
    return run


def test_no_step_waits_but_those_that_are_logged(train):
    train()
    logged = [row['step'] for row in log_rows(train.folder)]
    assert logged[-2:] == [4, 8]
    waiting = [step for step, names in enumerate(train.watch.waits, 1) if names]
    assert set(waiting[1:]) <= {*logged}  # the first step reads the morphing's seed
    assert 8 in waiting


@pytest.mark.parametrize('part', ['loss', 'gradient'])
def test_a_step_that_is_not_finite_changes_nothing(train, part):
    """It is reported when the log is due; the steps after it were made."""

    def breaks(model):
        steps = []

        def at_step_6(value):
            steps.append(value)
            return value * float('nan') if len(steps) == 6 else value

        head = model.head
        if part == 'gradient':
            head.projection.weight.register_hook(at_step_6)
        else:
            loss = head.loss
            head.loss = lambda *args: at_step_6(loss(*args))

    match = 'loss of step 6' if part == 'loss' else r'gradient of step 6.*projection'
    with pytest.raises(FloatingPointError, match=match):
        train(change=breaks)
    before, after, later = train.watch.states[4:7]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(after, later, strict=True))
    assert [path.name for path in train.folder.glob('*.pth')] == ['iter_4.pth']
    (file,) = train.folder.glob(f'non_finite_{part}_step6_rank0.json')
    record = json.loads(file.read_text())
    assert record['step'] == 6 and len(record['img_paths']) == BATCH


@pytest.mark.slow
def test_logged_values_are_those_of_mmengine(train, tmp_path):
    train()
    rows = log_rows(train.folder)
    cfg_hooks = copy.deepcopy(Config.fromfile(CONFIG).custom_hooks)
    plain = [hook for hook in cfg_hooks if hook.type != 'DeferredLogHook']
    train.folder.rename(tmp_path / 'first')
    train(custom_hooks=plain)
    keys = ('loss', 'grad_norm', 'lr', 'step')
    for row, other in zip(rows, log_rows(train.folder), strict=True):
        assert [row[key] for key in keys] == [other[key] for key in keys]
