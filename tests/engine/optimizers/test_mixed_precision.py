"""Mixed precision: what is chosen, what is refused, what is saved."""

import copy
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPERS

import mmdtm.plugin  # noqa: F401
from mmdtm.engine.optimizers.mixed_precision import best_precision

CONFIGS = Path(__file__).parents[3] / 'configs'


def made(dtype: str = 'auto', fused: bool = True, **options):
    """A wrapper over a small model, and the model."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    options |= dict(type='MixedPrecisionOptimWrapper', dtype=dtype)
    return model, OPTIM_WRAPPERS.build(dict(options, optimizer=optimizer))


def train(model, wrapper, steps: int = 3) -> None:
    for step in range(steps):
        with wrapper.optim_context(model):
            loss = model(torch.full((2, 4), step + 1.0)).float().square().mean()
        wrapper.update_params(loss)


@pytest.mark.parametrize(
    ('device', 'bfloat16', 'chosen'),
    [
        ('cpu', True, 'float32'),
        ('mps', True, 'float32'),
        ('cuda', True, 'bfloat16'),
        ('cuda:1', False, 'float16'),
    ],
)
def test_the_best_precision_of_a_device(device, bfloat16, chosen):
    with mock.patch('torch.cuda.is_bf16_supported', lambda **kwargs: bfloat16):
        assert best_precision(device) == chosen


@pytest.mark.parametrize('dtype', ['auto', 'float32', 'bfloat16'])
def test_the_forward_pass_has_the_precision(dtype):
    with mock.patch.object(MMLogger, 'get_current_instance') as logger:
        model, wrapper = made(dtype)
    chosen = 'float32' if dtype == 'auto' else dtype
    said = str(logger().mock_calls) + str(logger().log.mock_calls)
    assert f'Precision: {chosen} on cpu, loss not scaled' in said
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 4)).dtype == getattr(torch, chosen)


@pytest.mark.parametrize('dtype', ['float16', 'half'])
def test_a_precision_that_the_device_does_not_have(dtype):
    with pytest.raises(ValueError, match=f"'{dtype}'.*cpu does not train in. Take"):
        made(dtype)


@pytest.mark.parametrize(
    'clip', [None, dict(max_norm=0.5), dict(type='value', clip_value=0.1)]
)
def test_the_steps_are_those_of_mmengine(clip):
    model, wrapper = made(clip_grad=copy.deepcopy(clip))
    other = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(other.parameters(), lr=0.1, fused=True)
    plain = OptimWrapper(optimizer, clip_grad=copy.deepcopy(clip))
    train(model, wrapper)
    train(other, plain)
    assert model.weight.equal(other.weight)
    assert (
        wrapper.message_hub.log_scalars.keys() == plain.message_hub.log_scalars.keys()
    )


def test_the_state_of_other_wrappers_is_taken():
    """One with a loss scaler, and an optimizer that was not fused."""
    model, wrapper = made(fused=False)
    train(model, wrapper)
    state = copy.deepcopy(wrapper.state_dict())
    assert 'loss_scaler' not in state
    state['loss_scaler'] = dict(scale=2.0)
    weights = copy.deepcopy(model.state_dict())
    other, fused = made()
    other.load_state_dict(weights)
    fused.load_state_dict(copy.deepcopy(state))
    assert all(group['fused'] for group in fused.optimizer.param_groups)
    train(model, wrapper)
    train(other, fused)
    torch.testing.assert_close(other.weight, model.weight)


def test_configs():
    """All choose by the device, but for the release, which is in float16."""
    for name in ('dtm_vit-b_300e', 'finetune/dtm_vit-b_100e_in1k'):
        wrapper = Config.fromfile(CONFIGS / f'{name}.py').optim_wrapper
        assert wrapper.type == 'MixedPrecisionOptimWrapper'
        assert wrapper.get('dtype', 'auto') == 'auto' and wrapper.optimizer.fused
    release = Config.fromfile(CONFIGS / 'release/dtm_vit-l_300e.py').optim_wrapper
    assert release.dtype == 'float16'
