"""Two processes that share the model out train as under DDP, and save as it does."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from mmdtm.engine.launch import build_runner
from mmdtm.engine.sharded_runner import ShardedRunner, units
from mmdtm.smoke import shrink

ROOT = Path(__file__).parents[2]
HALF, ALL = 5, 10  # batches; two make a step, so that a half has gradients left over


def small(folder: Path) -> Config:
    return shrink(
        Config.fromfile(ROOT / 'configs/dtm_vit-b_300e.py'), folder / 'images'
    )


def run(folder: Path, name: str, resume: str | None = None, **options) -> None:
    """Train the paper's config, small; resume it from another run's half."""
    cfg = small(folder)
    cfg.merge_from_dict(options)
    cfg.work_dir, cfg.launcher = str(folder / name), 'pytorch'
    cfg.train_cfg = dict(type='ExactIterBasedTrainLoop', max_iters=ALL)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=False)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.checkpoint.update(interval=HALF, by_epoch=False)
    cfg.param_scheduler = []
    cfg.model.backbone.with_cp = True
    # Far from the start's weights, and all gradients clipped.
    cfg.optim_wrapper.merge(
        dict(
            accumulative_counts=2,
            clip_grad=dict(max_norm=0.05),
            optimizer=dict(lr=1e-3),
        )
    )
    cfg.load_from = str(folder / 'start.pth')
    if resume:
        cfg.resume, cfg.load_from = True, str(folder / resume / f'iter_{HALF}.pth')
    build_runner(cfg).train()


def processes(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port),
    )  # fmt: skip
    sharded = dict(runner_type='ShardedRunner')
    run(folder, 'ddp')
    run(folder, 'sharded', **sharded)
    run(folder, 'ddp_resumed', resume='sharded')
    run(folder, 'sharded_resumed', resume='ddp', **sharded)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:No GPU here')
def test_steps_checkpoints_and_resumed_runs_are_those_of_ddp(tmp_path):
    model = MODELS.build(small(tmp_path).model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'start.pth')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    mp.start_processes(processes, (port, tmp_path), nprocs=2, start_method='spawn')

    def saved(name: str, batches: int = ALL) -> dict:
        return torch.load(tmp_path / name / f'iter_{batches}.pth', weights_only=False)

    def close(found, expected):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    ddp, start = saved('ddp'), saved('ddp', HALF)
    moved = (
        start['state_dict']['backbone.cls_token']
        - ddp['state_dict']['backbone.cls_token']
    )
    assert moved.abs().max() > 1e-4
    own = start['accumulated_gradients']  # of each process
    for name, mean in saved('sharded', HALF)['accumulated_gradients'][0].items():
        close(mean, (own[0][name] + own[1][name]) / 2)
    for name in ('sharded', 'ddp_resumed', 'sharded_resumed'):
        other = saved(name)
        assert other['state_dict'].keys() == ddp['state_dict'].keys()
        close(other['state_dict'], dict(ddp['state_dict']))
        # Weight decay and members of each group, moments and step counts.
        assert other['optimizer']['param_groups'] == ddp['optimizer']['param_groups']
        close(other['optimizer']['state'], ddp['optimizer']['state'])
    decays = {group['weight_decay'] for group in ddp['optimizer']['param_groups']}
    assert decays == {0.0, 0.05}


def test_units_are_what_module_lists_hold_inner_ones_first():
    model = nn.Module()
    block = nn.Sequential(nn.Linear(1, 1))
    model.stages = nn.ModuleList([nn.Module(), nn.Identity()])
    model.stages[0].blocks = nn.Sequential(block)
    model.head = nn.Sequential(nn.Linear(1, 1))
    assert [*units(model)] == [block, model.stages[0]]


def test_a_compiled_model_is_refused():
    runner = SimpleNamespace(
        distributed=True, cfg=Config(dict(model=dict(compile=True)))
    )
    with pytest.raises(ValueError, match='Remove compile, or runner_type'):
        ShardedRunner.wrap_model(runner, None, nn.Module())
