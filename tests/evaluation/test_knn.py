"""k-NN against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from mmdtm.evaluation import knn
from mmdtm.evaluation.knn import knn_predict


def clusters(n: int, classes: int = 7, width: int = 12, seed: int = 0):
    """Overlapping clusters, so that neighbours disagree."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(
        classes, width, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    labels = torch.randint(classes, (n,), generator=generator)
    noise = torch.randn(n, width, generator=generator, dtype=torch.float64)
    return centres[labels] + 1.5 * noise, labels


@pytest.mark.parametrize(('k', 'temperature'), [(1, 0.07), (20, 0.07), (9, 1.0)])
def test_same_classes_as_scikit_learn(k, temperature):
    bank, labels = clusters(300)
    queries, truth = clusters(200, seed=1)
    predicted = knn_predict(bank, labels, queries, k=k, temperature=temperature)

    reference = KNeighborsClassifier(
        n_neighbors=k,
        metric='cosine',
        algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(bank.numpy(), labels.numpy())
    np.testing.assert_array_equal(predicted.numpy(), reference.predict(queries.numpy()))
    accuracy = (predicted == truth).double().mean()
    assert 0.3 < accuracy < 1, 'the clusters should be neither trivial nor noise'


def test_blocks_do_not_change_the_classes(monkeypatch):
    bank, labels = clusters(50)
    queries, _ = clusters(40, seed=1)
    whole = knn_predict(bank, labels, queries)
    monkeypatch.setattr(knn, 'BLOCK', 150)  # three queries at a time
    assert torch.equal(knn_predict(bank, labels, queries), whole)


def test_low_temperature_does_not_overflow():
    bank = torch.eye(3)
    predicted = knn_predict(bank, torch.tensor([2, 0, 1]), bank, k=3, temperature=1e-3)
    assert predicted.tolist() == [2, 0, 1]


def test_small_bank_votes_with_all_it_has():
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    predicted = knn_predict(
        bank, torch.tensor([0, 1, 1]), bank[:1], k=20, temperature=1.0
    )
    assert predicted.tolist() == [1]  # exp(.8) + exp(.6) > exp(1)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(queries=torch.zeros(2, 5)), 'same D'),
        (dict(bank_labels=torch.zeros(3, dtype=torch.long)), 'one label per vector'),
        (dict(k=0), 'k is 0 .* Give a k of 1'),
        (dict(temperature=0.0), 'temperature 0.* temperature above 0'),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = dict(
        bank=torch.ones(4, 3),
        bank_labels=torch.zeros(4, dtype=torch.long),
        queries=torch.ones(2, 3),
    )
    with pytest.raises(ValueError, match=message):
        knn_predict(**(good | change))
