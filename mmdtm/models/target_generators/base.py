"""What every teacher has in common: frozen, unsaved, moved with the model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

if TYPE_CHECKING:
    from mmdtm.morphing import TokenAssignment


class TargetGenerator(nn.Module):
    """A frozen network that turns images into target tokens v.

    The teacher network is kept outside torch's module tree, as the plain
    attribute ``teacher``. Whatever walks that tree leaves it alone: state
    dicts and checkpoints hold no key of it (it would triple them) and loading
    misses none, optimizers and DDP see no parameter of it, ``init_weights``
    and SyncBatchNorm conversion cannot change it, and ``train()`` does not
    reach it. It does follow the model to its device, and a deep copy of the
    generator copies it too. Its weights stay in float32; on a CUDA device the
    forward pass runs in half precision under autocast.

    Sub-classes load the network, hand it to this constructor and implement
    :meth:`extract_tokens`, and :meth:`resize_teacher` where the network can
    run at another input size.

    Args:
        teacher (nn.Module): The network; frozen and put in eval mode here.
        mean (Sequence[float]): Three channel means, RGB, for pixels 0-255.
        std (Sequence[float]): Three channel deviations, RGB, for pixels 0-255.
        out_channels (int): D, the width of the target tokens.
        patch_size (tuple[int, int]): Height and width of a patch, in pixels.
        input_size (tuple[int, int]): Height and width of the images that the
            network is built for, in pixels.
        dtype (str, optional): 'float32', 'float16' or 'bfloat16', the
            precision of the forward pass. None: bfloat16 on a CUDA device
            that computes in it, float16 on any other CUDA device, and float32
            elsewhere. Targets are float32 in any case.

    Attributes:
        assigns_tokens (bool): Whether the generator groups tokens itself and
            returns ``(v, assignments)`` instead of v.

    Raises:
        ValueError: If ``dtype`` is none of these, or ``mean`` or ``std`` is
            not three numbers.
    """

    assigns_tokens = False

    def __init__(
        self,
        teacher: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        out_channels: int,
        patch_size: tuple[int, int],
        input_size: tuple[int, int],
        dtype: str | None = None,
    ) -> None:
        super().__init__()
        if dtype not in (None, 'float32', 'float16', 'bfloat16'):
            raise ValueError(
                f"The teacher's dtype is {dtype!r}; choose 'float32', 'float16' or "
                "'bfloat16', or None for what suits the device."
            )
        for name, values in (('mean', mean), ('std', std)):
            if len(values) != 3:
                raise ValueError(
                    f"The teacher's {name} has {len(values)} numbers; give three, one "
                    'per RGB channel, for pixels from 0 to 255.'
                )
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]
        self.out_channels = out_channels
        self.patch_size = tuple(patch_size)
        self.input_size = tuple(input_size)
        self.dtype = dtype
        self.image_size = self.input_size  # of the images that forward receives
        # Past nn.Module.__setattr__, which would register it.
        object.__setattr__(self, 'teacher', teacher.requires_grad_(False).eval())
        self._choose_precision()
        super().train(False)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the teacher's patch tokens."""
        return (
            self.input_size[0] // self.patch_size[0],
            self.input_size[1] // self.patch_size[1],
        )

    def extract_tokens(self, images: Tensor):
        """Run the teacher.

        Args:
            images (Tensor): float (B, 3, H, W), (H, W) being ``input_size``.

        Returns:
            Tensor: Patch tokens (B, N, D), row-major; with ``assigns_tokens``
            a tuple of them and a list of :class:`TokenAssignment`.
        """
        raise NotImplementedError

    def resize_teacher(self, input_size: tuple[int, int]) -> None:
        """Let the teacher take images of another size.

        Args:
            input_size (tuple[int, int]): Height and width in pixels, a
                multiple of ``patch_size``.

        Raises:
            ValueError: If the teacher cannot.
        """
        raise ValueError('it takes images of this size alone')

    def set_student_grid(
        self, grid_size: Sequence[int], img_size: int | Sequence[int]
    ) -> None:
        """Make the teacher's tokens lie where the student's lie.

        The student's images are resized to the teacher's input size. Where
        the teacher's own size gives another grid than the student's, the
        teacher is set to the size that gives the same one.

        Args:
            grid_size (Sequence[int]): Rows and columns of student tokens.
            img_size (int or Sequence[int]): Height and width of the student's
                images in pixels; one number means square.

        Raises:
            ValueError: If the grids cannot be made equal, or only by
                distorting the image.
        """
        grid_size = tuple(int(n) for n in grid_size)
        if isinstance(img_size, int):
            img_size = (img_size, img_size)
        img_size = tuple(int(n) for n in img_size)
        input_size = (
            grid_size[0] * self.patch_size[0],
            grid_size[1] * self.patch_size[1],
        )
        problem = (
            f'{type(self).__name__} has {_by(self.grid_size)} patches of '
            f'{_by(self.patch_size)} pixels, the student {_by(grid_size)} in images of '
            f'{_by(img_size)}, and the grids cannot be made equal: '
        )
        # Equal grids with another aspect ratio would target a squeezed image.
        if input_size[0] * img_size[1] != input_size[1] * img_size[0]:
            raise ValueError(
                problem + f'resizing the image to {_by(input_size)} would distort it. '
                "Choose a teacher whose patches have the shape of the student's."
            )
        if grid_size != self.grid_size:
            try:
                self.resize_teacher(input_size)
            except ValueError as error:
                raise ValueError(
                    problem + f'the teacher would need images of {_by(input_size)}, '
                    f'but {error}. Choose a student with {_by(self.grid_size)} patches '
                    'or another teacher.'
                ) from error
            print_log(
                f'{type(self).__name__} is set from {_by(self.grid_size)} to '
                f"{_by(grid_size)} patches, the student's; its position embeddings "
                f'are interpolated and images resized to {_by(input_size)}.',
                logger='current',
            )
            self.input_size = input_size
        self.image_size = img_size

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, list[TokenAssignment]]:
        """Compute the target tokens.

        Args:
            images (Tensor): float (B, 3, H, W), normalised with ``mean`` and
                ``std``; (H, W) is the student's image size given to
                :meth:`set_student_grid`, else the teacher's own.

        Returns:
            Tensor: v, float32 (B, N, D): patch tokens only, row-major. With
            ``assigns_tokens`` the tuple (v, assignments), one assignment per
            level.

        Raises:
            ValueError: If the images have another shape or are not float.
        """
        if (
            images.ndim != 4
            or images.shape[1:] != (3, *self.image_size)
            or not images.is_floating_point()
        ):
            raise ValueError(
                f'{type(self).__name__} expects normalised float images of shape '
                f'(B, 3, {self.image_size[0]}, {self.image_size[1]}), and got '
                f'{tuple(images.shape)} of {images.dtype}. The image size is set by '
                'set_student_grid.'
            )
        device_type = images.device.type
        with torch.autocast(device_type, enabled=False):
            images = images.float()
            if self.image_size != self.input_size:
                images = F.interpolate(
                    images,
                    size=self.input_size,
                    mode='bicubic',
                    antialias=True,
                    align_corners=False,
                )
        # The student's autocast must not choose the teacher's precision.
        half = self._precision != torch.float32
        with torch.autocast(
            device_type, dtype=self._precision if half else None, enabled=half
        ):
            output = self.extract_tokens(images)
        if self.assigns_tokens:
            tokens, assignments = output
            return tokens.float(), assignments
        return output.float()

    def train(self, mode: bool = True) -> TargetGenerator:
        """Stay in eval mode, whatever ``mode`` is."""
        return super().train(False)

    def extra_repr(self) -> str:
        return (
            f'{type(self.teacher).__name__} (frozen), tokens {_by(self.grid_size)} x '
            f'{self.out_channels}, input {_by(self.input_size)}, {self._precision}'
        )

    def _apply(self, fn, recurse: bool = True):
        """Follow the model to another device, but never to another dtype."""
        super()._apply(fn, recurse)
        device = next(self.teacher.parameters()).device
        self.teacher.to(fn(torch.empty(0, device=device)).device)
        self._choose_precision()
        return self

    def _choose_precision(self) -> None:
        device = next(self.teacher.parameters()).device
        if self.dtype is not None:
            self._precision = getattr(torch, self.dtype)
        elif device.type != 'cuda':
            self._precision = torch.float32
        elif torch.cuda.is_bf16_supported(including_emulation=False):
            self._precision = torch.bfloat16
        else:
            self._precision = torch.float16


def _by(size: Sequence[int]) -> str:
    return f'{size[0]}x{size[1]}'


@contextlib.contextmanager
def same_weights() -> Iterator[None]:
    """Draw weights that are the same in every run and process.

    The random state stays as it was, and a GPU's is not touched: neither the
    student's initialisation nor a resumed run may depend on what is drawn here, and
    ranks with seeds of their own keep them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def warn_of_random_weights(model: str) -> None:
    """Say loudly that a teacher's targets will mean nothing."""
    warnings.warn(
        f'RANDOM TEACHER: {model} is built without weights. Its targets mean nothing; '
        'use it only to try out whether a training runs.',
        stacklevel=3,
    )
