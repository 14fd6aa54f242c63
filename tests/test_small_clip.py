"""Training of a small CLIP: crops, and going on where it was."""

import mmdtm.prepare  # noqa: F401  isort: skip
import open_clip
import pytest
import torch

from mmdtm import small_clip

TINY = dict(
    embed_dim=8,
    vision_cfg=dict(
        image_size=16, patch_size=8, width=16, layers=1, head_width=8, patch_dropout=0.5
    ),
    text_cfg=dict(context_length=6, vocab_size=20, width=8, heads=1, layers=1),
)


def test_random_crops_are_squares_of_the_image():
    # A ramp stays a ramp, and gets flatter by the crop's scale.
    ramp = torch.linspace(-1, 1, 64).expand(8, 3, 64, 64).contiguous()
    crops = small_clip.random_crop(ramp, 0.5)[:, :, 8:-8, 8:-8]
    slope = crops.diff(dim=3)
    assert slope.std(dim=3).max() < 1e-3
    scale = slope.mean(dim=(1, 2, 3)) * 63 / 2
    assert 0.5 - 1e-3 < scale.min() < scale.max() < 1 + 1e-3
    assert crops.diff(dim=2).abs().max() < 1e-5


def pairs(step: int):
    """Noise and words that depend on the step alone."""
    torch.manual_seed(step)
    return torch.randn(4, 3, 16, 16), torch.randint(1, 20, (4, 6))


def fit(steps: int, state=None, total: int = 6):
    """A fresh model, trained for the first steps of ``total``."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY)

    def until(step: int):
        if step == steps:
            raise KeyboardInterrupt
        return pairs(step)

    losses = None
    try:
        losses, seconds = small_clip.fit(model, until, total, 0.01, state, 1, -1)
        assert seconds > 0
    except KeyboardInterrupt:
        assert steps < total
    return model, losses


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole, losses = fit(6)
    state = tmp_path / 'clip/state.pth'
    fit(4, state)
    assert len(torch.load(state, weights_only=True)['losses']) == 4
    again, found = fit(6, state)
    assert found == losses and len(losses) == 6
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    # What is finished is not trained again.
    third, _ = small_clip.fit(again, lambda step: 1 / 0, 6, 0.01, state)
    assert third == losses


def test_the_rate_rises_and_falls_to_zero(monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def watch(self, *args, **kwargs):
        rates.append(self.param_groups[0]['lr'])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, 'step', watch)
    fit(20, total=20)
    assert rates[:2] == pytest.approx([0.005, 0.01])
    assert rates[2:] == sorted(rates[2:], reverse=True) and 0 < rates[-1] < 2e-4
