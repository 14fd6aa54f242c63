import copy
import math

import pytest
import torch
from counting import operations
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import MODELS
from reference import labels_of, match
from torch import nn

from mmdtm.models.morphings import BaseMorphing, BipartiteMorphing
from mmdtm.morphing import (
    Draw,
    DynamicSchedule,
    TokenAssignment,
    bipartite_matching,
    downsample,
    dpc_knn,
    kmeans,
)

ALL = [
    dict(type='BipartiteMorphing'),
    dict(type='BipartiteMorphing', partition='random'),
    dict(type='ReleaseMorphing'),
    dict(type='IdentityMorphing'),
    dict(type='KMeansMorphing', num_iters=3),
    dict(type='DownsampleMorphing', stride=2),
    dict(type='DPCKNNMorphing'),
]


def made_tokens(batch=3, count=36, channels=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, count, channels, generator=generator)


def draws(morphing, steps):
    return [a for _ in range(steps) for a in morphing(made_tokens())]


class Recording(BaseMorphing):
    """Notes what it is asked to draw with."""

    def __init__(self, levels=1, **kwargs):
        super().__init__(levels, **kwargs)
        self.draws = []

    def assign(self, tokens, draw):
        assert not torch.is_grad_enabled()
        self.draws.append(draw)
        return TokenAssignment.identity(*tokens.shape[:2])


def test_forward__gives_one_assignment_per_level():
    morphing = Recording(levels=3, seed=5)
    assignments = morphing(made_tokens().requires_grad_())
    assert len(assignments) == 3
    assert morphing.draws == [Draw(5, 0, level, 0) for level in range(3)]


def test_step__counts_forward_passes_in_training_only():
    morphing = Recording(seed=5)
    morphing.train()
    morphing(made_tokens())
    morphing(made_tokens())
    morphing.eval()
    morphing(made_tokens())
    morphing(made_tokens())
    morphing.train()
    morphing(made_tokens())
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
    morphing(made_tokens())
    assert morphing.draws == [Draw(8, 13, 0, 0)]


def test_seed__is_torchs_by_default():
    torch.manual_seed(41)
    assert Recording().draw_state.tolist() == [41, 0]


def test_ranks__draw_their_own_or_the_same(monkeypatch):
    monkeypatch.setattr('mmdtm.models.morphings.get_rank', lambda: 3)
    own, shared = Recording(seed=1), Recording(seed=1, share_across_ranks=True)
    own(made_tokens())
    shared(made_tokens())
    assert own.draws[0].rank == 3
    assert shared.draws[0].rank == 0


def test_same_iters__are_those_of_the_first_rank_beside_ones_own_count(monkeypatch):
    asked = []
    monkeypatch.setattr(
        'mmdtm.models.morphings.bipartite_matching',
        lambda tokens, schedule, *args, **kwargs: asked.append(schedule),
    )
    drawn = {}
    for rank in range(2):
        monkeypatch.setattr('mmdtm.models.morphings.get_rank', lambda: rank)  # noqa: B023
        for same in (False, True):
            asked.clear()
            morphing = BipartiteMorphing(seed=3, same_iters=same)
            for _ in range(30):
                morphing(torch.randn(1, 196, 2))
            drawn[rank, same] = [(len(s), 196 - sum(s)) for s in asked]
    first, own, same = drawn[0, False], drawn[1, False], drawn[1, True]
    assert drawn[0, True] == first and own != first
    assert [k for k, _ in same] == [k for k, _ in first]
    assert [n for _, n in same] == [n for _, n in own]


@pytest.mark.parametrize(
    'morphing',
    [
        dict(type='BipartiteMorphing'),
        dict(type='ReleaseMorphing'),
        dict(type='KMeansMorphing'),
        dict(type='DPCKNNMorphing'),
    ],
)
def test_the_tokens_are_multiplied_once_for_all_levels(morphing):
    model = MODELS.build(dict(morphing, levels=3, seed=0))
    tokens = torch.randn(2, 49, 8)
    counted = operations(lambda: model(tokens))
    assert counted['bmm'] == 1
    model.draw_state[1] = 0
    model._seed_and_step = None
    for level, got in enumerate(model(tokens)):
        alone = model.assign(tokens, Draw(0, 0, level))
        assert got.labels.equal(alone.labels)


def test_compiled_model__steps_over_it():
    model = BipartiteMorphing(seed=0)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: model(2 * x)[0].morph(x), backend='eager')
    other, tokens = BipartiteMorphing(seed=0), made_tokens()
    for _ in range(4):
        torch.testing.assert_close(compiled(tokens), other(2 * tokens)[0].morph(tokens))
    assert model.draw_state.tolist() == [0, 4]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(levels=0), 'levels is .* Give an int at least 1'),
        (dict(levels=1.5), 'levels is .* Give an int'),
        (dict(seed=-1), 'seed is -1. Give an int in'),
        (dict(seed='a'), 'seed is .* Give an int'),
    ],
)
def test_init__refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Recording(**options)


@pytest.mark.parametrize('cfg', ALL, ids=lambda cfg: cfg['type'])
def test_every_morphing__gives_one_valid_assignment_per_level(cfg):
    morphing = MODELS.build(cfg)
    tokens = made_tokens().requires_grad_()
    for _ in range(4):
        assignments = morphing(tokens)
        assert len(assignments) == morphing.levels
        for assignment in assignments:
            assert assignment.labels.shape == (3, 36)
            assert assignment.sizes().min() >= 1


@pytest.mark.parametrize('cfg', ALL, ids=lambda cfg: cfg['type'])
def test_every_morphing__repeats_itself_by_seed_and_step(cfg):
    if cfg['type'] not in ('IdentityMorphing', 'DownsampleMorphing'):
        cfg = dict(cfg, seed=7)

    def run():
        morphing = MODELS.build(cfg)
        return [a.labels for _ in range(3) for a in morphing(made_tokens())]

    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2)
    for a, b in zip(first, run(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('cfg', ALL, ids=lambda cfg: cfg['type'])
def test_every_morphing__lets_numbers_that_are_not_finite_through(cfg):
    # The training loop stops on the loss, without a wait for the device here.
    assignments = MODELS.build(cfg)(torch.full((2, 36, 5), torch.nan))
    for assignment in assignments:
        assert assignment.labels.min() >= 0
        assert assignment.labels.max() < assignment.num_morphed


def test_bipartite__matches_by_the_drawn_schedules():
    morphing = MODELS.build(dict(type='BipartiteMorphing', levels=3, seed=4))
    tokens = made_tokens()
    schedule = DynamicSchedule(36)
    for step in range(5):
        for level, assignment in enumerate(morphing(tokens)):
            expected = bipartite_matching(tokens, schedule.draw(4, step, level))
            assert torch.equal(assignment.labels, expected.labels)
            assert assignment.num_morphed == expected.num_morphed


def test_bipartite__levels_and_steps_differ():
    morphing = MODELS.build(dict(type='BipartiteMorphing', seed=4))
    numbers = [a.num_morphed for _ in range(10) for a in morphing(made_tokens())]
    assert len(set(numbers)) > 10
    assert numbers[::2] != numbers[1::2]


def test_bipartite__fixed_numbers():
    morphing = MODELS.build(dict(type='BipartiteMorphing', num_morphed=18, num_iters=6))
    for assignment in morphing(made_tokens()):
        expected = bipartite_matching(made_tokens(), (3,) * 6)
        assert torch.equal(assignment.labels, expected.labels)
        assert assignment.num_morphed == 18


def test_bipartite__ranges_follow_the_number_of_tokens():
    cfg = dict(type='BipartiteMorphing', num_morphed=(30, None), num_iters=1)
    morphing = MODELS.build(cfg)
    numbers = {a.num_morphed for _ in range(40) for a in morphing(made_tokens())}
    assert numbers == set(range(30, 37))
    numbers = {
        a.num_morphed for _ in range(40) for a in morphing(made_tokens(count=32))
    }
    assert numbers == {30, 31, 32}


def test_bipartite__reaches_the_drawn_numbers_if_told():
    cfg = dict(type='BipartiteMorphing', num_morphed=(1, 4), seed=0)
    short = {a.num_morphed for a in draws(MODELS.build(cfg), steps=20)}
    assert max(short) > 4
    reaching = MODELS.build(dict(cfg, reach_num_morphed=True))
    assert {a.num_morphed for a in draws(reaching, steps=20)} == {1, 2, 3, 4}


def test_release__is_its_rules_by_loops():
    morphing = MODELS.build(dict(type='ReleaseMorphing', levels=3, seed=3))
    tokens = made_tokens(count=25).double()
    never_more = set()
    for step in range(25):
        for level, assignment in enumerate(morphing(tokens)):
            draw = Draw(3, step, level)
            merged = draw.uniform_int(0, 25, 'num_merged')
            k = draw.uniform_int(1, 14, 'num_iters')
            asked = math.ceil(merged / k)
            if asked * k > 25:
                asked = math.floor(merged / k)
            expected = [
                labels_of(match(x, [asked] * k, class_token=True, carry=False), 25)
                for x in tokens.numpy()
            ]
            assert assignment.labels.tolist() == expected
            assert (assignment.sizes()[:, 0] == 1).all()  # patch 0 is alone
            assert not assignment.labels[:, 0].any()
            never_more.add((merged, asked * k))
    assert any(asked > merged for merged, asked in never_more)
    assert any(asked < merged for merged, asked in never_more)


def test_bipartite__random_halves_change_with_the_step_not_with_the_device_rng():
    cfg = dict(
        type='BipartiteMorphing', num_morphed=24, num_iters=2, partition='random'
    )
    morphing = MODELS.build(dict(cfg, seed=0))
    first, second = (morphing(made_tokens()) for _ in range(2))
    assert not torch.equal(first[0].labels, first[1].labels)
    assert not torch.equal(first[0].labels, second[0].labels)


def test_kmeans__draws_the_numbers_of_clusters_and_iterations():
    cfg = dict(type='KMeansMorphing', num_clusters=(2, 5), num_iters=(1, 3), seed=6)
    tokens, drawn = made_tokens(), set()
    morphing = MODELS.build(cfg)
    for step in range(20):
        for level, assignment in enumerate(morphing(tokens)):
            draw = Draw(6, step, level)
            clusters = draw.uniform_int(2, 5, 'num_clusters')
            iters = draw.uniform_int(1, 3, 'num_iters')
            expected = kmeans(tokens, clusters, iters, draw.generator('centres'))
            assert torch.equal(assignment.labels, expected.labels)
            drawn.add((clusters, iters))
    assert len(drawn) == 12
    fixed = MODELS.build(dict(cfg, num_clusters=7, num_iters=2, levels=1))
    (assignment,) = fixed(tokens)
    assert assignment.num_morphed == 7


def test_dpc_knn__draws_the_number_of_clusters():
    cfg = dict(type='DPCKNNMorphing', num_clusters=(2, 5), num_neighbors=3)
    morphing = MODELS.build(cfg)
    assignments = [a for _ in range(20) for a in morphing(made_tokens())]
    assert {a.num_morphed for a in assignments} == {2, 3, 4, 5}
    for assignment in assignments[:4]:
        expected = dpc_knn(made_tokens(), assignment.num_morphed, 3)
        assert torch.equal(assignment.labels, expected.labels)


def test_identity__keeps_tokens_apart():
    (assignment,) = MODELS.build(dict(type='IdentityMorphing'))(made_tokens())
    assert assignment.labels.tolist() == [list(range(36))] * 3


def test_downsample__pools_the_grid():
    (square,) = MODELS.build(dict(type='DownsampleMorphing', stride=3))(made_tokens())
    assert torch.equal(square.labels, downsample(6, 3, 3).labels)
    cfg = dict(type='DownsampleMorphing', stride=(2, 3), grid_size=(4, 9))
    (given,) = MODELS.build(cfg)(made_tokens())
    assert torch.equal(given.labels, downsample((4, 9), (2, 3), 3).labels)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (
            dict(type='BipartiteMorphing', num_morphed=98),
            r'is 98. Give an int in \[1, 36\]',
        ),
        (dict(type='BipartiteMorphing', num_morphed=(5, 2)), 'empty range'),
        (
            dict(type='BipartiteMorphing', num_iters=(1, None)),
            'num_iters is .* Give an int',
        ),
        (dict(type='BipartiteMorphing', partition='halves'), "is 'halves'. Give"),
        (
            dict(type='ReleaseMorphing', num_iters=0),
            'num_iters is .* Give an int at least 1',
        ),
        (
            dict(type='KMeansMorphing', num_clusters=37),
            r'is 37. Give an int in \[1, 36\]',
        ),
        (
            dict(type='KMeansMorphing', num_iters=0),
            'num_iters is .* Give an int at least 1',
        ),
        (
            dict(type='DPCKNNMorphing', num_clusters='a'),
            'num_clusters is .* Give an int',
        ),
        (dict(type='DownsampleMorphing', stride=4), 'does not divide'),
        (
            dict(type='DownsampleMorphing', grid_size=(4, 8)),
            r'36 tokens do not fill a grid of 4 x 8. .*grid_size=\(h, w\)',
        ),
    ],
)
def test_first_forward__refuses(cfg, message):
    morphing = MODELS.build(cfg)
    with pytest.raises(ValueError, match=message):
        morphing(made_tokens())


def test_downsample__refuses_tokens_that_are_not_a_square():
    with pytest.raises(ValueError, match='35 tokens do not fill a grid of 5 x 5'):
        MODELS.build(dict(type='DownsampleMorphing'))(made_tokens(count=35))
