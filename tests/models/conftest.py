"""A student, a teacher and batches small enough for a unit test."""

import pytest
import tiny
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import mmdtm.plugin  # noqa: F401


@pytest.fixture
def dtm_cfg() -> dict:
    """Config of a tiny DTM: 64-pixel images, a 4 x 4 grid, D = 24."""
    return tiny.dtm_config()


@pytest.fixture
def build():
    """Build a model from its config, initialised and in training mode."""

    def build_model(cfg: dict) -> torch.nn.Module:
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
