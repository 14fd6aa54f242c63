"""MAE that predicts a teacher's tokens, with or without DTM (table 3)."""

import torch
from mmpretrain.models.selfsup import MAE
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from .branch import DTMBranch, MaskedInput


@MODELS.register_module()
class MAEDTM(MaskedInput, MAE):
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
        dtm: Arguments of :class:`DTMBranch`: ``target_generator``,
            ``morphing``, ...; the head's ``in_channels`` defaults to the
            decoder's width.
        data_preprocessor: Config of a ``DTMDataPreprocessor``.
        init_cfg: As in mmengine.

    Raises:
        ValueError: See :class:`DTMBranch`.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        dtm: dict,
        data_preprocessor: dict,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        width = self.neck.decoder_pred.in_features
        self.neck.decoder_pred = nn.Identity()
        self.dtm = DTMBranch(
            self.backbone, self.data_preprocessor, in_channels=width, **dtm
        )

    def loss(
        self, inputs: list[torch.Tensor], data_samples: list[DataSample], **kwargs
    ) -> dict[str, torch.Tensor]:
        """One training step.

        Args:
            inputs: The student's and the teacher's view, (B, 3, H, W) each.
            data_samples: Unused: the encoder draws its own mask.

        Returns:
            ``loss``, a scalar.
        """
        student_view, teacher_view = inputs
        latent, _, ids_restore = self.backbone(student_view)
        tokens = self.neck(latent, ids_restore)
        return dict(loss=self.dtm.loss(tokens, teacher_view))
