"""Several teachers as one: their tokens side by side (beyond the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.models.target_generators.base import Teacher


@MODELS.register_module()
class ConcatGenerator(Teacher, nn.Module):
    """The tokens of several teachers, concatenated.

    A token of each has length 1, so that the cosine similarity of two concatenated
    tokens, by which they are grouped and compared, is the mean of the teachers'
    similarities, whatever the scales of these. All teachers get the student's grid.

    Args:
        teachers: Configs of two or more.

    Raises:
        ValueError: If there are fewer than two, or one merges tokens itself; see also
            the teachers.
    """

    scales: Tensor
    shifts: Tensor

    def __init__(self, teachers: Sequence[dict]) -> None:
        super().__init__()
        built: list[Any] = [MODELS.build(cfg) for cfg in teachers]
        if len(built) < 2:
            raise ValueError(
                f'ConcatGenerator has {len(built)} teacher(s). Give two or '
                'more, or the one as target_generator itself.'
            )
        self.teachers: Any = nn.ModuleList(built)
        self.mean, self.std = built[0].mean, built[0].std
        # From the first teacher's view to each one's.
        means = torch.tensor([teacher.mean for teacher in built])
        stds = torch.tensor([teacher.std for teacher in built])
        scales, shifts = stds[0] / stds, (means[0] - means) / stds
        self.register_buffer('scales', scales[..., None, None], persistent=False)
        self.register_buffer('shifts', shifts[..., None, None], persistent=False)
        self.out_channels = sum(teacher.out_channels for teacher in built)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return self.teachers[0].grid_size

    def set_student_grid(
        self, grid_size: Sequence[int], img_size: int | Sequence[int]
    ) -> None:
        for teacher in self.teachers:
            teacher.set_student_grid(grid_size, img_size)

    def check_morphing(self, morphing: object | None) -> None:
        """See :meth:`Teacher.check_morphing`, for each teacher."""
        for teacher in self.teachers:
            teacher.check_morphing(morphing)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the target tokens.

        Args:
            images: float (B, 3, H, W), normalised with the first teacher's mean and
                standard deviation.

        Returns:
            v, float32 (B, N, D), D being the sum of the teachers'.
        """
        parts = zip(self.teachers, self.scales, self.shifts, strict=True)
        tokens = [teacher(images * scale + shift) for teacher, scale, shift in parts]
        return torch.cat([F.normalize(v, dim=2) for v in tokens], dim=2)
