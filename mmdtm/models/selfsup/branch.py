"""DTM as an addition to another framework (table 3), and what that takes."""

from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmdtm.models.target_generators.frozen import FrozenTower


class DTMBranch(BaseModule):
    """Teacher, morphing, projection and loss beside a framework's own parts.

    Args:
        backbone: The student, built; see :class:`DTM` for what it must have.
        data_preprocessor: A ``DTMDataPreprocessor``, built, which is told to
            make the teacher's view of the images. Unused without a teacher.
        morphing: Config of the morphing, or None for a teacher that merges
            tokens itself.
        target_generator: Config of the teacher. None where the framework
            brings target tokens of the student's own width.
        head: Config of the ``DTMHead``; by default its widths are the tokens'
            and the teacher's.
        weight: Of this loss beside the framework's, at least 0.
        in_channels: Width C of the tokens given to :meth:`loss`. Defaults to
            the student's.

    Raises:
        ValueError: If ``weight`` is negative, or ``morphing`` is missing; see also
            :class:`DTM`.
    """

    def __init__(
        self,
        backbone: Any,
        data_preprocessor: Any,
        morphing: dict | None,
        target_generator: dict | None = None,
        head: dict | None = None,
        weight: float = 1.0,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(
                f'The weight of the DTM loss is {weight}. Give one of at least 0.'
            )
        self.weight = weight
        self.target_generator: Any = None
        out_channels = backbone.embed_dims
        if target_generator is not None:
            teacher = MODELS.build(target_generator)
            teacher.check_morphing(morphing)
            self.target_generator, out_channels = teacher, teacher.out_channels
        elif morphing is None:
            raise ValueError(
                'The DTM branch has no target_generator that could merge tokens. Give '
                "a morphing, such as morphing=dict(type='BipartiteMorphing')."
            )
        self.morphing: Any = None if morphing is None else MODELS.build(morphing)
        head = head_config(head or {}, backbone, out_channels, in_channels)
        self.head: Any = MODELS.build(dict(type='DTMHead') | head)
        if self.target_generator is not None:
            attach_tower(self.target_generator, backbone, data_preprocessor, self.head)

    def loss(self, tokens: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The weighted loss of the student's tokens.

        Args:
            tokens: The student's patch tokens (B, N, C), in the image's order.
            target: The teacher's view of the images, (B, 3, H, W); without a
                teacher the target tokens (B, N, C), which get no gradient.

        Returns:
            A scalar.
        """
        if self.target_generator is not None:
            target, assignments = self.target_generator.targets(target, self.morphing)
        else:
            target = target.detach()
            assignments = self.morphing(target)
        return self.weight * self.head.loss(tokens, target, assignments)


def head_config(
    head: dict, backbone: Any, out_channels: int, in_channels: int | None = None
) -> dict:
    """A head's config with the widths and the grid that follow from both sides.

    Args:
        head: What is given of it.
        backbone: The student, built.
        out_channels: Width D of the target tokens.
        in_channels: Width C of the student's; its ``embed_dims`` by default.
    """
    sizes = dict(
        in_channels=in_channels or backbone.embed_dims, out_channels=out_channels
    )
    if head.get('grid_size') is not None:
        sizes['student_grid'] = tuple(backbone.patch_resolution)
    return sizes | head


def attach_tower(
    tower: FrozenTower, backbone: Any, data_preprocessor: Any, head: Any = None
) -> None:
    """Let a frozen network see the student's images in the online tokens' grid.

    Args:
        tower: A teacher or a tokenizer.
        backbone: The student, built.
        data_preprocessor: Makes one more view, normalised for the network.
        head: Its ``grid_size``, if any, is the online tokens' grid; it is the
            student's own otherwise.

    Raises:
        ValueError: If the grids cannot be made equal, or the preprocessor makes
            no views.
    """
    if not hasattr(data_preprocessor, 'add_view'):
        raise ValueError(
            f'{type(data_preprocessor).__name__} makes no view of the images for '
            f'{type(tower).__name__}. Use the DTMDataPreprocessor.'
        )
    grid = getattr(head, 'grid_size', None) or backbone.patch_resolution
    tower.set_student_grid(tuple(grid), backbone.img_size)
    tower.view = data_preprocessor.add_view(tower.mean, tower.std)


def first_view(inputs: torch.Tensor | list) -> torch.Tensor:
    """The student's view (B, 3, H, W), which may be the first of several."""
    return inputs[0] if isinstance(inputs, (list, tuple)) else inputs


class MaskedInput(BaseSelfSupervisor):
    """Hands the batch's masks to ``loss``, for self-supervisors that need them."""

    def forward(
        self,
        inputs: torch.Tensor | list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
        mask: torch.Tensor | None = None,
    ):
        """See ``BaseSelfSupervisor``.

        Args:
            inputs: Images (B, 3, H, W), or the preprocessor's views of them.
            data_samples: Of the B images.
            mode: ``'tensor'`` for features, ``'loss'`` for losses.
            mask: Bool (B, h, w), True where a patch is masked.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples, mask=mask)
        return super().forward(inputs, data_samples, mode)

    def extract_feat(self, inputs: torch.Tensor | list) -> tuple[torch.Tensor, ...]:
        """The student's features of unmasked images, of the first view if several."""
        return self.backbone(first_view(inputs), mask=None)


def require_mask(mask: torch.Tensor | None) -> torch.Tensor:
    """The masks, if there are any.

    Raises:
        ValueError: If the batch came without masks.
    """
    if mask is None:
        raise ValueError(
            'The data samples hold no mask. Add a '
            'BlockMaskGenerator to the pipeline, before PackInputs.'
        )
    return mask
