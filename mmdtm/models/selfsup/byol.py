"""BYOL with a ViT, without and with DTM (table 3)."""

from typing import Any

import torch
from mmpretrain.models.selfsup import BYOL
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from .branch import DTMBranch, first_view


@MODELS.register_module()
class BYOLDTM(BYOL):
    """mmpretrain's BYOL on the class token, and DTM on the patch tokens.

    BYOL compares whole images: the projected class token of one view with the
    momentum encoder's of the other. DTM compares tokens, which two different
    crops do not share; so its targets are the momentum encoder's patch tokens
    of the same view. Its head is their predictor, as BYOL's is the class
    token's. Without DTM the loss is mmpretrain's own.

    Args:
        backbone: Config of a ViT with ``out_type='raw'``.
        neck: Config of the projector, on (B, C).
        head: Config of a ``LatentPredictHead``.
        dtm: Arguments of :class:`DTMBranch`: ``morphing``, ``weight``, ...,
            but no ``target_generator``; None for BYOL alone.
        **kwargs: See mmpretrain's ``BYOL``.
    """

    def __init__(
        self, backbone: dict, neck: dict, head: dict, dtm: dict | None = None, **kwargs
    ) -> None:
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.dtm = None
        if dtm is not None:
            self.dtm = DTMBranch(
                self.backbone, self.data_preprocessor, target_generator=None, **dtm
            )

    def extract_feat(self, inputs: torch.Tensor | list) -> tuple[torch.Tensor, ...]:
        """The online encoder's features, of the first view if several."""
        return self.backbone(first_view(inputs))

    def loss(
        self, inputs: list[torch.Tensor], data_samples: list[DataSample], **kwargs
    ) -> dict[str, torch.Tensor]:
        """One training step; the momentum encoder is updated first.

        Args:
            inputs: Two views of each image, (B, 3, H, W) each.
            data_samples: Unused.

        Returns:
            ``loss``, BYOL's own, and ``loss_dtm``; scalars.
        """
        online = [encode(self.backbone, self.neck, view) for view in inputs]
        with torch.no_grad():
            self.target_net.update_parameters(nn.Sequential(self.backbone, self.neck))
            momentum_backbone, momentum_neck = self.target_net.module
            target = [encode(momentum_backbone, momentum_neck, view) for view in inputs]

        (image_1, tokens_1), (image_2, tokens_2) = online
        (target_1, target_tokens_1), (target_2, target_tokens_2) = target
        loss_1 = self.head.loss(image_1, target_2)
        loss_2 = self.head.loss(image_2, target_1)
        losses = dict(loss=2.0 * (loss_1 + loss_2))
        if self.dtm is not None:
            dtm_1 = self.dtm.loss(tokens_1, target_tokens_1)
            dtm_2 = self.dtm.loss(tokens_2, target_tokens_2)
            losses['loss_dtm'] = (dtm_1 + dtm_2) / 2
        return losses


def encode(
    backbone: Any, neck: nn.Module, view: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The projected class token (B, P) and the patch tokens (B, N, C)."""
    latent = backbone(view)[-1]
    return neck((latent[:, 0],))[0], latent[:, backbone.num_extra_tokens :]
