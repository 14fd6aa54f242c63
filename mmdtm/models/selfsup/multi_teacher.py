"""DTM with several teachers at once (beyond the paper)."""

from typing import Any

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from .branch import DTMBranch
from .dtm import DTM


@MODELS.register_module()
class MultiTeacherDTM(DTM):
    """Match several teachers, each with a morphing and a head of its own.

    The student runs once. The losses are added, each with its weight beside 1 for the
    first teacher's, which is configured as in :class:`DTM`. Each teacher is set to the
    grid of its own head: the student's, or the head's ``grid_size``.

    Args:
        more_teachers: By name, the arguments of a :class:`DTMBranch` for each further
            teacher: ``target_generator``, ``morphing``, ``head`` and ``weight``.
        **kwargs: See :class:`DTM`.

    Raises:
        ValueError: See :class:`DTM` and :class:`DTMBranch`.
    """

    def __init__(self, more_teachers: dict[str, dict], **kwargs) -> None:
        super().__init__(**kwargs)
        self.more_teachers: Any = nn.ModuleDict(
            {
                name: DTMBranch(self.backbone, self.data_preprocessor, **branch)
                for name, branch in more_teachers.items()
            }
        )

    def loss(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
        mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """One step; see :meth:`DTM.loss`.

        Args:
            inputs: Views (B, 3, H, W) of the student and of each teacher in order.
            data_samples: Unused.
            mask: Bool (B, h, w), True where the student's patches are masked.

        Returns:
            ``loss`` of the first teacher and ``loss_NAME`` of each other; scalars.
        """
        student_view, teacher_view, *more_views = inputs
        tokens = self.student_tokens(student_view, mask)
        target, assignments = self.target_generator.targets(teacher_view, self.morphing)
        losses = dict(loss=self.head.loss(tokens, target, assignments))
        branches = zip(self.more_teachers.items(), more_views, strict=True)
        for (name, branch), view in branches:
            losses[f'loss_{name}'] = branch.loss(tokens, view)
        return losses
