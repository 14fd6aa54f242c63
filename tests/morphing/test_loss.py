import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mmdtm.morphing import TokenAssignment, bipartite_matching, dtm_loss

DISTANCES = ['cosine', 'l1', 'l2', 'smooth_l1']


def distance_of(u, v, distance, beta):
    """Distance of two vectors, written out."""
    if distance == 'cosine':
        return 1 - sum(a * b for a, b in zip(u, v, strict=True)) / (
            math.hypot(*u) * math.hypot(*v)
        )
    total = 0.0
    for a, b in zip(u, v, strict=True):
        x = abs(a - b)
        if distance == 'l1':
            total += x
        elif distance == 'l2':
            total += x * x
        else:
            total += x * x / (2 * beta) if x < beta else x - beta / 2
    return total / len(u)


def loop_loss(online, target, assignments, distance, reduction, beta, morphed):
    """Eq. (3-5) by loops over images, levels and groups."""
    batch, tokens, _ = online.shape
    total = 0.0
    for assignment in assignments:
        for b in range(batch):
            for group in range(assignment.num_morphed):
                members = [i for i in range(tokens) if assignment.labels[b, i] == group]
                if members:
                    u, v = online[b, members].sum(0), target[b, members].sum(0)
                    if morphed == 'mean':
                        u, v = u / len(members), v / len(members)
                    u, v = u.tolist(), v.tolist()
                    total += len(members) * distance_of(u, v, distance, beta)
    total /= batch
    return total / (tokens * len(assignments)) if reduction == 'mean' else total


def made_case(batch=2, tokens=7, channels=3, groups=(3, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    online, target = torch.randn(
        2, batch, tokens, channels, dtype=torch.float64, generator=generator
    )
    assignments = [
        TokenAssignment(torch.randint(g, (batch, tokens), generator=generator), g)
        for g in groups
    ]
    return online, target, assignments


@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(2, 5),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from(DISTANCES),
    st.sampled_from(['mean', 'sum']),
    st.floats(0.1, 3),
    st.sampled_from(['mean', 'sum']),
    st.integers(0, 2**31),
)
@settings(max_examples=100, deadline=None)
def test_loss__is_what_loops_give(
    batch, tokens, channels, groups, distance, reduction, beta, morphed, seed
):
    case = made_case(batch, tokens, channels, groups, seed)
    options = (distance, reduction, beta, morphed)
    loss = dtm_loss(*case, *options)
    assert loss.shape == ()
    expected = loop_loss(*case, *options)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize('distance', DISTANCES)
@pytest.mark.parametrize('num_morphed', [7, 1], ids=['tokens', 'images'])
def test_the_extremes__are_the_token_wise_and_the_image_level_loss(
    num_morphed, distance
):
    u, v, _ = made_case()
    assignment = bipartite_matching(v, (7 - num_morphed, 0, 0))
    assert assignment.num_morphed == num_morphed
    loss = dtm_loss(u, v, [assignment], distance)
    if num_morphed == 1:
        u, v = u.mean(1), v.mean(1)
    expected = {
        'cosine': (1 - F.cosine_similarity(u, v, dim=-1)).mean(),
        'l1': F.l1_loss(u, v),
        'l2': F.mse_loss(u, v),
        'smooth_l1': F.smooth_l1_loss(u, v, beta=2),
    }[distance]
    torch.testing.assert_close(loss, expected)


def test_levels__add_up_or_average():
    u, v, (first, second) = made_case()
    parts = [dtm_loss(u, v, [a], reduction='sum') for a in (first, second)]
    both = dtm_loss(u, v, [first, second], reduction='sum')
    torch.testing.assert_close(both, sum(parts))
    mean = dtm_loss(u, v, [first, second], reduction='mean')
    torch.testing.assert_close(mean, sum(parts) / 14)


@pytest.mark.parametrize(('distance', 'power'), [('cosine', 0), ('l1', 1), ('l2', 2)])
def test_sums__weigh_a_group_by_its_size_again(distance, power):
    u, v, _ = made_case(tokens=6)
    thirds = [TokenAssignment(torch.arange(6).expand(2, -1) // 2, 3)]
    means, sums = (
        dtm_loss(u, v, thirds, distance, group_reduction=g) for g in ('mean', 'sum')
    )
    torch.testing.assert_close(sums, 2**power * means)


@pytest.mark.parametrize('distance', DISTANCES)
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_gradient__reaches_u_and_never_v(distance, reduction):
    u, v, assignments = made_case()
    u.requires_grad_()
    v.requires_grad_()
    # One level: the signs of l1 may cancel between two.
    dtm_loss(u, v, assignments[:1], distance, reduction).backward()
    assert v.grad is None
    assert (u.grad != 0).any(2).all()
    assert gradcheck(
        lambda u: dtm_loss(u, v.detach(), assignments, distance, reduction), u
    )


def test_equal_tokens__have_no_loss_and_matched_ones_less_than_others():
    u, v, assignments = made_case()
    for distance in DISTANCES:
        assert dtm_loss(v, v, assignments, distance).item() == pytest.approx(
            0, abs=1e-9
        )
        near = dtm_loss(v + 0.01 * u, v, assignments, distance)
        assert near < dtm_loss(v.flip(0), v, assignments, distance)


@pytest.mark.parametrize('distance', DISTANCES)
def test_half_precision__is_compared_in_float32(distance):
    u, v, assignments = made_case(channels=64)
    u, v = u.bfloat16().requires_grad_(), v.float()
    with torch.autocast('cpu', torch.bfloat16):
        loss = dtm_loss(u, v, assignments, distance)
    assert loss.dtype == torch.float32
    expected = dtm_loss(u.detach().float(), v, assignments, distance)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    assert u.grad.dtype == torch.bfloat16
    assert u.grad.isfinite().all()


def test_double_precision__of_one_side_is_that_of_both():
    u, v, assignments = made_case()
    v = v.float()
    loss = dtm_loss(u, v, assignments, 'l2')
    torch.testing.assert_close(
        loss, dtm_loss(u, v.double(), assignments, 'l2'), rtol=1e-14, atol=0
    )


def test_zero_tokens__keep_loss_and_gradient_finite():
    u, v, assignments = made_case()
    u[0, :3] = 0
    v[1, :3] = 0
    u.requires_grad_()
    for distance in DISTANCES:
        loss = dtm_loss(u, v, [TokenAssignment.identity(2, 7)], distance)
        (grad,) = torch.autograd.grad(loss, u)
        assert loss.isfinite()
        assert grad.isfinite().all()


@pytest.mark.slow
def test_compile__gives_the_same_in_one_graph():
    u, v, assignments = made_case()
    labels = [a.labels for a in assignments]
    u.requires_grad_()
    torch._dynamo.reset()

    def loss_of(u, v, *labels):
        groups = [TokenAssignment(x, n) for x, n in zip(labels, (3, 5), strict=True)]
        return dtm_loss(u, v, groups)

    compiled = torch.compile(loss_of, backend='aot_eager', fullgraph=True)
    loss, expected = compiled(u, v, *labels), loss_of(u, v, *labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, u), torch.autograd.grad(expected, u)
    )


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('culprit', ['online', 'target'])
def test_values__that_are_not_finite_are_refused_or_returned(value, culprit):
    u, v, assignments = made_case()
    (u if culprit == 'online' else v)[0, 1, 2] = value
    with pytest.raises(ValueError, match=f'{culprit} holds NaN'):
        dtm_loss(u, v, assignments, 'l2')
    assert not dtm_loss(u, v, assignments, 'l2', check_finite=False).isfinite()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(online=torch.zeros(2, 7, 4)),
            r'\(2, 7, 4\) and target \(2, 7, 3\)\. Give both one shape',
        ),
        (dict(online=torch.zeros(7, 3)), r'online has shape .* Give \(B, N, C\)'),
        (dict(target=torch.zeros(2, 7, 3).int()), 'target are .*, not floating point'),
        (dict(distance='l3'), "distance is 'l3'. Give one of"),
        (dict(reduction='none'), "reduction is 'none'. Give one of"),
        (dict(group_reduction='max'), "group_reduction is 'max'. Give one"),
        (dict(beta=0.0), 'beta is 0.0. Give a number above 0'),
        (dict(assignments=[]), 'at least one'),
        (dict(assignments=None), 'at least one'),
        (
            dict(assignments=[TokenAssignment.identity(2, 6)]),
            r'assignments\[0\] is for \(2, 6\)',
        ),
        (
            dict(assignments=[TokenAssignment.identity(3, 7)]),
            r'assignments\[0\] is for \(3, 7\)',
        ),
        (dict(assignments=TokenAssignment.identity(2, 7)), 'Give a sequence'),
    ],
)
def test_arguments__that_are_refused(change, message):
    u, v, assignments = made_case()
    arguments = dict(online=u, target=v, assignments=assignments)
    with pytest.raises(ValueError, match=message):
        dtm_loss(**(arguments | change))
