"""A teacher's weights are cast to half precision once, not in every step."""

import copy

import mmdtm.plugin  # noqa: F401  # isort: skip

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmdtm.engine.run_description import describe_teachers
from mmdtm.models.target_generators import OpenCLIPGenerator
from mmdtm.models.target_generators.half_weights import find_half_weights, in_place

BF16 = torch.bfloat16


class Casts(TorchDispatchMode):
    """Counts the casts of a network's weights, buffers among them, and their views."""

    def __init__(self, network):
        super().__init__()
        weights = [*network.parameters(), *network.buffers()]
        self.places = {weight.untyped_storage().data_ptr() for weight in weights}
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._to_copy.default:
            self.count += args[0].untyped_storage().data_ptr() in self.places
        return operation(*args, **(kwargs or {}))


@pytest.fixture
def teacher(clip_config):
    """With the 12 blocks of CLIP ViT-B/16, QuickGELU, in bfloat16; thin."""
    clip_config['quick_gelu'] = True
    clip_config['vision_cfg'].update(layers=12)
    with pytest.warns(UserWarning, match='RANDOM'):
        return OpenCLIPGenerator(
            'tiny', None, clip_config, random_weights=True, dtype='bfloat16'
        )


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32)


def by_autocast(teacher, images):
    with torch.no_grad(), torch.autocast('cpu', BF16):
        return teacher.extract_tokens(images).float()


def test_no_weight_is_cast_from_the_second_step_on(teacher, images):
    """Autocast casts 8 in each block, patch and position embedding and 2 more."""
    with Casts(teacher.teacher) as before:
        expected = by_autocast(teacher, images)
    first = teacher(images)
    with Casts(teacher.teacher) as after:
        second = teacher(images)
    assert (before.count, after.count) == (8 * 12 + 4, 0)
    assert torch.equal(first, expected) and torch.equal(second, expected)


def test_outside_a_pass_the_teacher_is_what_it_was(teacher, images):
    record, state = describe_teachers(teacher), teacher.teacher.state_dict()
    for _ in range(2):
        teacher(images)
    assert describe_teachers(teacher) == record
    assert teacher.teacher.state_dict().keys() == state.keys()
    assert not teacher.state_dict()
    assert {p.dtype for p in teacher.teacher.parameters()} == {torch.float32}
    with pytest.raises(ZeroDivisionError):
        teacher.run(lambda images: 1 / 0, images)
    assert {p.dtype for p in teacher.teacher.parameters()} == {torch.float32}
    assert torch.backends.mha.get_fastpath_enabled()
    # A copy has weights of its own.
    twin, before = copy.deepcopy(teacher), teacher(images)
    for weight in twin._half_weights:
        weight.half.zero_()
    assert torch.equal(teacher(images), before)
    assert not torch.equal(twin(images), before)


def test_other_weights_and_another_size_are_cast_anew(teacher, images):
    teacher(images)
    teacher.set_student_grid((3, 3), 24)
    small = torch.randn(2, 3, 24, 24)
    assert torch.equal(teacher(small), by_autocast(teacher, small))
    block = teacher.teacher.transformer.resblocks[0]
    state = teacher.teacher.state_dict()
    state['transformer.resblocks.0.mlp.c_fc.bias'] += 1
    teacher.teacher.load_state_dict(state)
    assert torch.equal(block.mlp.bias, 1.702 * block.mlp.c_fc.bias)
    teacher.to('cpu')  # the precision is chosen anew
    assert torch.equal(teacher(small), by_autocast(teacher, small))


class Mixed(nn.Module):
    """Weights that autocast casts, beside some that are read before or as well."""

    def __init__(self):
        super().__init__()
        self.cast, self.also_read, self.norm = (
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.LayerNorm(6),
        )
        self.tied = self.cast
        self.register_buffer('table', torch.randn(6, 6))
        self.standardised = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        x = self.tied(self.norm(self.cast(x))) @ self.table.t()
        x = self.also_read(x) + self.also_read.bias.sum()
        return F.linear(x, self.standardised - self.standardised.mean())


def test_what_is_read_otherwise_stays_as_it_is():
    network, x = Mixed().requires_grad_(False), torch.randn(3, 6)
    with torch.autocast('cpu', BF16):
        expected, weights = find_half_weights(network, BF16, lambda: network(x))
        with in_place(weights):
            found = network(x)
    assert torch.equal(found, expected)
    names = {id(p): name for name, p in network.state_dict(keep_vars=True).items()}
    halved = {names[id(weight.full)] for weight in weights}
    expected = {'tied.weight', 'tied.bias', 'also_read.weight', 'table'}
    assert halved == expected


def test_compiled_it_is_one_graph_that_casts_no_weight(teacher, images):
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    del teacher.teacher.transformer.resblocks[2:]
    expected = teacher(images)
    teacher.set_student_grid((4, 4), 32)  # to find the weights through the compiled
    teacher.extract_tokens = torch.compile(
        teacher.extract_tokens, backend=counting, fullgraph=True, dynamic=False
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            assert torch.equal(teacher(images), expected)
    assert len(graphs) == 1
    torch._dynamo.reset()
