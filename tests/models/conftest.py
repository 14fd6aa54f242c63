"""A student, a teacher and batches small enough for a unit test."""

import copy

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


@pytest.fixture
def overfit():
    """Train on one batch alone; return the loss of each step."""

    def train(model, data: dict, steps: int = 12, lr: float = 3e-3) -> list[float]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        losses = []
        for _ in range(steps):
            inputs = model.data_preprocessor(copy.deepcopy(data), training=True)
            loss = model(**inputs, mode='loss')['loss']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return train


@pytest.fixture
def check_masking():
    """That a student of 64-pixel images sees what is not masked, and nothing else."""

    def check(student, grid: int) -> None:
        side = 64 // grid
        images = torch.randn(1, 3, 64, 64)
        mask = torch.zeros(1, grid, grid, dtype=torch.bool)
        mask[0, 0, 1] = mask[0, 1, 1] = True
        before = student(images, mask)[-1]
        other = images.clone()
        other[:, :, : 2 * side, side : 2 * side] = torch.randn(2 * side, side)
        assert torch.equal(student(other, mask)[-1], before)
        assert not torch.allclose(student(images)[-1], before)
        seen = images.clone()
        seen[:, :, :side, :side] += 1
        assert not torch.allclose(student(seen, mask)[-1], before)

    return check
