"""From the student's tokens to the loss; importing registers the classes."""

from collections.abc import Sequence
from typing import Any, ClassVar

from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.morphing import TokenAssignment, dtm_loss


@MODELS.register_module()
class DTMHead(BaseModule):
    """A linear layer to the teacher's width, and the loss (paper, section 4).

    A hierarchical student has fewer positions than its teacher has tokens: 7 x 7 at
    stride 32 against 14 x 14. With ``grid_size`` the linear layer gives each position
    the tokens of its r x r cells, and a pixel shuffle puts them in their places.

    Args:
        in_channels: Width C of the student's tokens.
        out_channels: Width D of the teacher's tokens.
        loss: Config of the loss, called with (u, v, assignments).
        grid_size: Rows and columns of the online tokens, a multiple of the student's;
            one number means square. None: the student's own.
        student_grid: Rows and columns of the student's tokens; DTM fills it in. Needed
            with ``grid_size``.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If ``grid_size`` is not a multiple of ``student_grid``.
    """

    smoke: ClassVar[dict] = dict(
        grid_size=lambda grid: grid and [2 * n // 7 for n in to_2tuple(grid)]
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        loss: dict | None = None,
        grid_size: int | tuple[int, int] | None = None,
        student_grid: tuple[int, int] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            # BEiT's start, as in the backbone: cut at one deviation.
            or dict(
                type='TruncNormal', layer='Linear', std=0.02, a=-0.02, b=0.02, bias=0.0
            )
        )
        self.grid_size: Any = None if grid_size is None else tuple(to_2tuple(grid_size))
        self.student_grid = student_grid
        self.cells = 1 if self.grid_size is None else self._cells()
        self.projection = nn.Linear(in_channels, out_channels * self.cells**2)
        self.loss_module = MODELS.build(loss or dict(type='DTMLoss'))

    def _cells(self) -> int:
        """r: each position becomes r x r tokens."""
        rows, columns = self.grid_size
        student = self.student_grid
        if student is not None:
            cells = rows // student[0]
            if cells and (rows, columns) == (cells * student[0], cells * student[1]):
                return cells
        own = 'an unknown number of' if student is None else '{} x {}'.format(*student)
        raise ValueError(
            f'The student has {own} positions and {type(self).__name__} is to give '
            f'{rows} x {columns} tokens: no position would have r x r of them. Set '
            "grid_size of the head to a multiple of the student's grid (the teacher "
            'follows it), or img_size of the student so that its grid divides the '
            "head's."
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Project the student's tokens to online tokens u.

        Args:
            tokens: (B, N, C).

        Returns:
            (B, N * r**2, D), row-major in the online tokens' grid.
        """
        tokens = self.projection(tokens)
        if self.cells == 1:
            return tokens
        r = self.cells
        # (B, h * w, r * r * D) -> (B, h, r, w, r, D)
        tokens = tokens.unflatten(2, (r, r, -1)).unflatten(1, self.student_grid)
        return tokens.transpose(2, 3).flatten(1, 4)

    def loss(
        self, tokens: Tensor, target: Tensor, assignments: Sequence[TokenAssignment]
    ) -> Tensor:
        """Loss between morphed online and morphed target tokens (Eq. 3-5).

        Args:
            tokens: The student's patch tokens (B, N, C), visible and masked alike.
            target: Target tokens v, (B, N, D).
            assignments: One per level l = 1..L.

        Returns:
            A scalar.
        """
        return self.loss_module(self(tokens), target, assignments)


@MODELS.register_module()
class DTMLoss(nn.Module):
    """``mmdtm.morphing.dtm_loss`` (Eq. 3-5) with its options kept.

    A loss that is not finite is returned, not raised: the training loop
    watches for it, and knows the step and the images.

    Args:
        distance: 'cosine', 'l1', 'l2' or 'smooth_l1' (table 10).
        reduction: 'mean' over tokens and levels, or 'sum' as Eq. (4-5) print.
        beta: Of smooth l1.
        group_reduction: 'mean' or, as Eq. (3) is printed, 'sum' of the tokens of
            a group.

    Raises:
        ValueError: If an option is wrong, in the first step, from ``dtm_loss``.
    """

    def __init__(
        self,
        distance: str = 'cosine',
        reduction: str = 'mean',
        beta: float = 2.0,
        group_reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = dict(
            distance=distance,
            reduction=reduction,
            beta=beta,
            group_reduction=group_reduction,
        )

    def forward(
        self, online: Tensor, target: Tensor, assignments: Sequence[TokenAssignment]
    ) -> Tensor:
        """Compare online and target tokens, (B, N, D) each; return a scalar."""
        return dtm_loss(online, target, assignments, check_finite=False, **self.options)

    def extra_repr(self) -> str:
        return ', '.join(f'{name}={value!r}' for name, value in self.options.items())
