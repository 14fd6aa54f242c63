"""Which token belongs to which morphed token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_count, check_option, check_tokens, working_dtype
from .groups import Groups


class TokenAssignment:
    """The paper's M (section 4.2), kept as one label per token.

    Every token belongs to exactly one morphed token. Averaging and
    broadcasting by labels gives what products with the dense (B, N_m, N)
    matrix would give, at a cost of O(B N C) instead of O(B N_m N C).

    Args:
        labels: int64 (B, N); the morphed token of each token.
        num_morphed: N_m, the number of morphed tokens. One without tokens is
            allowed; its mean is zero and its size 0.

    Raises:
        ValueError: If the labels are not int64 of shape (B, N), or one lies
            outside [0, N_m). (The range is not checked while torch.compile
            traces: it would have to wait for the device.)
    """

    def __init__(self, labels: Tensor, num_morphed: int) -> None:
        if not isinstance(labels, Tensor) or labels.dim() != 2 or 0 in labels.shape:
            shape = tuple(getattr(labels, 'shape', ()))
            raise ValueError(
                f'labels are a {type(labels).__name__} of shape {shape}. Give a tensor '
                'of shape (B, N) with no empty dimension.'
            )
        if labels.dtype != torch.int64:
            raise ValueError(
                f'labels are {labels.dtype}, not int64. Convert them with '
                'labels.long().'
            )
        check_count(num_morphed, 1, None, 'num_morphed')
        if not torch.compiler.is_compiling():
            low, high = (int(x) for x in labels.aminmax())
            if low < 0 or high >= num_morphed:
                raise ValueError(
                    f'labels run from {low} to {high}. Give some of 0 to '
                    f'{num_morphed - 1}, or another num_morphed than {num_morphed}.'
                )
        self.labels = labels
        self.num_morphed = num_morphed

    @classmethod
    def trusted(cls, labels: Tensor, num_morphed: int) -> 'TokenAssignment':
        """Build one from labels known to be right, without checking them.

        The check waits for the device; a clustering that numbers its groups
        itself has no need of it.
        """
        self = cls.__new__(cls)
        self.labels = labels
        self.num_morphed = num_morphed
        return self

    @classmethod
    def identity(
        cls, batch_size: int, num_tokens: int, device: torch.device | str | None = None
    ) -> 'TokenAssignment':
        """Every token its own morphed token: token-wise supervision.

        Raises:
            ValueError: If a size is not a positive int.
        """
        check_count(batch_size, 1, None, 'batch_size')
        check_count(num_tokens, 1, None, 'num_tokens')
        labels = torch.arange(num_tokens, device=device).expand(batch_size, -1)
        return cls.trusted(labels, num_tokens)

    @property
    def batch_size(self) -> int:
        """B."""
        return self.labels.shape[0]

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.labels.shape[1]

    def __repr__(self) -> str:
        return (
            f'TokenAssignment(batch_size={self.batch_size}, '
            f'num_tokens={self.num_tokens}, num_morphed={self.num_morphed})'
        )

    def to(self, device: torch.device | str) -> 'TokenAssignment':
        """Return the same assignment on another device."""
        return self.trusted(self.labels.to(device), self.num_morphed)

    def sizes(self) -> Tensor:
        """Return int64 (B, N_m): the paper's w_i, how many tokens merged into each."""
        sizes = Groups([self.labels], [self.num_morphed]).sizes()
        return sizes.view(self.batch_size, self.num_morphed)

    def morph(self, x: Tensor, reduce: str = 'mean') -> Tensor:
        """Merge tokens into morphed tokens (Eq. 3), differentiably.

        Args:
            x: Floating point (B, N, C). Half precision is summed in float32.
            reduce: 'sum', as Eq. (3) is printed, or 'mean' over the group.

        Returns:
            (B, N_m, C) in the dtype of ``x``.

        Raises:
            ValueError: If the shape or dtype of ``x`` does not fit, or
                ``reduce`` is unknown.
        """
        check_option(reduce, ('mean', 'sum'), 'reduce')
        check_tokens(x, 'x')
        self._check_positions(x, self.num_tokens, 'x')
        values = x.to(working_dtype(x.dtype))
        (morphed,), _ = morph_levels([self], [values], reduce)
        return morphed.view(self.batch_size, self.num_morphed, -1).to(x.dtype)

    def unmorph(self, y: Tensor) -> Tensor:
        """Give every token what its morphed token holds, differentiably.

        Args:
            y: Floating point (B, N_m, C).

        Returns:
            (B, N, C) in the dtype of ``y``.

        Raises:
            ValueError: If the shape or dtype of ``y`` does not fit.
        """
        check_tokens(y, 'y')
        self._check_positions(y, self.num_morphed, 'y')
        rows = Groups([self.labels], [self.num_morphed]).spread(y.flatten(0, 1))
        return rows.view(self.batch_size, self.num_tokens, -1)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the paper's M, (B, N_m, N): m_ij = 1 where token j is in i."""
        groups = torch.arange(self.num_morphed, device=self.labels.device)
        return (self.labels.unsqueeze(1) == groups.view(1, -1, 1)).to(dtype)

    def _check_positions(self, x: Tensor, count: int, name: str) -> None:
        if x.shape[:2] != (self.batch_size, count):
            raise ValueError(
                f'{name} has shape {tuple(x.shape)}, which does not fit {self}. Give '
                f'({self.batch_size}, {count}, C).'
            )


def morph_levels(
    assignments: Sequence[TokenAssignment], tensors: Sequence[Tensor], reduce: str
) -> tuple[list[Tensor], Tensor]:
    """Merge tokens at several levels, sorting the labels of all of them at once.

    Args:
        assignments: one per level, for the same B and N.
        tensors: float32 or float64 (B, N, C) each, whose tokens are merged alike.
        reduce: 'sum' or 'mean', as of `TokenAssignment.morph`.

    Returns:
        Morphed tokens (G, C) of each tensor, level by level and image by image,
        and the groups' sizes, (G,). Of a subclass of `TokenAssignment` they are
        what its `morph` and `sizes` say.
    """
    if any(type(assignment) is not TokenAssignment for assignment in assignments):
        sizes = torch.cat([each.sizes().flatten() for each in assignments])
        return [
            torch.cat([each.morph(x, reduce).flatten(0, 1) for each in assignments])
            for x in tensors
        ], sizes
    groups = Groups(
        [each.labels for each in assignments],
        [each.num_morphed for each in assignments],
    )
    sizes, morphed = groups.sizes(), [groups.sum(x) for x in tensors]
    if reduce == 'mean':
        count = sizes.clamp(min=1).unsqueeze(1)
        morphed = [sums / count for sums in morphed]
    return morphed, sizes
