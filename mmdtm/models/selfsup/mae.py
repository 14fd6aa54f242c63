"""MAE that predicts a teacher's tokens, with or without DTM (table 3)."""

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from .dtm import DTM


@MODELS.register_module()
class MAEDTM(DTM):
    """mmpretrain's MAE with a teacher's tokens as the target instead of pixels.

    The encoder sees the visible patches alone; the decoder puts them and mask
    tokens in the image's order, and DTM's head projects what it gives to the
    teacher's width. As in DTM, and unlike MAE's pixels, every position counts,
    visible or masked: a morphed token has members of both kinds. With
    ``IdentityMorphing`` it is MAE with a CLIP target.

    Args:
        backbone: Config of a ``MAEViT``.
        neck: Config of a ``MAEPretrainDecoder``. Its last linear layer, to
            pixels, gives way to the head's.
        head: Config of the ``DTMHead``; ``in_channels`` defaults to the
            decoder's width.
        **kwargs: See :class:`DTM`.
    """

    def __init__(self, backbone: dict, neck: dict, head: dict, **kwargs) -> None:
        neck = MODELS.build(neck)
        width = neck.decoder_pred.in_features
        neck.decoder_pred = nn.Identity()
        super().__init__(
            backbone=backbone, head=dict(in_channels=width) | head, **kwargs
        )
        self.neck = neck

    def extract_feat(self, inputs: torch.Tensor | list) -> tuple[torch.Tensor, ...]:
        """The encoder's features of unmasked images; see :class:`DTM`."""
        images = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        return self.backbone(images, mask=None)

    def student_tokens(
        self, view: torch.Tensor, data_samples: list[DataSample]
    ) -> torch.Tensor:
        """The decoder's tokens in the image's order, (B, N, C)."""
        latent, _, ids_restore = self.backbone(view)  # draws its own mask
        return self.neck(latent, ids_restore)
