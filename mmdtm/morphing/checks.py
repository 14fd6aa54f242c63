"""Checks of tensors that enter the core; inner code then trusts them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_tokens(tokens: Tensor, name: str = 'tokens') -> None:
    """Require floating-point tokens of shape (B, N, C), none of them zero.

    Raises:
        ValueError: If not; names the argument and the shape or dtype it came with.
    """
    if not isinstance(tokens, Tensor):
        raise ValueError(
            f'{name} is a {type(tokens).__name__}. Give a tensor of shape (B, N, C).'
        )
    if tokens.dim() != 3 or 0 in tokens.shape:
        raise ValueError(
            f'{name} has shape {tuple(tokens.shape)}. Give (B, N, C) with no empty '
            'dimension.'
        )
    if not tokens.is_floating_point():
        raise ValueError(
            f'{name} are {tokens.dtype}, not floating point. Convert them with '
            f'{name}.float().'
        )


def require_finite(values: Tensor, name: str = 'tokens') -> None:
    """Require that the squares of all tokens, (B, ...), are finite.

    Reads one number back from the device, so it is left out while
    ``torch.compile`` traces, and callers that must not wait for the device
    switch it off.

    Raises:
        ValueError: If not; names the first image of the batch where one is not.
    """
    if torch.compiler.is_compiling():
        return
    finite = values.isfinite().flatten(1).all(1)
    if not finite.all():
        image = int(finite.logical_not().nonzero()[0])
        raise ValueError(
            f'{name} hold NaN, infinity or numbers whose squares overflow, first in '
            f'image {image} of the batch. Look at what made them, often half '
            'precision.'
        )


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Precision to compute in: float64 stays, everything else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_count(value: object, low: int, high: int | None, name: str) -> int:
    """Require an int in [low, high], and return it; None leaves it open above.

    Raises:
        ValueError: If not; names the value and the range.
    """
    span = f'at least {low}' if high is None else f'in [{low}, {high}]'
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f'{name} is {value!r}. Give an int {span}.')
    if value < low or (high is not None and value > high):
        raise ValueError(f'{name} is {value}. Give an int {span}.')
    return value


def check_option(value: str, options: tuple[str, ...], name: str) -> None:
    """Require one of the named options.

    Raises:
        ValueError: If not; names the options there are.
    """
    if value not in options:
        raise ValueError(f'{name} is {value!r}. Give one of {options}.')


def check_range(
    value: int | Sequence[int | None] | None, low: int, high: int | None, name: str
) -> tuple[int, int]:
    """Read a fixed number or an inclusive range.

    Args:
        value: An int (fixed), a pair (lowest, highest), or None for all that
            is allowed. A highest of None stands for ``high``.
        low: The lowest allowed.
        high: The highest allowed; None leaves it open, and needs a highest.
        name: How error messages call it.

    Returns:
        (lowest, highest).

    Raises:
        ValueError: If it is neither, is empty, or leaves [low, high].
    """
    if value is None:
        value = (low, None)
    if isinstance(value, int):
        value = (value, value)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(
            f'{name} is {value!r}. Give an int or a pair (lowest, highest).'
        )
    lowest = check_count(value[0], low, high, name)
    highest = check_count(high if value[1] is None else value[1], low, high, name)
    if lowest > highest:
        raise ValueError(
            f'{name} = ({lowest}, {highest}) is an empty range. Put the lower number '
            'first.'
        )
    return lowest, highest
