"""Counts the operations that a function asks of a device."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / 'tools/benchmark'))
from operations import OperationCounter  # noqa: E402

# On CUDA they add atomically, in an order that differs from run to run.
ATOMIC = set(
    'bincount embedding_dense_backward _embedding_bag_dense_backward histc index_add '
    'index_put index_reduce put scatter_add scatter_reduce'.split()
)


def operations(function: Callable) -> Counter[str]:
    """The operations of a call that start a kernel, by name."""
    with OperationCounter() as counter:
        function()
    return counter.kernels
