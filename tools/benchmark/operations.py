"""Counts the operations that are asked of a device."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

# Views and empty memory start no kernel; nor do questions about dtypes.
FREE = frozenset(
    'alias as_strided detach diagonal empty empty_like empty_strided expand permute '
    'promote_types select slice split split_with_sizes squeeze t transpose unbind '
    'unsqueeze view _reshape_alias _unsafe_view'.split()
)


class OperationCounter(TorchDispatchMode):
    """Counts by name; names of operations in place lose their underscore."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.counts[operation.__name__.split('.')[0].removesuffix('_')] += 1
        return operation(*args, **(kwargs or {}))

    @property
    def kernels(self) -> Counter[str]:
        """Those operations that start one."""
        return Counter({k: n for k, n in self.counts.items() if k not in FREE})

    @property
    def waits(self) -> int:
        """Operations that bring a value to Python."""
        return self.counts['_local_scalar_dense']
