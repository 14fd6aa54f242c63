import torch
from counting import ATOMIC, operations
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from mmdtm.morphing import bipartite_matching, dtm_loss, kmeans
from mmdtm.morphing.groups import Groups

# (B, N, counts of the levels, seed)
CASES = st.tuples(
    st.integers(1, 3),
    st.integers(1, 10),
    st.lists(st.integers(1, 10), min_size=1, max_size=3),
    st.integers(0, 2**31),
)


def made_levels(batch, rows, counts, seed):
    """Labels of each level, and the (G, B * N) matrix of who is in which group."""
    generator = torch.Generator().manual_seed(seed)
    labels = [torch.randint(n, (batch, rows), generator=generator) for n in counts]
    member = [
        torch.block_diag(*torch.nn.functional.one_hot(x, n).mT.double())
        for x, n in zip(labels, counts, strict=True)
    ]
    return labels, torch.cat(member)


@given(CASES, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_sum__is_the_product_with_the_membership_matrix(case, width):
    batch, rows, counts, seed = case
    labels, member = made_levels(*case)
    groups = Groups(labels, counts)
    x = torch.randn(batch, rows, width, dtype=torch.float64)
    x.requires_grad_(seed % 2 == 0)
    torch.testing.assert_close(groups.sum(x), member @ x.flatten(0, 1))
    assert groups.sizes().tolist() == member.sum(1).tolist()
    hot = torch.nn.functional.one_hot(groups.labels(), len(member)).double()
    assert hot.unflatten(0, (len(counts), -1)).sum(0).mT.equal(member)


def test_sum__reads_transposed_matrices():
    matrix = torch.arange(6.0).view(1, 2, 3).transpose(1, 2)
    sums = Groups([torch.tensor([[1, 0, 1]])], [2]).sum(matrix)
    assert sums.tolist() == [[1.0, 4.0], [2.0, 8.0]]


def test_gradients__of_sums_and_of_what_is_handed_out():
    case = (2, 5, [3, 4], 0)
    groups = Groups(made_levels(*case)[0], case[2])
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(14, 3, dtype=torch.float64)
    assert gradcheck(groups.sum, x)
    assert gradgradcheck(lambda x: (groups.sum(x) ** 2 * weights).sum(), x)
    one = Groups(made_levels(2, 5, [4], 0)[0], [4])
    y = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(one.spread, y)
    assert gradgradcheck(lambda y: one.spread(y) ** 2, y)


def test_operations__of_an_iteration_and_of_the_loss():
    """What does not depend on the sizes, so what small tokens show."""
    tokens = torch.randn(2, 64, 8)
    gram = tokens @ tokens.mT

    def matching(count):
        return operations(
            lambda: bipartite_matching(
                tokens, (4,) * count, check_finite=False, gram=gram
            )
        ).total()

    assert matching(7) - matching(6) == matching(12) - matching(11) <= 27
    levels = [bipartite_matching(tokens, schedule) for schedule in ((8, 8), (3,) * 9)]
    online = torch.randn(2, 64, 8, requires_grad=True)
    forward = operations(lambda: dtm_loss(online, tokens, levels, check_finite=False))
    assert forward.total() <= 30


def test_deterministic__nothing_adds_atomically_and_two_runs_are_equal():
    torch.use_deterministic_algorithms(True)
    try:
        online = torch.randn(2, 49, 8, requires_grad=True)
        target = torch.randn(2, 49, 8)
        gradients = []

        def step():
            online.grad = None
            levels = [
                bipartite_matching(target, (9, 9, 9)),
                kmeans(target, 7, 3, torch.Generator().manual_seed(0)),
            ]
            for distance in ('cosine', 'l1', 'l2', 'smooth_l1'):
                dtm_loss(online, target, levels, distance).backward()
            levels[0].unmorph(levels[0].morph(online)).sum().backward()
            gradients.append(online.grad)

        # The least of a cluster's ranks is the same in any order.
        found = operations(step).keys() & ATOMIC - {'scatter_reduce'}
        assert not found
        step()
        assert gradients[0].equal(gradients[1])
    finally:
        torch.use_deterministic_algorithms(False)
