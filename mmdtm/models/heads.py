"""From the student's tokens to the loss; importing registers the classes."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.morphing import TokenAssignment, dtm_loss


@MODELS.register_module()
class DTMHead(BaseModule):
    """A linear layer to the teacher's width, and the loss (paper, section 4).

    Args:
        in_channels: Width C of the student's tokens.
        out_channels: Width D of the teacher's tokens.
        loss: Config of the loss, called with (u, v, assignments).
        init_cfg: As in mmengine.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        loss: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            # BEiT's start, as in the backbone: cut at one deviation.
            or dict(
                type='TruncNormal', layer='Linear', std=0.02, a=-0.02, b=0.02, bias=0.0
            )
        )
        self.projection = nn.Linear(in_channels, out_channels)
        self.loss_module = MODELS.build(loss or dict(type='DTMLoss'))

    def forward(self, tokens: Tensor) -> Tensor:
        """Project the student's tokens (B, N, C) to online tokens u, (B, N, D)."""
        return self.projection(tokens)

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
