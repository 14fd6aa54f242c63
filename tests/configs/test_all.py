"""Every config builds, and takes two steps at a reduced size, or four and resumes."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_run import RESUMED, ROOT

from mmdtm.engine.launch import build_runner
from mmdtm.smoke import shrink

ALL = sorted(
    str(path.relative_to(ROOT))
    for folder in ('configs', 'examples/toy/configs')
    for path in (ROOT / folder).rglob('*.py')
    if '_base_' not in path.parts
)


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('made')


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        name
        for name in ALL
        if name.removeprefix('configs/') not in RESUMED
        # Those take their steps in test_backbones.py, one after the other.
        and '/backbones/' not in name
    ],
)
def test_two_steps(name, made, tmp_path):
    cfg = shrink(Config.fromfile(ROOT / name), made)
    cfg.update(work_dir=str(tmp_path), launcher='none')
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        runner = build_runner(cfg)
        before = copy.deepcopy(runner.model.state_dict())
        runner.train()
    assert runner.iter == 2
    moved = [
        name
        for name, value in runner.model.state_dict().items()
        if not torch.equal(value, before[name])
    ]
    assert moved, 'no step changed the model'
    assert list(tmp_path.glob('*.pth')), 'no checkpoint was written'
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 2 and torch.tensor(losses).isfinite().all()
    assert runner.default_scope.scope_name == cfg.default_scope
    assert cfg.default_scope == ('mmseg' if 'upernet' in name else 'mmpretrain')
