"""The linear probes against scikit-learn's logistic regression and a plain loop."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmdtm.evaluation import linear_probe
from mmdtm.evaluation.linear_probe import (
    fit_linear_probe,
    fit_sgd_probe,
    linear_probe_predict,
)

both = pytest.mark.parametrize('fit', [fit_linear_probe, fit_sgd_probe])


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


@pytest.mark.parametrize('batch_size', [64, 1024])
def test_sgd_takes_the_steps_of_a_plain_loop(batch_size):
    x, y = problem()
    epochs, rate, seed = 3, 0.2, 5
    probe = fit_sgd_probe(x, y, epochs, rate, batch_size, seed)

    batch = min(batch_size, 200)  # of 64, the last one has 8
    data, deviation = x.numpy(), x.numpy().std(0)
    data = (data - data.mean(0)) / np.where(deviation < 1e-9, 1, deviation)
    weight, bias = np.zeros((4, 6)), np.zeros(4)
    speed = [np.zeros_like(weight), np.zeros_like(bias)]
    draw = torch.Generator().manual_seed(seed)
    step, steps = 0, epochs * len(range(0, 200, batch))
    for _ in range(epochs):
        order = torch.randperm(200, generator=draw).numpy()
        for start in range(0, 200, batch):
            rows = order[start : start + batch]
            error = data[rows] @ weight.T + bias
            error = np.exp(error) / np.exp(error).sum(1, keepdims=True)
            error[np.arange(len(rows)), y.numpy()[rows]] -= 1
            error /= len(rows)
            now = rate * batch / 256 * (1 + np.cos(np.pi * step / steps)) / 2
            speed[0] = 0.9 * speed[0] + error.T @ data[rows]
            speed[1] = 0.9 * speed[1] + error.sum(0)
            weight, bias = weight - now * speed[0], bias - now * speed[1]
            step += 1
    np.testing.assert_allclose(probe(x).numpy(), data @ weight.T + bias, rtol=1e-9)


def test_long_sgd_reaches_the_optimum():
    x, y = problem()
    best = fit_linear_probe(x, y, l2=0.0, max_iter=1000)(x).softmax(1)
    found = fit_sgd_probe(x, y, epochs=400, lr=0.5)(x).softmax(1)
    torch.testing.assert_close(found, best, rtol=0, atol=1e-3)


def test_the_seed_decides_the_order():
    x, y = problem()
    first, again, other = (
        fit_sgd_probe(x, y, batch_size=16, seed=seed).weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@both
def test_predicts_the_labels_that_are_there(fit):
    x, y = problem()
    gaps = torch.tensor([3, 70, 71, 999])  # label numbers with gaps
    predicted = linear_probe_predict(x, gaps[y], x, fit=fit)
    assert set(predicted.tolist()) <= set(gaps.tolist())
    assert (predicted == gaps[y]).double().mean() > 0.6


@both
def test_fits_under_no_grad_and_leaves_the_random_state(fit):
    x, y = problem()
    state = torch.get_rng_state()
    with torch.no_grad():
        probe = fit(x, y)
    assert probe.weight.abs().max() > 0.1
    assert not probe.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


@both
def test_bad_arguments_are_named(fit):
    with pytest.raises(ValueError, match='one label each'):
        fit(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match='at least two classes'):
        fit(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
