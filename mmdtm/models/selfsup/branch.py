"""DTM as an addition to another framework's loss (table 3)."""

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import nn

from .dtm import build_head, build_supervision, supervise


class DTMBranch(BaseModule):
    """Morphing, projection and loss, and the teacher where there is one.

    Args:
        backbone: The student, built; see :class:`DTM` for what it must have.
        morphing: Config of the morphing, or None for a teacher that merges
            tokens itself.
        head: Config of the ``DTMHead``; by default its widths are the
            student's and the teacher's.
        target_generator: Config of the teacher. None where the framework
            brings target tokens of the student's own width.
        weight: Of this loss beside the framework's, at least 0.

    Raises:
        ValueError: If ``weight`` is negative; see also :class:`DTM`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        morphing: dict | None,
        head: dict | None = None,
        target_generator: dict | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(
                f'The weight of the DTM loss must be at least 0, got {weight}.'
            )
        self.weight = weight
        head, width = head or dict(type='DTMHead'), backbone.embed_dims
        if target_generator is None:
            self.teacher, self.morphing = None, MODELS.build(morphing)
            self.head = MODELS.build(dict(in_channels=width, out_channels=width) | head)
        else:
            self.teacher, self.morphing = build_supervision(
                target_generator, morphing, backbone
            )
            self.head = build_head(head, width, self.teacher)

    def loss_on_view(self, tokens: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """The weighted loss against the teacher's tokens of an image.

        Args:
            tokens: The student's patch tokens (B, N, C).
            view: (B, 3, H, W) normalised for the teacher.

        Returns:
            Tensor: A scalar.
        """
        target, assignments = supervise(self.teacher, self.morphing, view)
        return self.weight * self.head.loss(tokens, target, assignments)

    def loss_on_tokens(
        self, tokens: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """The weighted loss against given target tokens, which get no gradient.

        Args:
            tokens: The student's patch tokens (B, N, C).
            target: Target tokens (B, N, C).

        Returns:
            Tensor: A scalar.
        """
        target = target.detach()
        return self.weight * self.head.loss(tokens, target, self.morphing(target))
