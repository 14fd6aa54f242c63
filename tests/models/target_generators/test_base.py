"""A teacher inside a model: frozen, unsaved, and along wherever it goes."""

import copy
from unittest import mock

import pytest
import torch
from mmengine.model import BaseModule, convert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn

from mmdtm.models.target_generators import TargetGenerator
from mmdtm.models.target_generators.frozen import Tower
from mmdtm.morphing import TokenAssignment


def build(weights):
    network = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.BatchNorm2d(5))
    if weights is not None:
        nn.init.constant_(network[0].bias, weights)
    return Tower(network, (4, 4), (8, 8), [1, 2, 3], [4, 5, 6], 5)


class Linear(TargetGenerator):
    """A linear map per 4x4 patch of 8x8 images, and a batch norm with buffers."""

    def __init__(self, weights=3.0, **kwargs):
        self.seen = None
        super().__init__(build, weights, **kwargs)

    def extract_tokens(self, images):
        self.seen = tuple(images.shape[2:])
        return self.teacher(images).flatten(2).transpose(1, 2)


class Model(BaseModule):
    def __init__(self):
        super().__init__(init_cfg=dict(type='Constant', layer='Conv2d', val=7.0))
        self.student = nn.Conv2d(3, 5, 4, stride=4)
        self.target_generator = Linear()


def snapshot(generator):
    return {k: v.clone() for k, v in generator.teacher.state_dict().items()}


def unchanged(generator, before):
    after = generator.teacher.state_dict()
    return all(torch.equal(after[name], before[name]) for name in before)


def test_no_key_in_any_state_dict_and_none_is_missed():
    model = Model()
    expected = {'student.weight', 'student.bias'}
    assert set(model.state_dict()) == expected
    assert set(get_state_dict(model)) == expected
    before = snapshot(model.target_generator)
    model.load_state_dict(model.state_dict(), strict=True)
    load_state_dict(model, get_state_dict(model), strict=True)
    assert unchanged(model.target_generator, before)


def test_not_in_the_optimizer_even_with_paramwise_options():
    model = Model()
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.5),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
    )
    optimized = {id(p) for g in wrapper.param_groups for p in g['params']}
    assert optimized >= {id(p) for p in model.student.parameters()}
    teacher = model.target_generator.teacher.parameters()
    assert optimized.isdisjoint({id(p) for p in teacher})


def test_stays_frozen_and_in_eval_mode():
    model = Model()
    model.train()
    model.requires_grad_(True)
    generator = model.target_generator
    assert not generator.training and not generator.teacher.training
    assert all(not p.requires_grad for p in generator.teacher.parameters())
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    before = snapshot(generator)
    assert not generator(images).requires_grad
    assert unchanged(generator, before)


def test_initialisation_and_sync_batchnorm_leave_it_alone():
    model = Model()
    before = snapshot(model.target_generator)
    model.init_weights()
    assert (model.student.weight == 7).all()
    assert unchanged(model.target_generator, before)
    convert_sync_batchnorm(model)
    assert isinstance(model.target_generator.teacher[1], nn.BatchNorm2d)


def test_follows_the_device_but_not_the_dtype():
    model = Model()
    before = snapshot(model.target_generator)
    model.half()
    model.to(torch.bfloat16)
    assert unchanged(model.target_generator, before)
    assert model.target_generator.teacher[0].weight.dtype == torch.float32
    model.to('meta')
    teacher = model.target_generator.teacher
    assert teacher[0].weight.device.type == 'meta'
    assert teacher[1].running_mean.device.type == 'meta'


def test_deep_copy_is_independent():
    model = Model()
    twin = copy.deepcopy(model)
    images = torch.randn(2, 3, 8, 8)
    expected = model.target_generator(images)
    assert torch.equal(twin.target_generator(images), expected)
    with torch.no_grad():
        twin.target_generator.teacher[0].weight.zero_()
    assert torch.equal(model.target_generator(images), expected)


@pytest.mark.parametrize('dtype', [None, 'float32', 'bfloat16'])
def test_precision_is_the_teachers_whatever_surrounds_it(dtype):
    generator = Linear(dtype=dtype)
    images = torch.randn(2, 3, 8, 8)
    alone = generator(images)
    computed = torch.bfloat16 if dtype == 'bfloat16' else torch.float32
    with torch.autocast('cpu', dtype=torch.float16):
        inside = generator(images.half().float())
        assert generator.teacher(images).dtype == torch.float16
    assert alone.dtype == inside.dtype == torch.float32
    exact = generator.teacher(images).flatten(2).transpose(1, 2)
    assert torch.equal(alone, exact) == (computed == torch.float32)
    torch.testing.assert_close(alone, exact, atol=0.05, rtol=0)


def test_precision_is_half_on_a_gpu_and_full_elsewhere(monkeypatch):
    generator = Linear()
    assert generator._precision == torch.float32
    parameter = type('P', (), {'device': torch.device('cuda')})
    monkeypatch.setattr(generator.teacher, 'parameters', lambda: iter([parameter]))
    for supported, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(
            torch.cuda, 'is_bf16_supported', lambda *a, s=supported, **k: s
        )
        generator._choose_precision()
        assert generator._precision == expected


def test_compiles_without_a_graph_break():
    generator = Linear()
    images = torch.randn(2, 3, 8, 8)
    compiled = torch.compile(generator, backend='eager', fullgraph=True)
    assert torch.equal(compiled(images), generator(images))


def test_equal_grid_resizes_images_and_another_grid_is_refused():
    generator = Linear()
    generator.set_student_grid((2, 2), 16)
    generator(torch.randn(1, 3, 16, 16))
    assert generator.seen == (8, 8)
    with pytest.raises(ValueError, match='2x2 patches of 4x4 .* student 3x3 .* 12x12'):
        Linear().set_student_grid((3, 3), (48, 48))
    with pytest.raises(ValueError, match='2x2 patches .* 2x1 .* would distort'):
        Linear().set_student_grid((2, 1), 8)


@pytest.mark.parametrize(
    'shape, dtype',
    [
        ((1, 3, 8, 4), torch.float32),
        ((3, 8, 8), torch.float32),
        ((1, 1, 8, 8), torch.float32),
        ((1, 3, 8, 8), torch.uint8),
    ],
)
def test_images_of_another_shape_or_dtype_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r'Linear expects .*\(B, 3, 8, 8\)'):
        Linear()(torch.zeros(shape, dtype=dtype))


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="'half'"):
        Linear(dtype='half')
    with pytest.raises(ValueError, match='std of Linear has 1 numbers'):
        Linear(std=[1])
    with pytest.raises(ValueError, match='Linear has no weights.*random_weights=True'):
        Linear(None)


def test_random_weights_are_the_same_in_every_run_and_change_no_random_state():
    """On no device: a teacher must not undo ``diff_rank_seed``."""
    biases = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with (
            pytest.warns(UserWarning, match='RANDOM TEACHER: Linear'),
            mock.patch('torch.cuda.manual_seed_all') as cuda,
        ):
            generator = Linear('unread.pt', random_weights=True)
        assert torch.equal(torch.get_rng_state(), state)
        cuda.assert_not_called()
        biases.append(generator.teacher[0].bias)
    assert torch.equal(*biases) and not (biases[0] == 3).any()
    assert (Linear().teacher[0].bias == 3).all()


def test_normalisation_is_the_networks_unless_given():
    assert (Linear().mean, Linear().std) == ([1, 2, 3], [4, 5, 6])
    generator = Linear(mean=[7, 8, 9], std=[1, 1, 1])
    assert (generator.mean, generator.std) == ([7, 8, 9], [1, 1, 1])


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_targets_are_tokens_and_what_the_morphing_makes_of_them(dtype):
    generator = Linear(dtype=dtype)
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    seen = []

    def morphing(tokens):
        seen.append(tokens)
        return [TokenAssignment.identity(*tokens.shape[:2])]

    tokens, (assignment,) = generator.targets(images, morphing)
    assert torch.equal(tokens, generator(images)) and torch.equal(*seen, tokens)
    assert tokens.dtype == torch.float32
    assert seen[0].dtype == getattr(torch, dtype)  # for products that are cheaper
    assert assignment.num_morphed == 4 and not tokens.requires_grad
    generator.check_morphing(morphing)
    with pytest.raises(ValueError, match='Linear does not merge.*Give a morphing'):
        generator.check_morphing(None)
