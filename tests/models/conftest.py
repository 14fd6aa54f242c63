"""A student, a teacher and batches small enough for a unit test."""

import warnings

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mmdtm.plugin  # noqa: F401

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
CLIP = dict(
    embed_dim=24,
    vision_cfg=dict(image_size=64, layers=2, width=32, head_width=16, patch_size=16),
    text_cfg=dict(context_length=8, vocab_size=16, width=32, heads=2, layers=1),
)


@pytest.fixture
def dtm_cfg() -> dict:
    """Config of a tiny DTM: 64-pixel images, a 4 x 4 grid, D = 24."""
    return dict(
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


@pytest.fixture
def build():
    """Build a model from its config, initialised and in training mode."""

    def build_model(cfg: dict) -> torch.nn.Module:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'RANDOM TEACHER')
            model = MODELS.build(cfg)
        model.init_weights()
        return model.train()

    return build_model


@pytest.fixture
def batch():
    """Make a collated batch of images with masks: 6 of 4 x 4 patches."""

    def make_batch(size: int = 4, img_size: int = 64, seed: int = 0) -> dict:
        generator = torch.Generator().manual_seed(seed)
        grid = img_size // 16
        images = torch.randint(
            0, 256, (size, 3, img_size, img_size), generator=generator
        )
        samples = []
        for _ in range(size):
            order = torch.randperm(grid**2, generator=generator)
            sample = DataSample()
            sample.mask = (order < int(0.4 * grid**2)).view(grid, grid)
            samples.append(sample)
        return dict(inputs=images.to(torch.uint8), data_samples=samples)

    return make_batch
