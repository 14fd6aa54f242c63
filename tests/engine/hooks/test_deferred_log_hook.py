"""A history that grows in place is mmengine's, value by value."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmdtm.engine.hooks.deferred_log_hook import DeferredHistory


def filled(max_length: int, size: int, seed: int = 0):
    """Both kinds, with the same numbers and tensors; the second read at times."""
    random = np.random.default_rng(seed)
    plain = HistoryBuffer([0.5, 2.0], [1, 3], max_length)
    ours = DeferredHistory(copy.deepcopy(plain))
    for number in range(size):
        value, count = float(np.float32(random.normal())), int(random.integers(1, 5))
        plain.update(value, count)
        ours.update(torch.tensor(value) if number % 3 == 0 else value, count)
        if random.random() < 0.2:
            assert ours.current() == plain.current()
            assert ours.mean(7) == plain.mean(7)
    return plain, ours


@pytest.mark.parametrize('max_length', [10, 100, 10_000])
def test_every_statistic_is_that_of_mmengine(max_length):
    plain, ours = filled(max_length, 3000)
    for values, expected in zip(ours.data, plain.data, strict=True):
        np.testing.assert_array_equal(values, expected)
    for window in (1, 10, 2000):
        for name in ('mean', 'min', 'max'):
            assert ours.statistics(name, window) == plain.statistics(name, window)


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_what_is_saved_is_mmengines_own(copied):
    plain, ours = filled(50, 80)
    saved = copied(ours)
    assert type(saved) is HistoryBuffer and saved.max_length == 50
    for values, expected in zip(saved.data, plain.data, strict=True):
        np.testing.assert_array_equal(values, expected)
    saved.update(3)
    ours.update(3)
    np.testing.assert_array_equal(saved.data, ours.data)


def test_tensors_are_left_alone_until_the_history_is_read(monkeypatch):
    history = DeferredHistory(HistoryBuffer([1.0], [1]))
    read = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(
        torch.Tensor, 'tolist', lambda x: read.append(x.shape) or tolist(x)
    )
    for number in range(5):
        history.update(torch.tensor(float(number)))
    assert not read
    assert history.mean(5) == 2
    assert read == [(5,)]  # all at once
