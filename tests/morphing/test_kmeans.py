import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch.utils.flop_counter import FlopCounterMode

from mmdtm.morphing import kmeans


def made_tokens(batch, tokens, channels, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, channels, dtype=dtype, generator=generator)


@pytest.mark.parametrize('num_iters', [1, 2, 10])
@pytest.mark.parametrize(('tokens', 'clusters'), [(60, 6), (33, 11), (40, 1)])
def test_clusters__are_scikit_learns_from_the_same_centres(tokens, clusters, num_iters):
    x = made_tokens(3, tokens, 5)
    unit = F.normalize(x, dim=2)
    init = unit[:, :clusters] + 0.1 * made_tokens(3, clusters, 5, seed=1)
    ours = kmeans(3.7 * x, clusters, num_iters, init=init)
    for image in range(3):
        theirs = KMeans(
            clusters,
            init=init[image].numpy(),
            n_init=1,
            max_iter=num_iters,
            tol=0,
            algorithm='lloyd',
        ).fit(unit[image].numpy())
        assert ours.labels[image].tolist() == theirs.labels_.tolist()
    assert ours.num_morphed == clusters


def loop_kmeans(tokens, init, num_iters):
    """Lloyd's algorithm on one image by loops, empty clusters included."""
    x = F.normalize(tokens, dim=1)
    centres = init.clone()
    for iteration in range(num_iters + 1):
        labels, distances = [], []
        for i in range(len(x)):
            to_centres = [float((x[i] - c).square().sum()) for c in centres]
            distances.append(min(to_centres))
            labels.append(to_centres.index(min(to_centres)))
        # Farthest first, the nearest of each cluster held back.
        nearest = {
            min((d, i) for i, d in enumerate(distances) if labels[i] == c)[1]
            for c in set(labels)
        }
        farthest = sorted(
            (i for i in range(len(x)) if i not in nearest),
            key=lambda i: (distances[i], i),
            reverse=True,
        )
        empty = [c for c in range(len(centres)) if c not in labels]
        for c, i in zip(empty, farthest, strict=False):
            labels[i] = c
        if iteration < num_iters:
            for c in range(len(centres)):
                centres[c] = x[[i for i in range(len(x)) if labels[i] == c]].mean(0)
    return labels


@given(
    st.integers(1, 3),
    st.integers(1, 14),
    st.data(),
    st.integers(1, 4),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_clusters__are_those_of_loops_with_empty_clusters(
    batch, num_tokens, data, num_iters, seed
):
    clusters = data.draw(st.integers(1, num_tokens))
    x = made_tokens(batch, num_tokens, 4, seed)
    # Centres that far apart leave many clusters empty.
    init = 4 * made_tokens(batch, clusters, 4, seed + 1)
    ours = kmeans(x, clusters, num_iters, init=init)
    expected = [loop_kmeans(x[b], init[b], num_iters) for b in range(batch)]
    assert ours.labels.tolist() == expected
    assert ours.sizes().min() >= 1


def test_equal_tokens__leave_no_cluster_empty():
    for clusters in (1, 5, 60):
        labels = kmeans(torch.ones(1, 60, 3), clusters, 3).labels.tolist()
        filled = list(range(1, clusters))  # by the last tokens, one each
        assert labels == [[0] * (61 - clusters) + filled[::-1]]


def test_as_many_clusters_as_tokens__keeps_them_apart():
    labels = kmeans(made_tokens(2, 9, 3), 9, 2).labels
    assert labels.sort(1).values.tolist() == [list(range(9))] * 2


def test_first_centres__are_distinct_tokens_by_the_generator():
    x = made_tokens(2, 30, 4)

    def labels(seed):
        generator = torch.Generator().manual_seed(seed)
        return kmeans(x, 6, 1, generator=generator).labels

    assert torch.equal(labels(0), labels(0))
    assert not torch.equal(labels(0), labels(1))
    # Each image starts from six of its own tokens.
    keys = torch.rand(2, 30, generator=torch.Generator().manual_seed(0))
    chosen = keys.argsort(1)[:, :6]
    init = torch.stack([F.normalize(x[b, chosen[b]], dim=1) for b in range(2)])
    assert torch.equal(labels(0), kmeans(x, 6, 1, init=init).labels)


def test_autocast__does_not_lower_the_precision():
    x = made_tokens(8, 196, 16, dtype=torch.float32)
    init = F.normalize(made_tokens(8, 60, 16, seed=1, dtype=torch.float32), dim=2)
    expected = kmeans(x.double(), 60, 1, init=init.double()).labels
    with torch.autocast('cpu', torch.bfloat16):
        labels = kmeans(x, 60, 1, init=init).labels
    assert torch.equal(labels, expected)
    init = init[:, :7]
    coarse = init.bfloat16()  # the centres' precision is not the tokens'
    assert torch.equal(
        kmeans(x, 7, 5, init=coarse).labels, kmeans(x, 7, 5, init=coarse.float()).labels
    )
    assert torch.equal(
        kmeans(x.bfloat16(), 7, 5, init=init).labels,
        kmeans(x.bfloat16().float(), 7, 5, init=init).labels,
    )


def test_zero_tokens__are_as_far_from_a_centre_as_it_is_long():
    # From (0.9, 0) the zero token is 0.81 away and (0.5, 0.866) 0.91, squared: the
    # latter moves into the empty cluster.
    x = torch.tensor([[[1.0, 0.0], [0.5, 0.75**0.5], [0.0, 0.0]]])
    init = torch.tensor([[[0.9, 0.0], [-5.0, 0.0]]])
    assert kmeans(x, 2, 1, init=init).labels.tolist() == [[0, 1, 0]]


def test_zero_tokens__do_no_harm():
    x = made_tokens(2, 10, 3)
    x[:, :3] = 0
    assert kmeans(x, 4, 3).sizes().min() >= 1


def test_features__are_multiplied_only_once():
    with FlopCounterMode(display=False) as counter:
        kmeans(made_tokens(2, 30, 64, dtype=torch.float32), 20, 9)
    assert counter.get_total_flops() == 2 * 2 * 30 * 30 * 64


def test_compile__gives_the_same_in_one_graph():
    x, init = made_tokens(2, 12, 4), made_tokens(2, 5, 4, seed=1)
    torch._dynamo.reset()

    def group(x, init):
        return kmeans(x, 5, 2, init=init).labels

    compiled = torch.compile(group, backend='eager', fullgraph=True)
    assert torch.equal(compiled(x, init), group(x, init))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_clusters=9), r'num_clusters is 9. Give an int in \[1, 8\]'),
        (dict(num_clusters=0), r'num_clusters is 0. Give an int in \[1, 8\]'),
        (dict(num_iters=0), 'num_iters is .* Give an int at least 1'),
        (dict(init=torch.zeros(2, 3, 4)), r'shape \(2, 3, 4\). Give .* \(2, 3, 5\)'),
        (
            dict(init=torch.zeros(2, 3, 5, dtype=torch.int64)),
            'init are .*, not floating',
        ),
        (dict(init=torch.full((2, 3, 5), torch.nan)), 'init hold NaN'),
        (dict(tokens=torch.zeros(8, 5)), r'shape \(8, 5\). Give'),
        (dict(tokens=torch.full((2, 8, 5), torch.inf)), 'tokens hold NaN, infinity'),
    ],
)
def test_arguments__that_are_refused(options, message):
    arguments = dict(tokens=torch.ones(2, 8, 5), num_clusters=3, num_iters=2)
    with pytest.raises(ValueError, match=message):
        kmeans(**(arguments | options))
