"""Sizes of models and images that are small enough for a unit test."""

import copy
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

# A ViT and a CLIP for images of 64 pixels in 4 x 4 patches of 16.
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
CLIP = dict(
    embed_dim=24,
    vision_cfg=dict(image_size=64, layers=2, width=32, head_width=16, patch_size=16),
    text_cfg=dict(context_length=8, vocab_size=16, width=32, heads=2, layers=1),
)
COLOURS = dict(blue=(0, 0, 255), green=(0, 255, 0), red=(255, 0, 0))


def dtm_config() -> dict:
    """Config of a DTM with a random teacher: 4 x 4 patches, D = 24."""
    return copy.deepcopy(
        dict(
            type='DTM',
            data_preprocessor=dict(
                type='DTMDataPreprocessor',
                mean=[123.675, 116.28, 103.53],
                std=[58.395, 57.12, 57.375],
            ),
            backbone=dict(type='DTMPretrainViT', arch=ARCH, img_size=64),
            head=dict(type='DTMHead'),
            target_generator=dict(
                type='OpenCLIPGenerator',
                model='tiny',
                model_config=CLIP,
                pretrained=None,
                random_weights=True,
            ),
            morphing=dict(type='BipartiteMorphing', num_iters=(1, 4), seed=0),
        )
    )


def classifier_config(classes: int = 3, kind: str = 'DTMViT', **backbone) -> dict:
    """Config of an ImageClassifier on a tiny ViT."""
    backbone = dict(arch=ARCH, img_size=64) | backbone
    head = dict(type='mmpretrain.LinearClsHead', num_classes=classes, in_channels=48)
    return dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        backbone=dict(type=f'mmpretrain.{kind}', **backbone),
        head=head,
    )


class Payload:
    """Makes a folder when an ordinary reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def shake(model: torch.nn.Module, std: float = 0.1) -> torch.nn.Module:
    """Move all weights away from their initialisation, which may be zeros or ones."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * std)
    return model


def draw_classes(
    folder: Path,
    classes: dict[str, tuple[int, int, int]],
    each: int = 1,
    size: tuple[int, int] = (16, 16),
    fade: int = 0,
    noise: int = 0,
    suffix: str = 'png',
) -> None:
    """A folder per class, images named by their numbers.

    Args:
        folder: Where.
        classes: Colour of each class, RGB.
        each: Images of a class.
        size: Height and width.
        fade: How much darker an image is than the one before it.
        noise: Each pixel is off by up to so much.
        suffix: Of the files.
    """
    rng = np.random.default_rng(0)
    for name, colour in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.array(colour) - fade * i
            pixels = pixels + rng.integers(-noise, noise + 1, (*size, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f'{i}.{suffix}', quality=95)


def loader_config(
    root: Path, split: str, *, steps=(), shuffle=False, **dataset
) -> dict:
    """A loader of an ImageFolder's split, with steps between loading and packing."""
    return dict(
        batch_size=6,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dict(
            type='mmpretrain.ImageFolder',
            data_root=str(root),
            data_prefix=split,
            pipeline=[
                dict(type='mmpretrain.LoadImageFromFile'),
                *steps,
                dict(type='mmpretrain.PackInputs'),
            ],
            **dataset,
        ),
    )
