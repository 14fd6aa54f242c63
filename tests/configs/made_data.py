"""Made data in ImageNet's and ADE20K's layout, and configs made small for them."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TINY = dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96)


def load(name: str) -> Config:
    """A config by its path below configs/, without the suffix."""
    return Config.fromfile(CONFIGS / f'{name}.py')


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
    cfg.work_dir = str(work_dir)
    cfg.launcher = 'none'
    cfg.vis_backends = [dict(type='LocalVisBackend')]
    cfg.visualizer.vis_backends = cfg.vis_backends
