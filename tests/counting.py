"""Counts the operations that a function asks of a device."""

from collections import Counter
from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode

# Views and empty memory start no kernel; nor do questions about dtypes.
FREE = set(
    'alias as_strided detach diagonal empty empty_like empty_strided expand permute '
    'promote_types select slice split split_with_sizes squeeze t transpose unbind '
    'unsqueeze view _reshape_alias _unsafe_view'.split()
)
# On CUDA they add atomically, in an order that differs from run to run.
ATOMIC = set(
    'bincount embedding_dense_backward _embedding_bag_dense_backward histc index_add '
    'index_put index_reduce put scatter_add scatter_reduce'.split()
)


class OperationCounter(TorchDispatchMode):
    """Counts by name; names of operations in place lose their underscore."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.counts[operation.__name__.split('.')[0].removesuffix('_')] += 1
        return operation(*args, **(kwargs or {}))


def operations(function: Callable) -> Counter[str]:
    """The operations of a call that start a kernel, by name."""
    with OperationCounter() as counter:
        function()
    return Counter(
        {name: count for name, count in counter.counts.items() if name not in FREE}
    )
