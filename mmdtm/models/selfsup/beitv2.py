"""BEiT v2, without and with DTM (table 3)."""

import torch
from mmpretrain.models.selfsup import BEiT
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from .branch import DTMBranch, MaskedInput, attach_tower, require_mask


@MODELS.register_module()
class BEiTv2DTM(MaskedInput, BEiT):
    """mmpretrain's BEiT v2 with its tokenizer kept frozen, and DTM beside.

    BEiT v2 predicts the tokenizer's codes of the masked patches, from the last
    layer and from its neck. DTM's loss is added on the last layer's tokens of
    all patches, after the norm that the neck and this share, projected to the
    teacher's width. Without DTM the losses are mmpretrain's own.

    Args:
        backbone: Config of a ``BEiTPretrainViT`` with two outputs.
        neck: Config of a ``BEiTV2Neck``.
        head: Config of a ``BEiTV2Head``.
        target_generator: Config of a ``VQKDGenerator``, the tokenizer.
        data_preprocessor: Config of a ``DTMDataPreprocessor``.
        dtm: Arguments of :class:`DTMBranch`: ``target_generator``,
            ``morphing``, ...; None for BEiT v2 alone.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If the grid of the tokenizer or the teacher cannot be made
            the student's; see also :class:`DTMBranch`.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        target_generator: dict,
        data_preprocessor: dict,
        dtm: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            target_generator=target_generator,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        attach_tower(self.target_generator, self.backbone, self.data_preprocessor)
        self.dtm = None
        if dtm is not None:
            self.dtm = DTMBranch(self.backbone, self.data_preprocessor, **dtm)

    def loss(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
        mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """One training step.

        Args:
            inputs: Views (B, 3, H, W) of the student, the tokenizer and, with
                DTM, the teacher.
            data_samples: Unused.
            mask: Bool (B, h, w), True where the student's patches are masked.

        Returns:
            ``loss_1`` and ``loss_2``, BEiT v2's own, and ``loss_dtm``; scalars.
        """
        student_view, tokenizer_view, *teacher_view = inputs
        mask = require_mask(mask)
        latent = self.backbone(student_view, mask)
        codes = self.target_generator(tokenizer_view)
        tokens, early_tokens = self.neck(
            latent, rel_pos_bias=self.backbone.shared_rel_pos_bias
        )
        loss_1, loss_2 = self.head.loss(tokens, early_tokens, codes, mask)
        losses = dict(loss_1=loss_1, loss_2=loss_2)
        if self.dtm is not None:
            losses['loss_dtm'] = self.dtm.loss(tokens, *teacher_view)
        return losses
