"""Any config made small enough to run in seconds on a CPU.

``tools/train.py CONFIG --smoke`` tries a recipe before it gets its GPUs: the
same classes, pipelines, schedules and hooks, with a small model, made images
and two training steps. No figure of such a run means anything.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from PIL import Image

from mmdtm.io import atomic_write
from mmdtm.run_record import lineage_of

SIDE = 64  # pixels of an image; 4 x 4 patches
STEPS = 2
BATCH = 2
WIDTH = 48
ARCH = dict(embed_dims=WIDTH, num_layers=4, num_heads=3, feedforward_channels=96)
CLIP = dict(
    embed_dim=24,
    vision_cfg=dict(image_size=SIDE, layers=4, width=32, head_width=16, patch_size=16),
)
# Sizes in pixels or patches shrink with the image's side, counts of patches with
# its square.
LENGTHS = {'img_size', 'input_size', 'scale', 'crop_size', 'size', 'stride'}
COUNTS = {
    'num_morphed',
    'num_clusters',
    'num_patches',
    'num_masking_patches',
    'min_num_patches',
    'max_num_patches',
}
WIDTHS = {
    'embed_dims',
    'embed_dim',
    'in_channels',
    'input_features',
    'decoder_embed_dim',
    'channels',
    'hid_channels',
    'out_channels',
}
FIXED = dict(
    decoder_depth=1,
    decoder_num_heads=3,
    arch=ARCH,
    backbone_arch=dict(ARCH, depth=ARCH['num_layers']),  # BEiTV2Neck's word for it
)
CLASSES = 8  # enough for a top-5
SMALL_CLIP = dict(
    model='smoke', model_config=CLIP, pretrained=None, random_weights=True
)
# Parts with a way of their own to be small: the teachers, which also go without
# weights, and what needs no change.
PARTS = {
    'OpenCLIP': SMALL_CLIP,
    # Of 16 tokens, in each of 4 blocks.
    'Layerwise': dict(SMALL_CLIP, num_merged=2, num_clusters=8),
    'SLIP': dict(
        checkpoint=None,
        arch=dict(embed_dim=WIDTH, depth=4, num_heads=3, img_size=SIDE),
        random_weights=True,
    ),
    'Timm': dict(model='vit_tiny_patch16_224', pretrained=False),
    'VQKD': dict(checkpoint=None, arch=ARCH, img_size=SIDE, random_weights=True),
    'DownsampleMorphing': {},  # its stride is in tokens, and fits
}


def shrink(cfg: Config, folder: str | Path) -> Config:
    """Make a config small, in place.

    Args:
        cfg: Any config of mmdtm, or one inherited from it.
        folder: Where the made images go; drawn unless they are there.

    Returns:
        Config: The same object.
    """
    cfg.smoke = True  # for the record of the run
    factor = shrink_model(cfg.model)
    if cfg.get('default_scope') == 'mmpretrain':
        _set_num_classes(cfg.model)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader:
            _walk(loader.dataset, factor)
            loader.update(batch_size=BATCH, num_workers=0, persistent_workers=False)
            loader.dataset = _made_dataset(loader.dataset, cfg.model, Path(folder))
    _two_steps(cfg)
    return cfg


def shrink_model(model: ConfigDict) -> float:
    """Make a model's config small, in place.

    Args:
        model: The config.

    Returns:
        float: The factor by which its images' sides shrink.
    """
    factor = SIDE / _side(model)
    _walk(model, factor)
    return factor


def _side(model: ConfigDict) -> int:
    """Side of the images that the model is for, in pixels."""
    side = model.backbone.get('img_size', 224)
    return side if isinstance(side, int) else side[0]


def _walk(node, factor: float) -> None:
    """Shrink every size below a node of the config, in place."""
    if isinstance(node, (list, tuple)):
        for child in node:
            _walk(child, factor)
    if not isinstance(node, dict):
        return
    family = str(node.get('type')).split('.')[-1]
    for name, small in PARTS.items():
        if name in family:
            node.update(copy.deepcopy(small))
            return
    for key, value in node.items():
        if key in LENGTHS:
            node[key] = _times(value, factor)
        elif key in COUNTS:
            node[key] = _times(value, factor**2)
        elif key in WIDTHS and _is_width(value):
            node[key] = WIDTH if isinstance(value, int) else [WIDTH] * len(value)
        elif key in FIXED:
            node[key] = copy.deepcopy(FIXED[key])
        elif key == 'frozen_stages':
            node[key] = min(value, ARCH['num_layers'])
        elif key == 'out_indices' and not isinstance(value, int):
            node[key] = list(range(ARCH['num_layers']))[-len(value) :]
        elif key == 'init_cfg' and 'checkpoint' in (value or {}):
            # Weights of another small run fit.
            if not (lineage_of(value['checkpoint']) or {}).get('smoke'):
                node[key] = None
        else:
            _walk(value, factor)


def _set_num_classes(node) -> None:
    """Few classes for classifiers; a segmentation data set has its own number."""
    if not isinstance(node, dict):
        return
    if 'num_classes' in node:
        node['num_classes'] = CLASSES
    for value in node.values():
        _set_num_classes(value)


def _is_width(value) -> bool:
    """Whether a number, or all of a list, is a width rather than RGB's three."""
    values = [value] if isinstance(value, int) else value
    return isinstance(values, (list, tuple)) and all(v > 3 for v in values)


def _times(value, factor: float):
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_times(v, factor) for v in value)
    return max(1, round(value * factor)) if value else value


def _two_steps(cfg: Config) -> None:
    """Shorten the loops; log and validate as after a whole run."""
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    for item in cfg.param_scheduler:
        item.setdefault('end', length)  # the first steps of the real schedule
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=STEPS, val_interval=STEPS)
    else:
        cfg.train_cfg.update(max_epochs=1)
    cfg.default_hooks.logger.interval = 1
    if 'interval' in cfg.default_hooks.get('checkpoint', {}):
        cfg.default_hooks.checkpoint.interval = 1


def _made_dataset(dataset: ConfigDict, model: ConfigDict, folder: Path) -> ConfigDict:
    """The data set's pipeline over made images."""
    if 'seg_map_path' in dataset.get('data_prefix', {}):
        dataset.data_root = str(draw_segmentation(folder / 'segmentation'))
        return dataset
    root = draw_classes(folder / 'classes')
    pipeline = dataset.pipeline
    if 'Load' not in pipeline[0].type:  # CIFAR's images are in memory
        pipeline = [dict(type='LoadWholeImage'), *pipeline]
    made = dict(
        type='UnlabeledImages',
        data_root=str(root),
        data_prefix='train',
        pipeline=pipeline,
    )
    if model.type == 'ImageClassifier':
        names = [f'{label:04}' for label in range(CLASSES)]
        made.update(type='ImageFolder', classes=names)
    return ConfigDict(made)


def draw_classes(root: Path, classes: int = 2, images: int = STEPS) -> Path:
    """Draw noise in ImageNet's layout, ``train/<class>/<number>.png``.

    Args:
        root: Folder to make; kept as it is if it is there.
        classes: How many.
        images: Of each class.

    Returns:
        Path: ``root``.
    """

    def draw(folder: Path) -> None:
        noise = np.random.default_rng(0)
        for label in range(classes):
            place = folder / 'train' / f'{label:04}'
            place.mkdir(parents=True)
            for number in range(images):
                shape = (SIDE + 8, SIDE + 16, 3)
                pixels = noise.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(place / f'{number}.png')

    return _draw_whole(root, draw)


def draw_segmentation(root: Path, images: int = STEPS * BATCH) -> Path:
    """Draw noise and masks in ADE20K's layout.

    Args:
        root: Folder to make; kept as it is if it is there.
        images: Of each split.

    Returns:
        Path: ``root``.
    """

    def draw(folder: Path) -> None:
        noise = np.random.default_rng(0)
        for split in ('training', 'validation'):
            for kind, suffix in (('images', '.jpg'), ('annotations', '.png')):
                place = folder / kind / split
                place.mkdir(parents=True)
                for number in range(images):
                    shape = (SIDE + 8, SIDE + 16)
                    if kind == 'images':
                        pixels = noise.integers(0, 256, (*shape, 3), dtype=np.uint8)
                    else:
                        # Blocks of "other" and of the first four classes.
                        blocks = noise.integers(0, 5, (shape[0] // 8, shape[1] // 8))
                        pixels = blocks.repeat(8, 0).repeat(8, 1).astype(np.uint8)
                    Image.fromarray(pixels).save(place / f'{number}{suffix}')

    return _draw_whole(root, draw)


def _draw_whole(root: Path, draw: Callable[[Path], None]) -> Path:
    """Make a folder that is whole once it is there, whoever else makes it."""
    try:
        if not root.is_dir():
            with atomic_write(root) as folder:
                draw(folder)
    except OSError:
        if not root.is_dir():  # else another process was faster
            raise
    return root
