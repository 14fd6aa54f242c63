"""Logged values that nobody has asked for yet cost nothing."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


class DeferredHistory(HistoryBuffer):
    """A ``HistoryBuffer`` that grows in place and leaves values on their device.

    mmengine's copies the whole history at each value (mmengine/logging/
    history_buffer.py, ``np.append``), which takes longer the longer the run is.
    This one doubles its room when it is full, and fetches tensors all at once when
    it is read. Copied or saved it becomes a plain ``HistoryBuffer``.

    Args:
        history: What there is already.
    """

    def __init__(self, history: HistoryBuffer) -> None:
        values, counts = history.data
        self.max_length = history.max_length
        self._set_default_statistics()
        self._size = len(values)
        self._room = np.zeros((2, max(1024, 2 * self._size)))
        self._room[:, : self._size] = values, counts
        self._pending: list[tuple[float | torch.Tensor, float]] = []

    def update(self, log_val: float | torch.Tensor, count: int = 1) -> None:
        """Add a value: a number, or a tensor of one element on any device."""
        self._pending.append((log_val, count))

    @property
    def _log_history(self) -> np.ndarray:
        return self._read(0)

    @property
    def _count_history(self) -> np.ndarray:
        return self._read(1)

    def _read(self, row: int) -> np.ndarray:
        self._fetch()
        return self._room[row, max(0, self._size - self.max_length) : self._size]

    def _fetch(self) -> None:
        if not self._pending:
            return
        values, counts = zip(*self._pending, strict=True)
        self._pending = []
        end = self._size + len(values)
        if end > self._room.shape[1]:
            kept = min(self._size, self.max_length)
            room = np.zeros((2, 2 * (kept + len(values))))
            room[:, :kept] = self._room[:, self._size - kept : self._size]
            self._room, self._size, end = room, kept, kept + len(values)
        self._room[:, self._size : end] = fetch(values), counts
        self._size = end

    def __reduce__(self) -> tuple:
        return HistoryBuffer, (*self.data, self.max_length)

    def __deepcopy__(self, memo: dict) -> HistoryBuffer:
        return HistoryBuffer(*self.data, self.max_length)


def fetch(values: Sequence[float | torch.Tensor]) -> list[float]:
    """Numbers of numbers and tensors of one element; devices are waited for once."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    fetched = iter(())
    if tensors:
        fetched = iter(torch.stack([x.double().reshape(()) for x in tensors]).tolist())
    return [next(fetched) if isinstance(x, torch.Tensor) else x for x in values]


@HOOKS.register_module()
class DeferredLogHook(Hook):
    """Keep what is logged in every step on the device until the log is written.

    mmengine's message hub asks the device for each value at once, and so waits for
    it in every step.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Let the message hub's training scalars be :class:`DeferredHistory`."""
        hub = runner.message_hub
        update_scalar = hub.update_scalar

        @functools.wraps(update_scalar)
        def update(key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
            history = hub.log_scalars.get(key)
            number = isinstance(value, (float, int, torch.Tensor))
            if history is None or not number or not key.startswith('train/'):
                update_scalar(key, value, count, resumed)
                return
            if not isinstance(history, DeferredHistory):
                history = hub.log_scalars[key] = DeferredHistory(history)
            if isinstance(value, torch.Tensor):
                value = value.detach()
            history.update(value, count)

        hub.update_scalar = update
        self._restore = lambda: setattr(hub, 'update_scalar', update_scalar)

    def after_train(self, runner: Runner) -> None:
        """Leave the message hub as it was."""
        self._restore()
