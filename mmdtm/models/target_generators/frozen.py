"""Networks that are run and never trained: frozen, unsaved, moved with the model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdtm.models.target_generators.half_weights import (
    HalfWeight,
    find_half_weights,
    in_place,
)


class Tower(NamedTuple):
    """A network, and what its images and patches are like.

    Attributes:
        network: Gives something for each patch of an image.
        patch_size: Height and width of a patch, in pixels.
        input_size: Height and width of the images it is built for, in pixels.
        mean: Three channel means, RGB, for pixels 0-255.
        std: Three channel deviations, RGB, for pixels 0-255.
        out_channels: D, the width of its tokens, if it gives tokens.
    """

    network: nn.Module
    patch_size: tuple[int, int]
    input_size: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    out_channels: int | None = None


class FrozenTower(nn.Module):
    """A frozen network that runs on a view of the student's images.

    The network is kept outside torch's module tree, as the plain attribute
    ``teacher``. Whatever walks that tree leaves it alone: state dicts and
    checkpoints hold no key of it (it would triple them) and loading misses
    none, optimizers and DDP see no parameter of it, ``init_weights`` and
    SyncBatchNorm conversion cannot change it, and ``train()`` does not reach
    it. It does follow the model to its device, and a deep copy copies it too.
    Its weights stay in float32; on a CUDA device the forward pass runs in half
    precision under autocast, which finds those that it would cast in every pass
    cast already: they are held in both precisions from the first pass on.

    Args:
        build: Called once, with ``weights`` or, for random weights, with
            None; builds the network and loads them. What it draws is the same
            in every run and process, and leaves the random state as it was.
        weights: What ``build`` loads, such as the path of a file.
        mean: Three channel means, RGB, for pixels 0-255. Defaults to the
            network's own.
        std: Likewise the deviations.
        dtype: 'float32', 'float16' or 'bfloat16', the precision of the forward
            pass. None: bfloat16 on a CUDA device that computes in it, float16
            on any other CUDA device, and float32 elsewhere.
        random_weights: Load nothing, to try things out: what the network gives
            means nothing, and a warning says so.

    Raises:
        ValueError: If there are neither ``weights`` nor ``random_weights``,
            ``dtype`` is none of these, or ``mean`` or ``std`` is not three
            numbers.
    """

    teacher: Any  # the network; its library does not say what is in it
    view: int  # which of the preprocessor's views it takes, once there is one
    _half_weights: list[HalfWeight] | None  # None before the first pass

    def __init__(
        self,
        build: Callable[[Any], Tower],
        weights: Any,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: str | None = None,
        random_weights: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if dtype not in (None, 'float32', 'float16', 'bfloat16'):
            raise ValueError(
                f"The dtype of {name} is {dtype!r}. Choose 'float32', 'float16' or "
                "'bfloat16', or None for what suits the device."
            )
        if random_weights:
            warnings.warn(
                f'RANDOM TEACHER: {name} is built without weights. Its targets mean '
                'nothing; use it only to try out whether a training runs.',
                stacklevel=2,
            )
        elif weights is None:
            raise ValueError(
                f'{name} has no weights. Give it the path of a file of them, or '
                'random_weights=True for targets without meaning.'
            )
        with same_weights():
            tower = build(None if random_weights else weights)
        self.mean = _three(name, 'mean', mean or tower.mean)
        self.std = _three(name, 'std', std or tower.std)
        self.out_channels = tower.out_channels
        self.patch_size = tuple(tower.patch_size)
        self.input_size = tuple(tower.input_size)
        self.image_size = self.input_size  # of the images that forward receives
        self.dtype = dtype
        # Past nn.Module.__setattr__, which would register it.
        object.__setattr__(self, 'teacher', tower.network)
        self.teacher.requires_grad_(False)
        self.teacher.eval()
        self._choose_precision()
        super().train(False)

    @classmethod
    def require_weights(cls, options: Mapping[str, Any]) -> None:
        """Ask whether the weights are there, without building the network.

        Args:
            options: The config's arguments.

        Raises:
            FileNotFoundError: If the file that they name is missing.
        """
        for name in ('checkpoint', 'pretrained'):
            file = options.get(name)
            if options.get('random_weights') or not isinstance(file, str):
                continue
            path = Path(file).absolute()
            if not path.is_file():
                raise FileNotFoundError(
                    f'{path} is missing, the weights of {cls.__name__}. '
                    f'Put the file there, or name another file as its {name}.'
                )

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the network's patches."""
        return (
            self.input_size[0] // self.patch_size[0],
            self.input_size[1] // self.patch_size[1],
        )

    def resize_teacher(self, input_size: tuple[int, int]) -> None:
        """Let the network take images of another size.

        Args:
            input_size: Height and width in pixels, a multiple of
                ``patch_size``.

        Raises:
            ValueError: If it cannot.
        """
        raise ValueError('it takes images of this size alone')

    def set_student_grid(
        self, grid_size: Sequence[int], img_size: int | Sequence[int]
    ) -> None:
        """Make the network's patches lie where the student's lie.

        The student's images are resized to the network's input size. Where its
        own size gives another grid than the student's, the network is set to
        the size that gives the same one.

        Args:
            grid_size: Rows and columns of student tokens.
            img_size: Height and width of the student's images in pixels; one
                number means square.

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
                "Choose a teacher whose patches have the shape of the student's, or "
                'another img_size of the student.'
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
                f"{_by(grid_size)} patches, the student's: images are resized to "
                f'{_by(input_size)}, position embeddings interpolated.',
                logger='current',
            )
            self.input_size = input_size
        self.image_size = img_size
        self._half_weights = None

    @torch.no_grad()
    def run(self, function: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Call a function on the images as the network takes them.

        Args:
            function: Given float (B, 3, H, W), (H, W) being ``input_size``,
                under the autocast of ``dtype``.
            images: float (B, 3, H, W), normalised with ``mean`` and ``std``;
                (H, W) is the student's image size given to
                :meth:`set_student_grid`, else the network's own.

        Returns:
            What the function returns, without gradient.

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
            if not half or torch.compiler.is_compiling():
                return function(images)
            if self._half_weights is None:
                result, self._half_weights = find_half_weights(
                    self.teacher, self._precision, lambda: function(images)
                )
                return result
            with in_place(self._half_weights):
                return function(images)

    def train(self, mode: bool = True) -> FrozenTower:
        """Stay in eval mode, whatever ``mode`` is."""
        return super().train(False)

    def extra_repr(self) -> str:
        return (
            f'{type(self.teacher).__name__} (frozen), patches {_by(self.grid_size)}, '
            f'input {_by(self.input_size)}, {self._precision}'
        )

    def _apply(self, fn, recurse: bool = True):
        """Follow the model to another device, but never to another dtype."""
        super()._apply(fn, recurse)
        device = next(self.teacher.parameters()).device
        self.teacher.to(fn(torch.empty(0, device=device)).device)
        self._choose_precision()
        return self

    def _choose_precision(self) -> None:
        self._half_weights = None
        device = next(self.teacher.parameters()).device
        if self.dtype is not None:
            self._precision = getattr(torch, self.dtype)
        elif device.type != 'cuda':
            self._precision = torch.float32
        elif torch.cuda.is_bf16_supported(including_emulation=False):
            self._precision = torch.bfloat16
        else:
            self._precision = torch.float16


def _three(owner: str, name: str, values: Sequence[float]) -> list[float]:
    if len(values) != 3:
        raise ValueError(
            f'The {name} of {owner} has {len(values)} numbers. Give three, one per RGB '
            'channel, for pixels from 0 to 255.'
        )
    return [float(value) for value in values]


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
