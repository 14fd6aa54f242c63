"""Relative position bias tables: index and resizing.

A table has shape ``((2h - 1) * (2w - 1) + 3, num_heads)`` for an h x w grid of
patches: one entry per offset between two patches, row-major, then three of the
class token: class to patch, patch to class, class to class (BEiT's layout).
"""

from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import make_interp_spline

NUM_CLASS_ENTRIES = 3


def table_length(grid: tuple[int, int]) -> int:
    """Number of entries of the table of an h x w grid."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + NUM_CLASS_ENTRIES


# Few are kept: at 64 x 64 patches one takes 128 MiB. torch.compile would trace
# into a cached function, past its cache.
@torch.compiler.disable
@lru_cache(maxsize=4)
def position_index(
    grid: tuple[int, int], device: torch.device | str = 'cpu'
) -> torch.Tensor:
    """The table entry of each pair of tokens.

    Args:
        grid: Patches (h, w).
        device: Where the index is wanted.

    Returns:
        int64 (1 + h*w, 1 + h*w), query by key, the class token first. Shared
        between callers: do not write into it.
    """
    h, w = grid
    rows = torch.arange(h, device=device).repeat_interleave(w)
    cols = torch.arange(w, device=device).repeat(h)
    row_offset = rows[:, None] - rows[None, :] + h - 1
    col_offset = cols[:, None] - cols[None, :] + w - 1
    length = table_length(grid)
    index = torch.empty(1 + h * w, 1 + h * w, dtype=torch.int64, device=device)
    index[1:, 1:] = row_offset * (2 * w - 1) + col_offset
    index[0, :] = length - 3
    index[:, 0] = length - 2
    index[0, 0] = length - 1
    return index


def _geometric_offsets(source: int, target: int) -> np.ndarray:
    """Where the ``source`` offsets of one axis lie among the ``target`` ones.

    Neighbouring offsets are q**0, q**1, q**2, ... apart from the centre
    outwards, with the q for which the outermost one reaches that of the
    target: near offsets keep their spacing, far ones are stretched (BEiT's
    rule for fine-tuning at another resolution, its bracket 1.01 to 1.5 and
    its tolerance 1e-6 included).
    """
    steps, reach = source // 2, target // 2
    low, high, q = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        q = (low + high) / 2
        if (q**steps - 1) / (q - 1) > reach:
            high = q
        else:
            low = q
    outwards = np.cumsum(q ** np.arange(steps))
    return np.concatenate([-outwards[::-1], [0.0], outwards])


@torch.compiler.disable
@lru_cache(maxsize=64)
def _axis_resize(
    source: int, target: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Cubic resize of one axis as a (target, source) matrix.

    Interpolating splines are linear in the values they pass through, so the
    resize of a table is a product with one such matrix per axis, and gradients
    pass through it. Beyond the outermost source offset its value is kept.
    """
    if source == target:
        return torch.eye(source, dtype=dtype, device=device)
    if source == 1:
        return torch.ones(target, 1, dtype=dtype, device=device)
    x = _geometric_offsets(source, target)
    wanted = np.clip(np.arange(target) - target // 2, x[0], x[-1])
    spline = make_interp_spline(x, np.eye(source), k=min(3, source - 1))
    return torch.from_numpy(spline(wanted)).to(device, dtype)


def resize_table(
    table: torch.Tensor, source: tuple[int, int], target: tuple[int, int]
) -> torch.Tensor:
    """Resize a relative position bias table to another grid.

    Geometrically spaced offsets and cubic splines, as BEiT does for
    fine-tuning at another resolution; the class token's entries are kept.
    Grids need not be square. Differentiable in ``table``.

    Args:
        table: (table_length(source), num_heads), floating point.
        source: Patches (h, w) that the table is for.
        target: Patches (h, w) wanted.

    Returns:
        (table_length(target), num_heads), of the table's dtype and device;
        the table itself where the grids are equal.

    Raises:
        ValueError: If the table's length is not that of the source grid.
    """
    if table.ndim != 2 or table.shape[0] != table_length(source):
        raise ValueError(
            f'A relative position bias table of {tuple(table.shape)} is not that of '
            f'{source[0]} x {source[1]} patches: {table_length(source)} rows. Name the '
            'grid that it was trained for (pretrain_img_size).'
        )
    if source == target:
        return table
    patches, class_entries = table[:-NUM_CLASS_ENTRIES], table[-NUM_CLASS_ENTRIES:]
    dtype = torch.promote_types(table.dtype, torch.float32)
    by_row, by_col = (
        _axis_resize(2 * s - 1, 2 * t - 1, dtype, table.device)
        for s, t in zip(source, target, strict=True)
    )
    patches = patches.unflatten(0, (2 * source[0] - 1, 2 * source[1] - 1))
    with torch.autocast(table.device.type, enabled=False):
        patches = torch.einsum('ys,xt,sth->yxh', by_row, by_col, patches.to(dtype))
    return torch.cat([patches.flatten(0, 1).to(table.dtype), class_entries])
