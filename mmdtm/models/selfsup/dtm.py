"""Masked Image Modeling via Dynamic Token Morphing (arXiv 2401.00254)."""

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmdtm.models.backbones.student import check_student, patch_tokens

from .branch import MaskedInput, attach_tower, first_view, head_config, require_mask


@MODELS.register_module()
class DTM(MaskedInput, BaseSelfSupervisor):
    """Pre-train a backbone to match a teacher's tokens group by group (section 4).

    The student sees a masked image, the frozen teacher the whole one. Tokens
    that the teacher finds alike are merged into random numbers of groups, on
    both sides by the teacher's grouping, and the merged tokens are compared.

    Args:
        backbone: Config of the student: a ``DTMPretrainViT`` or any that keeps the
            contract of :class:`~mmdtm.models.backbones.student.Student`.
        head: Config of the ``DTMHead``; ``in_channels`` defaults to the
            student's width and ``out_channels`` to the teacher's. With its
            ``grid_size`` the online tokens are of a finer grid than the student's.
        target_generator: Config of the teacher.
        morphing: Config of the morphing; ``IdentityMorphing`` gives the
            token-wise baseline of tables 4 and 8. None for a teacher that
            merges tokens itself, layer by layer.
        data_preprocessor: Config of a ``DTMDataPreprocessor``.
        compile: Compile the student's and the teacher's forward pass, each into
            one graph: True, or a dict of options of ``torch.compile``. A teacher
            that merges layer by layer is left out: its schedule changes in every
            step.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If the backbone does not keep the contract, the teacher's token
            grid cannot be made the student's, or ``morphing`` is missing or
            superfluous.
    """

    masked = True  # the student takes masks

    def __init__(
        self,
        backbone: dict,
        head: dict,
        target_generator: dict,
        morphing: dict | None,
        data_preprocessor: dict,
        compile: bool | dict = False,
        init_cfg: dict | None = None,
    ) -> None:
        student = MODELS.build(backbone)
        check_student(student, self.masked)
        teacher = MODELS.build(target_generator)
        teacher.check_morphing(morphing)
        super().__init__(
            backbone=student,
            head=head_config(head, student, teacher.out_channels),
            target_generator=teacher,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.morphing = None if morphing is None else MODELS.build(morphing)
        attach_tower(teacher, student, self.data_preprocessor, self.head)
        if compile:
            # In place: no name of a parameter changes, and DDP wraps what is compiled.
            options = dict(fullgraph=True, dynamic=False) | (
                compile if isinstance(compile, dict) else {}
            )
            student.compile(**options)
            if morphing is not None:
                teacher.extract_tokens = torch.compile(
                    teacher.extract_tokens, **options
                )

    def extract_feat(self, inputs: torch.Tensor | list) -> tuple[torch.Tensor, ...]:
        """The student's features of unmasked images, of the first view if several."""
        return self.backbone(first_view(inputs))

    def loss(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
        mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """One step of the paper's section 4, in its order.

        Args:
            inputs: The student's and the teacher's view, (B, 3, H, W) each.
            data_samples: Unused.
            mask: Bool (B, h, w), True where the student's patches are masked.

        Returns:
            ``loss``, a scalar.
        """
        student_view, teacher_view = inputs
        tokens = self.student_tokens(student_view, mask)
        target, assignments = self.target_generator.targets(teacher_view, self.morphing)
        return dict(loss=self.head.loss(tokens, target, assignments))

    def student_tokens(
        self, view: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The student's patch tokens of the masked image, (B, N, C)."""
        return patch_tokens(self.backbone, self.backbone(view, require_mask(mask)))
