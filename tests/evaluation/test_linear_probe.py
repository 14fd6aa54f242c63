"""The linear probe against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmdtm.evaluation import linear_probe
from mmdtm.evaluation.linear_probe import fit_linear_probe, linear_probe_predict


def problem(n: int = 200, width: int = 6, classes: int = 4):
    """Classes that a linear map separates up to noise; uneven feature scales."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64)
    truth = torch.randn(width, classes, generator=generator, dtype=torch.float64)
    logits = x @ truth
    noise = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    scale = torch.logspace(-2, 2, width, dtype=torch.float64)
    x = x * scale + 5 * scale
    x[:, -1] = 7.0  # a constant feature
    return x, (logits + noise).argmax(1)


@pytest.mark.parametrize('l2', [1e-3, 1e-1])
def test_same_solution_as_scikit_learn(l2):
    x, y = problem()
    probe = fit_linear_probe(x, y, l2=l2, max_iter=1000)

    reference = LogisticRegression(C=1 / (len(y) * l2), tol=1e-10, max_iter=10_000)
    standard = StandardScaler().fit_transform(x.numpy())
    reference.fit(standard, y.numpy())
    np.testing.assert_allclose(
        probe(x).softmax(1).numpy(), reference.predict_proba(standard), atol=1e-4
    )


def test_blocks_do_not_change_the_solution(monkeypatch):
    x, y = problem()
    whole = fit_linear_probe(x, y)(x)
    monkeypatch.setattr(linear_probe, 'BLOCK', 4 * 30)  # 30 rows at a time
    torch.testing.assert_close(fit_linear_probe(x, y)(x), whole, rtol=0, atol=1e-6)


def test_predicts_the_labels_that_are_there():
    x, y = problem()
    gaps = torch.tensor([3, 70, 71, 999])  # label numbers with gaps
    predicted = linear_probe_predict(x, gaps[y], x)
    assert set(predicted.tolist()) <= set(gaps.tolist())
    assert (predicted == gaps[y]).double().mean() > 0.6


def test_fits_under_no_grad():
    x, y = problem()
    with torch.no_grad():
        probe = fit_linear_probe(x, y)
    assert probe.weight.abs().max() > 0.1
    assert not probe.weight.requires_grad


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='one label each'):
        fit_linear_probe(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match='two classes'):
        fit_linear_probe(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
