"""Rows added up by label: always in the same order, without atomic additions."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Groups:
    """The rows of a batch of matrices, sorted by their labels.

    Sorting and counting are done once, for all sums that follow. An embedding
    bag then adds up each group's rows in their order, so that on CUDA, too, the
    same rows give the same sums to the bit.

    Args:
        labels: int64 (B, N) per level, in [0, count of the level).
        counts: how many groups an image has at each level. The groups are laid
            end to end: level by level, image by image, G in all.
    """

    def __init__(self, labels: Sequence[Tensor], counts: Sequence[int]) -> None:
        batch_size, num_rows = labels[0].shape
        ends = list(accumulate(batch_size * count for count in counts))
        self.num_levels, self.num_groups = len(labels), ends[-1]
        total_rows = batch_size * num_rows
        # Whatever counts upwards is a view of this.
        numbers = torch.arange(
            max(total_rows, self.num_groups + 1), device=labels[0].device
        )
        first_groups = [
            numbers[end - batch_size * count : end : count]
            for end, count in zip(ends, counts, strict=True)
        ]
        self._first_groups = _joined(first_groups).unsqueeze(1)
        self._labels = _joined(labels)
        values, places = self._labels.sort(dim=1, stable=True)
        first_rows = numbers[:total_rows:num_rows].unsqueeze(1)
        self.rows = (places.view(-1, batch_size, num_rows) + first_rows).flatten()
        self.starts = torch.searchsorted(
            (values + self._first_groups).flatten(), numbers[: self.num_groups + 1]
        )

    def sizes(self) -> Tensor:
        """How many rows each group has, int64 (G,)."""
        return self.starts[1:] - self.starts[:-1]

    def sum(self, rows: Tensor) -> Tensor:
        """Add up the rows of each group, differentiably.

        Args:
            rows: floating point (B, N, C).

        Returns:
            (G, C); zeros for a group without rows.
        """
        rows = rows.flatten(0, 1)
        if torch.is_grad_enabled() and rows.requires_grad:
            return _Sum.apply(
                rows, self.rows, self.starts, self.labels(), self.num_levels
            )
        return _add_up(rows, self.rows, self.starts)

    def spread(self, groups: Tensor) -> Tensor:
        """Give each row what its group holds, differentiably.

        Args:
            groups: floating point (G, C), of one level.

        Returns:
            (B * N, C).
        """
        return _Spread.apply(groups, self.rows, self.starts, self.labels(), 1)

    def labels(self) -> Tensor:
        """The group of each row, level by level, int64 (L * B * N,)."""
        return (self._labels + self._first_groups).flatten()


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _add_up(values: Tensor, rows: Tensor, starts: Tensor) -> Tensor:
    return F.embedding_bag(rows, values, starts, mode='sum', include_last_offset=True)


def _hand_out(groups: Tensor, labels: Tensor, num_levels: int) -> Tensor:
    *others, last = groups.index_select(0, labels).chunk(num_levels)
    return sum(reversed(others), last)


class _Sum(torch.autograd.Function):
    """`_add_up`, whose gradient is `_hand_out`: neither adds up atomically."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        rows: Tensor,
        starts: Tensor,
        labels: Tensor,
        num_levels: int,
    ) -> Tensor:
        ctx.save_for_backward(rows, starts, labels)
        ctx.num_levels = num_levels
        return _add_up(values, rows, starts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        gradient = _Spread.apply(grad, *ctx.saved_tensors, ctx.num_levels)
        return gradient, None, None, None, None


class _Spread(torch.autograd.Function):
    """`_hand_out`, whose gradient is `_add_up`."""

    @staticmethod
    def forward(
        ctx: Any,
        groups: Tensor,
        rows: Tensor,
        starts: Tensor,
        labels: Tensor,
        num_levels: int,
    ) -> Tensor:
        ctx.save_for_backward(rows, starts, labels)
        ctx.num_levels = num_levels
        return _hand_out(groups, labels, num_levels)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        gradient = _Sum.apply(grad.contiguous(), *ctx.saved_tensors, ctx.num_levels)
        return gradient, None, None, None, None
