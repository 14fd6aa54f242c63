"""Made data in ImageNet's and ADE20K's layout, and configs made small for them."""

import logging
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import BaseLoop, Runner
from PIL import Image

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TINY = dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96)


def load(name: str) -> Config:
    """A config by its path below configs/, without the suffix."""
    return Config.fromfile(CONFIGS / f'{name}.py')


def rates(cfg: Config, lrs: list[float], epoch_length: int = 10) -> torch.Tensor:
    """The learning rates of a whole run as mmengine's runner schedules them.

    Args:
        cfg: Its train_cfg and param_scheduler are read.
        lrs: The rate of each parameter group.
        epoch_length: Iterations of an epoch.

    Returns:
        Before each iteration and after the last, (iterations + 1, groups) float64.
    """
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in lrs]
    optimizer = torch.optim.SGD(
        [dict(params=[p], lr=lr) for p, lr in zip(params, lrs, strict=True)]
    )
    epochs = cfg.train_cfg.get('max_epochs')
    iterations = cfg.train_cfg.get('max_iters') or epochs * epoch_length
    runner = SimpleNamespace(
        _train_loop=mock.Mock(spec=BaseLoop),
        max_epochs=epochs,
        max_iters=iterations,
        logger=logging.getLogger('rates'),
        train_dataloader=range(epoch_length),
    )
    schedulers = Runner._build_param_scheduler(runner, cfg.param_scheduler, optimizer)
    rows = []
    for iteration in range(iterations + 1):
        rows.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        for scheduler in schedulers if iteration < iterations else ():
            scheduler.step()
    return torch.tensor(rows, dtype=torch.float64)


def check_layer_decay(wrapper, lr: float, decay: float, depth: int) -> None:
    """AdamW with tables 13's and 14's betas and weight decay, a rate per layer."""
    assert type(wrapper.optimizer) is torch.optim.AdamW
    groups = wrapper.optimizer.param_groups
    assert all(group['betas'] == (0.9, 0.999) for group in groups)
    assert {group['weight_decay'] for group in groups} == {0, 0.05}
    lrs = sorted({group['lr'] for group in groups})
    assert len(lrs) == depth + 2 and lrs[-1] == lr
    assert lrs[0] == pytest.approx(lr * decay ** (depth + 1))


def draw_imagenet(root: Path, images: int = 2) -> None:
    """Three ImageNet classes of plain colours, train/ and val/."""
    colours = dict(n01440764=(230, 40, 20), n01443537=(30, 220, 60))
    colours['n15075141'] = (40, 60, 240)
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name, colour in colours.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(images):
                noise = rng.integers(-20, 21, (70, 90, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f'{split}_{i}.JPEG')


def draw_ade(
    root: Path, images: int = 2, size: tuple[int, int] = (72, 100), values=None
) -> None:
    """Random blocks of classes: images/ and annotations/, training and validation.

    Args:
        root: Becomes the data root.
        images: Per split.
        size: Height and width.
        values: What masks are made of; all that ADE20K has by default:
            0 (other), 1 to 150, and 255.
    """
    rng = np.random.default_rng(1)
    values = np.array([*range(151), 255] if values is None else values)
    height, width = size
    for split in ('training', 'validation'):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            rows, columns = -(-height // 8), -(-width // 8)
            blocks = rng.choice(values, rows * columns)
            blocks[: len(values)] = rng.permutation(values)[: rows * columns]
            blocks = blocks.reshape(rows, columns).repeat(8, 0).repeat(8, 1)
            mask = blocks[:height, :width].astype(np.uint8)
            # The mask's value is in the pixels, so that it can be learnt.
            image = np.stack([mask, 255 - mask, mask // 2], -1)
            name = f'ADE_{split}_{i:08d}'
            Image.fromarray(image).save(root / 'images' / split / f'{name}.jpg')
            Image.fromarray(mask).save(root / 'annotations' / split / f'{name}.png')


def for_cpu(cfg: Config, data_root: Path, work_dir: Path, batch_size: int = 2) -> None:
    """Point a config at made data and at a folder to work in, in place."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg[name]
        loader.dataset.data_root = str(data_root)
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = batch_size
    cfg.model.backbone.init_cfg = None
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    for item in cfg.param_scheduler:  # a shorter run keeps their course
        item.setdefault('end', length)
    cfg.work_dir = str(work_dir)
    cfg.launcher = 'none'
    cfg.vis_backends = [dict(type='LocalVisBackend')]
    cfg.visualizer.vis_backends = cfg.vis_backends
