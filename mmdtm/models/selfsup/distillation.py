"""DTM without masks: a student that imitates its teacher (table 2)."""

import torch
from mmpretrain.registry import MODELS

from mmdtm.models.backbones.student import patch_tokens

from .dtm import DTM


@MODELS.register_module()
class DTMDistillation(DTM):
    """The student sees the whole image, as its teacher does; all else is DTM.

    Args:
        backbone: Config of the student, a ``DTMViT`` with ``out_type='raw'``
            and ``final_norm=True``. It has no mask token, which would never
            get a gradient.
        **kwargs: See :class:`DTM`.
    """

    masked = False

    def student_tokens(
        self, view: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The student's patch tokens of the whole image, (B, N, C)."""
        return patch_tokens(self.backbone, self.backbone(view))
