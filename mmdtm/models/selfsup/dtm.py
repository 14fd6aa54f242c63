"""Masked Image Modeling via Dynamic Token Morphing (arXiv 2401.00254)."""

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mmdtm.morphing import TokenAssignment


@MODELS.register_module()
class DTM(BaseSelfSupervisor):
    """Pre-train a ViT to match a teacher's tokens group by group (section 4).

    The student sees a masked image, the frozen teacher the whole one. Tokens
    that the teacher finds alike are merged into random numbers of groups, on
    both sides by the teacher's grouping, and the merged tokens are compared.

    Args:
        backbone: Config of the student, a ``DTMPretrainViT``.
        head: Config of the ``DTMHead``; ``in_channels`` defaults to the
            student's width and ``out_channels`` to the teacher's.
        target_generator: Config of the teacher.
        morphing: Config of the morphing; ``IdentityMorphing`` gives the
            token-wise baseline of tables 4 and 8. None for a teacher that
            merges tokens itself, layer by layer.
        data_preprocessor: Config of a ``DTMDataPreprocessor``.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If the teacher's token grid cannot be made the student's,
            or ``morphing`` is missing or superfluous.
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        target_generator: dict,
        morphing: dict | None,
        data_preprocessor: dict,
        init_cfg: dict | None = None,
    ) -> None:
        backbone = MODELS.build(backbone)
        teacher, morphing = build_supervision(target_generator, morphing, backbone)
        super().__init__(
            backbone=backbone,
            head=build_head(head, backbone.embed_dims, teacher),
            target_generator=teacher,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.morphing = morphing
        adopt_normalisation(self.data_preprocessor, teacher)

    def extract_feat(self, inputs: torch.Tensor | list) -> tuple[torch.Tensor, ...]:
        """The student's features of unmasked images.

        Args:
            inputs: (B, 3, H, W) normalised for the student, or the
                preprocessor's pair of views.

        Returns:
            tuple[Tensor]: One tensor per output stage of the backbone.
        """
        images = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        return self.backbone(images)

    def loss(
        self, inputs: list[torch.Tensor], data_samples: list[DataSample], **kwargs
    ) -> dict[str, torch.Tensor]:
        """One step of the paper's section 4, in its order.

        Args:
            inputs: The student's and the teacher's view, (B, 3, H, W) each.
            data_samples: B samples that hold a ``mask`` (h, w), 1 = masked.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar.
        """
        student_view, teacher_view = inputs
        tokens = self.student_tokens(student_view, data_samples)
        target, assignments = supervise(
            self.target_generator, self.morphing, teacher_view
        )
        return dict(loss=self.head.loss(tokens, target, assignments))

    def student_tokens(
        self, view: torch.Tensor, data_samples: list[DataSample]
    ) -> torch.Tensor:
        """The student's patch tokens of the masked image, (B, N, C)."""
        mask = stack_masks(data_samples, view.device)
        latent = self.backbone(view, mask)[-1]
        return latent[:, self.backbone.num_extra_tokens :]


def supervise(
    teacher: nn.Module, morphing: nn.Module | None, view: torch.Tensor
) -> tuple[torch.Tensor, list[TokenAssignment]]:
    """Target tokens and their grouping, decided on the teacher's side alone.

    Args:
        teacher: A target generator.
        morphing: A morphing, or None if the teacher merges by itself.
        view: (B, 3, H, W) normalised for the teacher.

    Returns:
        tuple: Target tokens v (B, N, D) and M^1..M^L, both without gradient.
    """
    if morphing is None:
        return teacher(view)
    target = teacher(view)
    return target, morphing(target)


def stack_masks(data_samples: list[DataSample], device: torch.device) -> torch.Tensor:
    """The batch's masks as one boolean tensor (B, h, w) on the device.

    Raises:
        ValueError: If the samples hold no mask.
    """
    if not data_samples or 'mask' not in data_samples[0]:
        raise ValueError(
            'The data samples hold no mask: the pipeline needs a '
            'BlockMaskGenerator before PackInputs.'
        )
    masks = torch.stack([sample.mask for sample in data_samples])
    return masks.to(device, dtype=torch.bool, non_blocking=True)


def build_supervision(
    target_generator: dict, morphing: dict | None, backbone: nn.Module
) -> tuple[nn.Module, nn.Module | None]:
    """Build the teacher and its morphing for this student.

    Raises:
        ValueError: See :class:`DTM`.
    """
    teacher = MODELS.build(target_generator)
    if teacher.assigns_tokens != (morphing is None):
        name = type(teacher).__name__
        raise ValueError(
            f'{name} merges tokens itself: set morphing=None.'
            if teacher.assigns_tokens
            else f'{name} does not merge tokens: give a morphing, for instance '
            "dict(type='BipartiteMorphing')."
        )
    teacher.set_student_grid(tuple(backbone.patch_resolution), backbone.img_size)
    return teacher, None if morphing is None else MODELS.build(morphing)


def build_head(head: dict, embed_dims: int, teacher: nn.Module) -> nn.Module:
    """Build a head whose widths default to the student's and the teacher's."""
    head = dict(in_channels=embed_dims, out_channels=teacher.out_channels) | head
    return MODELS.build(head)


def adopt_normalisation(preprocessor: nn.Module, teacher: nn.Module) -> None:
    """Normalise the teacher's view as the teacher was trained, unless told."""
    if not preprocessor.has_target_norm:
        preprocessor.set_target_norm(teacher.mean, teacher.std)
