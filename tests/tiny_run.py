"""A run of a second: a small classifier on 16 drawn images, on one CPU."""

import importlib.util
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

# Of all that draws in a training step, drop path and the morphing, MAE's and BYOL's
# masks and crops, mixup, and dropout in a loop of iterations, one config each: it is
# trained, and resumed. All others are trained for two steps.
RESUMED = [
    'dtm_vit-b_300e.py',
    'baseline/token-wise_vit-s_300e.py',
    'ablation/kmeans_vit-b_300e.py',
    'ablation/layer-wise-kmeans_vit-b_300e.py',
    'beyond/dpc-knn_vit-b_100e.py',
    'slip/slip-dtm_vit-b_300e.py',
    'applicability/mae-dtm_vit-b_100e.py',
    'applicability/byol-dtm_vit-b_100e.py',
    'applicability/beitv2-dtm_vit-b_100e.py',
    'distillation/dtm_vit-b_50e.py',
    'distillation/layer-wise-bipartite_vit-b_50e.py',
    'finetune/dtm_vit-b_100e_in1k.py',
    'linear_probe/dtm_vit-b_50e_in1k.py',
    'transfer/dtm_vit-b_100e_cifar10.py',
    'segmentation/upernet_dtm_vit-b_160k_ade20k-512x512.py',
]

CONFIG = """
custom_imports = dict(imports=['mmdtm.plugin'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=4, base_channels=4,
                  norm_cfg=dict(type='SyncBN')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=32))
data_preprocessor = dict(num_classes=2, mean=[127.0] * 3, std=[64.0] * 3)
dataset = dict(
    type='CustomDataset', data_root='{data}', data_prefix='train',
    pipeline=[dict(type='LoadWholeImage'), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=3.0))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=4)]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
randomness = dict(seed=0)
"""


def draw_images(folder: Path, classes: int = 2, each: int = 8) -> None:
    """Noise in ImageNet's layout: train/c<class>/<number>.JPEG, 32 pixels."""
    noise = np.random.default_rng(0)
    for label in range(classes):
        place = folder / 'train' / f'c{label}'
        place.mkdir(parents=True, exist_ok=True)
        for number in range(each):
            pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f'{number}.JPEG', quality=95)


def write_config(folder: Path, extra: str = '', name: str | None = None) -> Path:
    """Draws the images, and writes the config with more statements at its end.

    The name is the folder's by default: mmengine keeps one log per name and second.
    """
    draw_images(folder / 'data')
    path = folder / f'{name or folder.name}.py'
    path.write_text(CONFIG.replace('{data}', str(folder / 'data')) + extra)
    return path


@contextmanager
def forget_new(*kinds: type) -> Iterator[None]:
    """Forgets what mmengine's global registers of instances get in the block."""
    before = [set(kind._instance_dict) for kind in kinds]
    try:
        yield
    finally:
        for kind, names in zip(kinds, before, strict=True):
            for new in set(kind._instance_dict) - names:
                del kind._instance_dict[new]


def load_tool(name: str) -> ModuleType:
    """tools/<name> as a module, to call its parts."""
    path = ROOT / 'tools' / name
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def run_tool(name: str, *args) -> None:
    """Runs tools/<name> in this process, and forgets mmengine's global state."""
    argv = [name, *map(str, args)]
    with (
        forget_new(DefaultScope, MessageHub, MMLogger, Visualizer),
        mock.patch.object(sys, 'argv', argv),
        mock.patch.object(
            sys, 'path', [str((ROOT / 'tools' / name).parent), *sys.path]
        ),
    ):
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')


def run_shell(name: str, *args, **env) -> subprocess.CompletedProcess:
    """Runs the shell script tools/<name>, with this Python."""
    return subprocess.run(
        [ROOT / 'tools' / name, *map(str, args)],
        env={**os.environ, 'PYTHON': sys.executable, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def train_dtm(
    folder: Path, *hooks: Hook, change: Callable = lambda model: None, **options
) -> Runner:
    """Trains the paper's config, small, for 8 steps, a log line every 4.

    Args:
        folder: Gets ``images`` and ``run``.
        hooks: Of the runner, beside the config's.
        change: Called with the model before the first step.
        options: Merged into the config.
    """
    from mmdtm.engine.launch import build_runner
    from mmdtm.smoke import shrink

    cfg = Config.fromfile(ROOT / 'configs/dtm_vit-b_300e.py')
    cfg = shrink(cfg, folder / 'images')
    cfg.merge_from_dict(options)
    cfg.work_dir, cfg.launcher = str(folder / 'run'), 'none'
    cfg.train_cfg = dict(by_epoch=False, max_iters=8)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=False)
    cfg.default_hooks.logger.interval = 4
    cfg.default_hooks.checkpoint.update(interval=4, by_epoch=False)
    cfg.param_scheduler = []
    with forget_new(DefaultScope, MessageHub, MMLogger, Visualizer):
        runner = build_runner(cfg)
        change(runner.model)
        for hook in hooks:
            runner.register_hook(hook)
        runner.train()
    return runner


def wait_for(condition: Callable[[], object]) -> None:
    """Waits until something is so, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.02)


def run_processes(target: Callable, arguments: list[tuple]) -> None:
    """Calls a function in as many processes as there are arguments, all well."""
    spawn = multiprocessing.get_context('spawn').Process
    workers = [spawn(target=target, args=args) for args in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * len(workers)


def log_rows(work_dir: Path) -> list[dict]:
    """What the runs in a folder logged while training, oldest first."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for file in files for line in file.open()]
    return [row for row in rows if 'loss' in row]
