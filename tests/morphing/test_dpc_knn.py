import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import density_peaks, labels_of

from mmdtm.morphing import dpc_knn


@given(
    st.integers(1, 3),
    st.integers(2, 20),
    st.integers(2, 5),
    st.integers(1, 25),
    st.data(),
    st.integers(0, 2**31),
)
@settings(max_examples=80, deadline=None)
def test_clusters__are_those_of_loops(batch, count, channels, neighbors, data, seed):
    clusters = data.draw(st.integers(1, count - 1))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, count, channels, dtype=torch.float64, generator=generator)
    assignment = dpc_knn(x, clusters, neighbors)
    expected = [
        labels_of(density_peaks(image.numpy(), clusters, neighbors), count)
        for image in x
    ]
    assert assignment.labels.tolist() == expected
    assert assignment.num_morphed == clusters


@pytest.mark.parametrize('seed', range(3))
def test_mutual_neighbors__are_equally_dense(seed):
    # Products of matrices are not symmetric to the last bit at this size.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 50, 17, dtype=torch.float64, generator=generator)
    groups = density_peaks(x[0].numpy(), 25, num_neighbors=1)
    assert dpc_knn(x, 25, num_neighbors=1).labels.tolist() == [labels_of(groups, 50)]


def test_two_clouds__are_found():
    directions = F.one_hot(torch.arange(2).repeat_interleave(10), 6).float()
    x = (directions + 0.05 * torch.randn(20, 6))[None]
    labels = dpc_knn(x, 2).labels[0]
    assert len(labels[:10].unique()) == 1
    assert len(labels[10:].unique()) == 1
    assert labels[0] != labels[10]


def test_equal_tokens__leave_no_cluster_empty():
    labels = dpc_knn(torch.ones(1, 50, 3), 4).labels
    assert labels.tolist() == [[0, 1, 2, 3] + [0] * 46]


def test_five_neighbors__are_the_default():
    x = torch.randn(3, 12, 4)
    assert torch.equal(dpc_knn(x, 5).labels, dpc_knn(x, 5, num_neighbors=5).labels)


@pytest.mark.parametrize('count', [1, 4])
def test_as_many_clusters_as_tokens__is_the_identity(count):
    labels = dpc_knn(torch.randn(2, count, 3), count).labels
    assert labels.tolist() == [list(range(count))] * 2


def test_compile__gives_the_same_in_one_graph():
    x = torch.randn(2, 12, 4, dtype=torch.float64)
    torch._dynamo.reset()

    def group(x):
        return dpc_knn(x, 5).labels

    compiled = torch.compile(group, backend='eager', fullgraph=True)
    assert torch.equal(compiled(x), group(x))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_clusters=9), r'num_clusters is 9. Give an int in \[1, 8\]'),
        (dict(num_neighbors=0), 'num_neighbors is .* Give an int at least 1'),
        (dict(tokens=torch.full((2, 8, 5), torch.nan)), 'tokens hold NaN'),
        (dict(tokens=torch.zeros(2, 8)), r'shape \(2, 8\). Give'),
    ],
)
def test_arguments__that_are_refused(options, message):
    arguments = dict(tokens=torch.ones(2, 8, 5), num_clusters=3)
    with pytest.raises(ValueError, match=message):
        dpc_knn(**(arguments | options))
