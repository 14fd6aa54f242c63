"""Grid pooling as a token assignment."""

import torch

from .assignment import TokenAssignment
from .checks import check_count


def downsample(
    grid_size: int | tuple[int, int],
    stride: int | tuple[int, int],
    batch_size: int,
    device: torch.device | str | None = None,
) -> TokenAssignment:
    """Merge the tokens of each stride x stride window (table 2, downsampling).

    Args:
        grid_size: (h, w) of the token grid, or one int for a square; tokens
            are in row-major order, N = h * w.
        stride: Height and width of the windows in tokens, or one int for
            both. It must divide the grid: a ragged edge would give morphed
            tokens of unlike sizes.
        batch_size: B.
        device: Where the labels are to be.

    Returns:
        N_m = (h / stride) * (w / stride) windows in row-major order.

    Raises:
        ValueError: If a number is not a positive int or the stride does not
            divide the grid.
    """
    height, width = _pair(grid_size, 'grid_size')
    down, across = _pair(stride, 'stride')
    check_count(batch_size, 1, None, 'batch_size')
    if height % down or width % across:
        raise ValueError(
            f'stride {(down, across)} does not divide the token grid '
            f'{(height, width)}. Choose a divisor of both sides.'
        )
    rows = torch.arange(height, device=device) // down
    columns = torch.arange(width, device=device) // across
    per_row = width // across
    labels = (rows.unsqueeze(1) * per_row + columns).flatten()
    return TokenAssignment.trusted(
        labels.expand(batch_size, -1), (height // down) * per_row
    )


def _pair(value: int | tuple[int, int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f'{name} is {value!r}. Give an int or two ints.')
    return check_count(pair[0], 1, None, name), check_count(pair[1], 1, None, name)
