import copy

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmdtm.models.morphing import BaseMorphing, BipartiteMorphing
from mmdtm.morphing import Draw, TokenAssignment

TOKENS = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))


class Recording(BaseMorphing):
    """Notes what it is asked to draw with."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.draws = []

    def assign(self, tokens, draw):
        assert not torch.is_grad_enabled()
        self.draws.append(draw)
        return TokenAssignment.identity(*tokens.shape[:2])


def test_forward__gives_one_assignment_per_level():
    morphing = Recording(levels=3, seed=5)
    assignments = morphing(TOKENS.requires_grad_())
    assert len(assignments) == 3
    assert all(isinstance(a, TokenAssignment) for a in assignments)
    assert morphing.draws == [Draw(5, 0, level, 0) for level in range(3)]


def test_step__counts_forward_passes_in_training_only():
    morphing = Recording(seed=5)
    morphing.train()
    morphing(TOKENS)
    morphing(TOKENS)
    morphing.eval()
    morphing(TOKENS)
    morphing(TOKENS)
    morphing.train()
    morphing(TOKENS)
    assert [draw.step for draw in morphing.draws] == [0, 1, 2, 2, 2]
    assert morphing.draw_state.tolist() == [5, 3]


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, load_state_dict])
def test_resumed_run__draws_what_the_unbroken_one_does(load):
    def model(seed):
        return nn.Sequential(nn.Identity(), BipartiteMorphing(seed=seed))

    def draws(model, steps):
        tokens = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(1))
        return [[a.num_morphed for a in model(tokens)] for _ in range(steps)]

    unbroken = model(seed=1)
    expected = draws(unbroken, 8)
    stopped = model(seed=1)
    assert draws(stopped, 5) == expected[:5]

    resumed = model(seed=2)
    assert draws(resumed, 2) != expected[:2]  # it has already been running
    load(resumed, copy.deepcopy(stopped.state_dict()))
    assert draws(resumed, 3) == expected[5:]
    assert resumed.state_dict()['1.draw_state'].tolist() == [1, 8]


def test_state__survives_what_ddp_and_devices_do_before_the_first_step():
    morphing = Recording(seed=5)
    morphing.draw_state.copy_(torch.tensor([8, 13]))  # as DDP's broadcast does
    morphing(TOKENS)
    assert morphing.draws == [Draw(8, 13, 0, 0)]


def test_seed__is_torchs_by_default():
    torch.manual_seed(41)
    assert Recording().draw_state.tolist() == [41, 0]


def test_ranks__draw_their_own_or_the_same(monkeypatch):
    monkeypatch.setattr('mmdtm.models.morphing.base.get_rank', lambda: 3)
    own, shared = Recording(seed=1), Recording(seed=1, share_across_ranks=True)
    own(TOKENS)
    shared(TOKENS)
    assert own.draws[0].rank == 3
    assert shared.draws[0].rank == 0


def test_compiled_model__steps_over_it():
    model = BipartiteMorphing(seed=0)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: model(2 * x)[0].morph(x), backend='eager')
    other = BipartiteMorphing(seed=0)
    for _ in range(4):
        torch.testing.assert_close(compiled(TOKENS), other(2 * TOKENS)[0].morph(TOKENS))
    assert model.draw_state.tolist() == [0, 4]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(levels=0), 'levels must be at least 1'),
        (dict(levels=1.5), 'levels must be an int'),
        (dict(seed=-1), 'seed must be in'),
        (dict(seed='a'), 'seed must be an int'),
    ],
)
def test_init__refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Recording(**options)


def test_forward__refuses_images():
    with pytest.raises(ValueError, match=r'shape \(B, N, C\)'):
        Recording()(torch.zeros(2, 3, 8, 8))
