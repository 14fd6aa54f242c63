import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import labels_of, match
from torch.utils.flop_counter import FlopCounterMode

from mmdtm.morphing import bipartite_matching, effective_schedule, merge_schedule


def made_tokens(batch, tokens, channels, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, channels, dtype=dtype, generator=generator)


def reference_labels(tokens, schedule, **options):
    rows = [
        labels_of(match(image.double().numpy(), schedule, **options), len(image))
        for image in tokens
    ]
    return torch.tensor(rows)


SCHEDULES = st.one_of(
    st.lists(st.integers(0, 12), max_size=6).map(tuple),
    # Most merges first, so that they must be carried.
    st.tuples(st.integers(0, 60), st.integers(0, 3)).map(
        lambda p: (p[0],) + (p[1],) * 7
    ),
)


@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(2, 9),
    SCHEDULES,
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_groups__are_those_of_merging_features_pair_by_pair(
    batch, num_tokens, channels, schedule, class_token, seed
):
    tokens = made_tokens(batch, num_tokens, channels, seed)
    assignment = bipartite_matching(tokens, schedule, class_token=class_token)
    merges = effective_schedule(num_tokens, schedule, class_token)
    assert assignment.num_morphed == num_tokens - sum(merges)
    assert assignment.sizes().min() >= 1
    expected = reference_labels(tokens, schedule, class_token=class_token)
    assert torch.equal(assignment.labels, expected)


@pytest.mark.parametrize('num_iters', [1, 2, 7, 14])
@pytest.mark.parametrize('num_morphed', [1, 60, 98, 195, 196])
def test_groups__at_the_papers_size(num_morphed, num_iters):
    schedule = merge_schedule(196, num_morphed, num_iters)
    tokens = made_tokens(2, 196, 24, seed=num_morphed)
    assignment = bipartite_matching(tokens, schedule)
    assert torch.equal(assignment.labels, reference_labels(tokens, schedule))


def test_groups__in_float32_are_nearly_always_those_of_float64():
    tokens = made_tokens(64, 196, 64, seed=0)
    schedule = merge_schedule(196, 60, 7)
    exact = bipartite_matching(tokens, schedule).labels
    single = bipartite_matching(tokens.float(), schedule).labels
    assert (exact == single).all(1).float().mean() > 0.9


def test_two_iterations__by_hand():
    # Angles in degrees; even positions look among the odd ones.
    angles = torch.tensor([0.0, 50.0, 8.0, 10.0, 100.0, 104.0, 49.0])
    tokens = torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], 1)[None]
    # 0 -> 10 (10 apart), 8 -> 10 (2), 100 -> 104 (4), 49 -> 50 (1): 49 and 8
    # merge. New order: 100, 0, then 50+49, 10+8, 104.
    once = bipartite_matching(tokens.double(), (2,))
    assert once.num_morphed == 5
    assert once.labels.tolist() == [[1, 2, 3, 3, 0, 4, 2]]
    # Now 100, 49.5 and 104 look among 0 and 9: all choose 9, 49.5 is nearest.
    # New order: 100, 104, 0, 9+49.5.
    twice = bipartite_matching(tokens.double(), (2, 1))
    assert twice.labels.tolist() == [[2, 3, 3, 3, 0, 1, 3]]


def test_enough_iterations__give_one_token():
    for num_tokens in (1, 2, 7, 32, 33):
        schedule = (num_tokens - 1,) + (0,) * 7
        assignment = bipartite_matching(made_tokens(2, num_tokens, 4, 0), schedule)
        assert assignment.num_morphed == 1
        assert not assignment.labels.any()


def test_random_partition__is_the_same_for_every_image():
    tokens = made_tokens(6, 31, 5, seed=1)
    permutation = torch.tensor([3, 1, 5, 0, 4, 2])

    def labels(tokens):
        generator = torch.Generator().manual_seed(4)
        return bipartite_matching(tokens, (9, 5, 4), 'random', generator).labels

    assert torch.equal(labels(tokens[permutation]), labels(tokens)[permutation])


@pytest.mark.parametrize('factor', [2.0**-40, 2.0**40])
def test_scaled_tokens__give_the_same_groups(factor):
    tokens = made_tokens(2, 20, 5, seed=1, dtype=torch.float32)
    expected = bipartite_matching(tokens, (6, 4)).labels
    assert torch.equal(bipartite_matching(tokens * factor, (6, 4)).labels, expected)


def test_random_partition__reaches_every_split():
    # Four tokens, one merge: each of the six splits is a different grouping,
    # seen through who can merge with whom.
    tokens = made_tokens(1, 4, 3, seed=5)
    expected = set()
    for first in itertools.combinations(range(4), 2):
        halves = list(first), [i for i in range(4) if i not in first]
        groups = match(tokens[0].numpy(), (1,), split=lambda _, halves=halves: halves)
        expected.add(tuple(labels_of(groups, 4)))
    seen = set()
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        assignment = bipartite_matching(tokens, (1,), 'random', generator)
        seen.add(tuple(assignment.labels[0].tolist()))
    assert seen == expected
    assert len(expected) > 2


def test_random_partition__repeats_itself_by_its_generator():
    tokens = made_tokens(2, 30, 4, seed=0)

    def labels(seed):
        generator = torch.Generator().manual_seed(seed)
        return bipartite_matching(tokens, (5, 6, 7), 'random', generator).labels

    assert torch.equal(labels(0), labels(0))
    assert not torch.equal(labels(0), labels(1))
    torch.manual_seed(0)
    default = bipartite_matching(tokens, (5, 6, 7), 'random').labels
    assert torch.equal(default, labels(0))


def test_ties__go_to_the_earlier_position():
    tokens = torch.ones(1, 8, 2)
    # All alike: 0 and 2 merge into 1; then 4, 6, 1+0+2, 3, 5, 7.
    assignment = bipartite_matching(tokens, (2,))
    assert assignment.labels.tolist() == [[2, 2, 2, 3, 0, 4, 1, 5]]


def test_ties__of_many_tokens_too():
    assignment = bipartite_matching(torch.ones(1, 196, 2), (40, 30))
    expected = reference_labels(torch.ones(1, 196, 2), (40, 30))
    assert torch.equal(assignment.labels, expected)


def test_ties__in_random_halves_go_to_the_earlier_position_too():
    for seed in range(10):
        torch.manual_seed(seed)
        labels = bipartite_matching(torch.ones(1, 8, 2), (2,), 'random').labels[0]
        groups = [(labels == g).nonzero().flatten().tolist() for g in range(6)]
        merged, alone = groups.pop(2), [g[0] for g in groups]
        # The second set stands behind the two left of the first, both in order.
        assert alone[0] < alone[1]
        assert alone[2] < alone[3] < alone[4]
        assert sum(i < alone[0] for i in merged) >= 2
        assert sum(i < alone[2] for i in merged) >= 1


def test_zero_tokens__are_similar_to_nothing():
    tokens = made_tokens(1, 8, 3, seed=2).abs()  # all cosines are positive
    tokens[0, 0] = 0
    tokens[0, 5] = 0
    assignment = bipartite_matching(tokens, (3,))
    sizes = assignment.sizes()[0]
    assert sizes[assignment.labels[0, 0]] == 1
    assert sizes[assignment.labels[0, 5]] == 1
    assert torch.equal(assignment.labels, reference_labels(tokens, (3,)))
    assert bipartite_matching(torch.zeros(2, 9, 3), (4, 2)).num_morphed == 3


def test_opposite_tokens__that_cancel_do_no_harm():
    tokens = made_tokens(4, 12, 5, seed=0, dtype=torch.float32)
    tokens[:, 1::2] = -tokens[:, ::2]
    assignment = bipartite_matching(tokens, (6, 3, 1, 1))
    assert assignment.num_morphed == 1
    assert torch.equal(assignment.sizes(), torch.full((4, 1), 12))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision__is_compared_in_float32(dtype):
    tokens = made_tokens(3, 40, 16, seed=0).to(dtype)
    schedule = (8, 8, 8)
    expected = bipartite_matching(tokens.float(), schedule).labels
    assert torch.equal(bipartite_matching(tokens, schedule).labels, expected)


def test_autocast__does_not_lower_the_precision():
    tokens = made_tokens(3, 40, 16, seed=0, dtype=torch.float32)
    expected = bipartite_matching(tokens, (8, 8, 8)).labels
    with torch.autocast('cpu', torch.bfloat16):
        labels = bipartite_matching(tokens, (8, 8, 8)).labels
    assert torch.equal(labels, expected)


def test_tokens__are_left_alone():
    tokens = made_tokens(2, 12, 4, seed=0)
    before = tokens.clone()
    bipartite_matching(tokens, (3, 3))
    assert torch.equal(tokens, before)


def test_features__are_multiplied_only_once():
    tokens = made_tokens(2, 30, 64, seed=0, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        bipartite_matching(tokens, (2,) * 9)
    assert counter.get_total_flops() == 2 * 2 * 30 * 30 * 64


@pytest.mark.parametrize('partition', ['alternate', 'random'])
def test_compile__gives_the_same_in_one_graph(partition):
    tokens = made_tokens(2, 15, 4, seed=0)
    torch._dynamo.reset()

    def group(tokens):
        return bipartite_matching(tokens, (3, 9, 0), partition).labels

    torch.manual_seed(0)
    expected = group(tokens)
    torch.manual_seed(0)
    compiled = torch.compile(group, backend='eager', fullgraph=True)
    assert torch.equal(compiled(tokens), expected)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e30])
@pytest.mark.parametrize('schedule', [(2,), (0,)])
def test_values__that_are_not_finite_are_refused(value, schedule):
    tokens = made_tokens(3, 8, 4, seed=0, dtype=torch.float32)
    tokens[1, 2, 3] = value
    with pytest.raises(ValueError, match='NaN, infinity .* first in image 1'):
        bipartite_matching(tokens, schedule)
    # Unchecked, the other images are grouped as ever, and this one somehow.
    assignment = bipartite_matching(tokens, schedule, check_finite=False)
    tokens[1] = 1
    expected = bipartite_matching(tokens, schedule)
    assert torch.equal(assignment.labels[::2], expected.labels[::2])
    assert assignment.labels.min() >= 0
    assert assignment.labels.max() < assignment.num_morphed


@pytest.mark.parametrize(
    ('tokens', 'options', 'message'),
    [
        (torch.zeros(8, 3), {}, r'has shape \(8, 3\). Give \(B, N, C\)'),
        (torch.zeros(2, 0, 3), {}, r'shape \(2, 0, 3\). Give .* no empty dimension'),
        (
            torch.zeros(2, 8, 3, dtype=torch.int32),
            {},
            'are torch.int32, not floating point. Convert',
        ),
        ([[1.0]], {}, 'tokens is a list. Give a tensor'),
        (
            torch.zeros(2, 8, 3),
            dict(partition='halves'),
            "partition is 'halves'. Give one of",
        ),
        (
            torch.zeros(2, 8, 3),
            dict(partition='random', class_token=True),
            "got partition='random'. Use 'alternate'",
        ),
    ],
)
def test_arguments__that_are_refused(tokens, options, message):
    with pytest.raises(ValueError, match=message):
        bipartite_matching(tokens, (1,), **options)


def test_schedule__that_is_refused():
    with pytest.raises(ValueError, match=r'schedule\[1\] is .* at least 0'):
        bipartite_matching(torch.ones(1, 4, 2), (1, -1))
