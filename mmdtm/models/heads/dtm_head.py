"""The student's projection onto the teacher's token space."""

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import nn

from mmdtm.morphing import TokenAssignment


@MODELS.register_module()
class DTMHead(BaseModule):
    """A linear layer to the teacher's width, and the loss (paper, section 4).

    Args:
        in_channels: Width C of the student's tokens.
        out_channels: Width D of the teacher's tokens.
        loss: Config of the loss, called with (u, v, assignments).
        init_std: Standard deviation of the truncated normal initialisation.
        init_cfg: As in mmengine.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        loss: dict | None = None,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        init_cfg = init_cfg or dict(
            type='TruncNormal', layer='Linear', std=init_std, bias=0.0
        )
        super().__init__(init_cfg)
        self.projection = nn.Linear(in_channels, out_channels)
        self.loss_module = MODELS.build(loss or dict(type='DTMLoss'))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Project the student's tokens.

        Args:
            tokens: (B, N, C), visible and masked patches alike.

        Returns:
            Tensor: Online tokens u, (B, N, D).
        """
        return self.projection(tokens)

    def loss(
        self,
        tokens: torch.Tensor,
        target: torch.Tensor,
        assignments: list[TokenAssignment],
    ) -> torch.Tensor:
        """Loss between morphed online and morphed target tokens (Eq. 3-5).

        Args:
            tokens: The student's patch tokens (B, N, C).
            target: Target tokens v, (B, N, D).
            assignments: One per level l = 1..L.

        Returns:
            Tensor: A scalar.
        """
        return self.loss_module(self(tokens), target, assignments)
