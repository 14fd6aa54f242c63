"""Two runs of whole training steps are equal to the bit."""

import torch
from counting import ATOMIC, OperationCounter
from mmengine.hooks import Hook
from tiny_run import train_dtm


class Notes(Hook):
    """Loss and weights after each step."""

    priority = 'LOWEST'

    def __init__(self):
        self.steps = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        values = [outputs['loss'], *runner.model.parameters()]
        self.steps.append([value.detach().clone() for value in values])


def test_two_deterministic_runs_are_equal_and_nothing_adds_atomically(tmp_path):
    """Teacher, matching, student, loss, backward pass, clipping and AdamW.

    A CPU does not refuse what a GPU cannot do in one order; so the operations are
    looked at. Of those found, the position biases' gradients alone are sums that the
    mode has a version for (torch.use_deterministic_algorithms).
    """
    runs = [Notes(), Notes()]
    try:
        for number, notes in enumerate(runs):
            with OperationCounter() as counter:
                train_dtm(
                    tmp_path / str(number),
                    notes,
                    randomness=dict(seed=0, deterministic=True),
                )
            assert torch.are_deterministic_algorithms_enabled()
            assert counter.counts.keys() & ATOMIC == {'index_add'}
    finally:
        torch.use_deterministic_algorithms(False)
    one, other = (notes.steps for notes in runs)
    assert len(one) == 8 and not torch.equal(one[0][-1], one[-1][-1])
    for step, same in zip(one, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(step, same, strict=True))
