"""A frozen network's weights in half precision, where autocast would cast them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HalfWeight(NamedTuple):
    """A parameter or buffer that autocast would cast in every forward pass.

    Attributes:
        place: The dict of a module's parameters or buffers.
        name: Its key there.
        full: As the network has it.
        half: As autocast would cast it.
    """

    place: dict[str, Any]
    name: str
    full: Tensor
    half: Tensor


def find_half_weights(
    network: nn.Module, dtype: torch.dtype, forward: Callable[[], Any]
) -> tuple[Any, list[HalfWeight]]:
    """Find what a forward pass under autocast does nothing with but cast it.

    A weight that anything else reads, a norm's or one that is standardised first,
    stays as it is: with the others in place the pass gives the same to the bit.

    Args:
        network: Frozen.
        dtype: Autocast's.
        forward: The pass; torch.compile is left aside in it.

    Returns:
        What the pass returned, and the weights, in both precisions.
    """
    stance = torch.compiler.set_stance('force_eager')
    with stance, without_fast_path(), _Uses(dtype) as uses:
        result = forward()
    found = []
    for module in network.modules():
        for place in (module._parameters, module._buffers):
            for name, full in place.items():
                if full is None or _storage(full) not in uses.cast - uses.read:
                    continue
                half = full.to(dtype)
                if isinstance(full, nn.Parameter):
                    half = nn.Parameter(half, requires_grad=False)
                found.append(HalfWeight(place, name, full, half))
    return result, found


@contextmanager
def in_place(weights: list[HalfWeight]) -> Iterator[None]:
    """Let the network have its weights in half precision."""
    for place, name, _, half in weights:
        place[name] = half
    try:
        with without_fast_path():
            yield
    finally:
        for place, name, full, _ in weights:
            place[name] = full


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Leave the fast path of torch's attention aside, as autocast does on a GPU.

    On a CPU autocast lets it be, and it does not round as the other path does.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Uses(TorchDispatchMode):
    """Notes which memory is cast to a precision, and which is read otherwise."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.cast: set[int] = set()
        self.read: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Views read nothing, nor do questions about devices, of fake tensors.
        if not operation.is_view and operation.namespace != 'prim':
            copies = operation is torch.ops.aten._to_copy.default
            casts = copies and kwargs.get('dtype') == self.dtype
            leaves = tree_leaves((args, kwargs))
            tensors = (leaf for leaf in leaves if isinstance(leaf, Tensor))
            (self.cast if casts else self.read).update(map(_storage, tensors))
        return operation(*args, **kwargs)


def _storage(tensor: Tensor) -> int:
    """What a tensor and its views have in common."""
    return tensor.untyped_storage()._cdata
