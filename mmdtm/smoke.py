"""Any config made small enough to run in seconds on a CPU.

``tools/train.py CONFIG --smoke`` tries a recipe before it gets its GPUs: the
same classes, pipelines, schedules and hooks, with a small model, made images
and two training steps. No value of such a run means anything.

A class of mmdtm, or of a user, says of itself how it gets small: its attribute
``smoke`` holds options that replace the config's, for images of 64 pixels in
4 x 4 patches and a ViT 48 wide with 4 layers. A function there gets the config's
value, and is not asked where the config has none. ``UPSTREAM`` says it of
mmpretrain's and mmsegmentation's classes.
"""

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image

from mmdtm.engine.launch import nodes
from mmdtm.io import atomic_write
from mmdtm.models.backbones import DTMViT
from mmdtm.run_record import lineage_of

STEPS = 2
BATCH = 2
CLASSES = 8  # enough for a top-5
ARCH = DTMViT.smoke['arch']
SIDE, WIDTH, DEPTH = DTMViT.smoke['img_size'], ARCH['embed_dims'], ARCH['num_layers']


def small_size(size: int | tuple[int, int]) -> int | tuple[int, int]:
    """A size in pixels, scaled so that its shorter side is ``SIDE``."""
    if isinstance(size, int):
        return SIDE
    return tuple(side * SIDE // min(size) for side in size)


def small_test_cfg(test_cfg: dict) -> dict:
    """EncoderDecoder's, with small windows that overlap as ADE20K's do."""
    if test_cfg['mode'] == 'slide':
        return dict(test_cfg, crop_size=(SIDE, SIDE), stride=(43, 43))
    return test_cfg


def small_widths(widths: list[int]) -> list[int]:
    """Of feature maps of one width, or of stages that double it."""
    return [WIDTH * width // widths[-1] for width in widths]


# Four stages to stride 32, the last as wide as the ViT.
SWIN = dict(embed_dims=WIDTH // 8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 3])

UPSTREAM = {
    'VisionTransformer': DTMViT.smoke,
    'BEiTViT': DTMViT.smoke,
    'SwinTransformer': dict(arch=SWIN, img_size=SIDE, window_size=2),
    'SwinTransformerV2': dict(
        arch=dict(SWIN, extra_norm_every_n_blocks=0), img_size=SIDE, window_size=2
    ),
    'ConvNeXt': dict(
        arch=dict(depths=[1, 1, 1, 1], channels=[WIDTH // n for n in (8, 4, 2, 1)]),
        img_size=lambda size: SIDE,
    ),
    'MAEPretrainDecoder': dict(
        num_patches=16,
        embed_dim=WIDTH,
        decoder_embed_dim=WIDTH,
        decoder_depth=1,
        decoder_num_heads=3,
    ),
    'BEiTPretrainViT': DTMViT.smoke,
    'BEiTV2Neck': dict(backbone_arch=dict(ARCH, depth=DEPTH)),  # its word for it
    'BEiTV2Head': dict(embed_dims=WIDTH),
    'NonLinearNeck': dict(in_channels=WIDTH, hid_channels=WIDTH, out_channels=WIDTH),
    'ClsDataPreprocessor': dict(num_classes=CLASSES),
    'ClsBatchNormNeck': dict(input_features=WIDTH),
    'LinearClsHead': dict(in_channels=WIDTH, num_classes=CLASSES),
    'SegDataPreProcessor': dict(size=(SIDE, SIDE)),
    'Feature2Pyramid': dict(embed_dim=WIDTH),
    'UPerHead': dict(in_channels=small_widths, channels=WIDTH),
    'FCNHead': dict(in_channels=WIDTH, channels=WIDTH),
    'EncoderDecoder': dict(test_cfg=small_test_cfg),
    **dict.fromkeys(
        ('RandomResizedCrop', 'Resize', 'ResizeEdge', 'RandomResize'),
        dict(scale=small_size),
    ),
    **dict.fromkeys(('CenterCrop', 'RandomCrop'), dict(crop_size=small_size)),
}


def shrink(cfg: Config, folder: str | Path) -> Config:
    """Make any config small, in place; made images go to ``folder``."""
    cfg.smoke = True  # for the record of the run
    shrink_model(cfg.model)
    for owner in (cfg, *cfg.get('custom_hooks', ())):  # a hook may have its own data
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            loader = owner.get(name)
            if loader:
                _shrink_parts(loader.dataset)
                loader.update(batch_size=BATCH, num_workers=0)
                loader.persistent_workers = False
                loader.dataset = _made_dataset(loader.dataset, cfg.model, Path(folder))
    _two_steps(cfg)
    return cfg


def shrink_model(model: ConfigDict) -> None:
    """Make a model's config small, in place."""
    _shrink_parts(model)
    backbone = model.backbone
    if not isinstance(backbone.get('out_indices', -1), int):
        backbone.out_indices = [*range(DEPTH)][-len(backbone.out_indices) :]
    head = model.get('auxiliary_head')
    widths = model.get('decode_head', {}).get('in_channels')
    if isinstance(head, dict) and isinstance(widths, list):
        head['in_channels'] = widths[head.get('in_index', -1)]
    if 'frozen_stages' in backbone:
        backbone.frozen_stages = min(backbone.frozen_stages, DEPTH)
    init_cfg = backbone.get('init_cfg')
    if isinstance(init_cfg, dict) and 'checkpoint' in init_cfg:
        # Weights of another small run fit.
        if not (lineage_of(init_cfg['checkpoint']) or {}).get('smoke'):
            backbone.init_cfg = None


def _shrink_parts(node) -> None:
    """Make every part below a node of the config small, in place."""
    for part in [n for n in nodes(node) if isinstance(n, dict)]:
        for name, value in _small_options(part.get('type')).items():
            if not callable(value):
                part[name] = copy.deepcopy(value)
            elif name in part:
                part[name] = value(part[name])


def _small_options(kind: object) -> dict:
    """What the nearest of a class and its bases says of itself, or UPSTREAM of it."""
    if not isinstance(kind, str):
        return {}
    name = kind.split('.')[-1]
    if name in UPSTREAM:  # mmsegmentation's are in its own registries
        return UPSTREAM[name]
    for base in getattr(MODELS.get(name) or TRANSFORMS.get(name), '__mro__', ()):
        small = vars(base).get('smoke') or UPSTREAM.get(base.__name__)
        if small is not None:
            return small
    return {}


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
    if model.type == 'EncoderDecoder':
        dataset.data_root = str(draw_segmentation(folder / 'segmentation'))
        return dataset
    pipeline = [step for step in dataset.pipeline if step.type != 'LoadWholeImage']
    made = ConfigDict(
        type='UnlabeledImages',
        data_root=str(draw_classes(folder / 'classes')),
        data_prefix='train',
        # Also where a data set has its images in memory.
        pipeline=[dict(type='LoadWholeImage'), *pipeline],
    )
    labelled = dataset.type in ('ImageFolder', 'TinyImageNet')
    if model.type == 'ImageClassifier' or labelled:
        names = [f'{label:04}' for label in range(CLASSES)]
        made.update(type='ImageFolder', classes=names)
    return made


def _once(draw: Callable[..., None]) -> Callable[..., Path]:
    """Let a folder be drawn unless it is there: whole, whoever else draws it."""

    @functools.wraps(draw)
    def drawn(root: Path, **numbers: int) -> Path:
        try:
            if not root.is_dir():
                with atomic_write(root) as folder:
                    draw(folder, **numbers)
        except OSError:
            if not root.is_dir():  # else another process was faster
                raise
        return root

    return drawn


@_once
def draw_classes(root: Path, images: int = STEPS) -> None:
    """Draw two classes of noise in ImageNet's layout, train/CLASS/NUMBER.png."""
    noise = np.random.default_rng(0)
    for label in range(2):
        place = root / 'train' / f'{label:04}'
        place.mkdir(parents=True)
        for number in range(images):
            pixels = noise.integers(0, 256, (SIDE + 8, SIDE + 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f'{number}.png')


@_once
def draw_segmentation(root: Path, images: int = STEPS * BATCH) -> None:
    """Draw noise and masks in ADE20K's layout."""
    noise, shape = np.random.default_rng(0), (SIDE + 8, SIDE + 16)
    for split in ('training', 'validation'):
        scenes, masks = root / 'images' / split, root / 'annotations' / split
        scenes.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(images):
            pixels = noise.integers(0, 256, (*shape, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(scenes / f'{number}.jpg')
            # Blocks of "other" and of the first four classes.
            blocks = noise.integers(0, 5, (shape[0] // 8, shape[1] // 8))
            pixels = blocks.repeat(8, 0).repeat(8, 1).astype(np.uint8)
            Image.fromarray(pixels).save(masks / f'{number}.png')
