"""The contract of a student, checked when a model is built."""

import inspect
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Student(Protocol):
    """What a backbone offers so that DTM can pre-train it.

    Any ``torch.nn.Module`` with these members is one; it need not inherit from this
    class. docs/inherit.md has a whole example.

    Attributes:
        embed_dims: Width C of its tokens.
        num_extra_tokens: Leading tokens that are no patches: class and register tokens.
        patch_resolution: Rows h and columns w of its tokens.
        img_size: Height and width in pixels of the images that have so many; one number
            means square.
    """

    embed_dims: int
    num_extra_tokens: int
    patch_resolution: tuple[int, int]
    img_size: int | tuple[int, int]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Sequence[Tensor]:
        """Tokens of images, some of their positions masked.

        Args:
            x: (B, 3, H, W), normalised.
            mask: (B, h, w), bool; what is masked must not change the output. None:
                nothing is.

        Returns:
            Outputs, of which the last counts: (B, num_extra_tokens + h * w, C), the
            tokens of all positions, row-major, masked ones as well.
        """


MEANING = dict(
    embed_dims='the width of its tokens',
    num_extra_tokens='how many leading tokens are no patches',
    patch_resolution='rows and columns of its tokens',
    img_size='height and width of its images in pixels',
)


def check_student(backbone: object, masked: bool = True) -> None:
    """Check that a backbone keeps the contract of :class:`Student`.

    Args:
        backbone: The student, built.
        masked: Whether ``forward`` must take a mask.

    Raises:
        ValueError: If it does not; the message names all that is missing.
    """
    missing = [
        f'{name} ({meaning})'
        for name, meaning in MEANING.items()
        if not hasattr(backbone, name)
    ]
    options = inspect.signature(getattr(backbone, 'forward', check_student)).parameters
    if masked and 'mask' not in options:
        missing.append('an argument mask of forward')
    if missing:
        raise ValueError(
            f'{type(backbone).__name__} cannot be a student: it lacks '
            f'{"; ".join(missing)}. Add what is missing (docs/inherit.md, "Another '
            'backbone", has an example), or take a backbone that has it, such as '
            'DTMPretrainViT, MaskedVisionTransformer, MaskedSwinTransformer or '
            'MaskedTimmViT.'
        )


def patch_tokens(backbone: Student, outputs: Sequence[Tensor]) -> Tensor:
    """A student's patch tokens.

    Args:
        backbone: The student.
        outputs: What its ``forward`` returned.

    Returns:
        (B, h * w, C) of the last output.

    Raises:
        ValueError: If there is not one token for each position.
    """
    tokens, extra = outputs[-1], backbone.num_extra_tokens
    height, width = backbone.patch_resolution
    expected = (extra + height * width, backbone.embed_dims)
    if tokens.ndim != 3 or tokens.shape[1:] != expected:
        raise ValueError(
            f'{type(backbone).__name__} gives an output of shape '
            f'{tuple(tokens.shape)}, not (images, {expected[0]}, {expected[1]}): '
            f'{extra} extra tokens and one for each of {height} x {width} positions. '
            "Let it keep all tokens and put them in rows (for mmpretrain's, "
            "out_type='raw')."
        )
    return tokens[:, extra:]


def layer_indices(given: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Layers counted from 0, of some that may be counted from the last, -1.

    Raises:
        ValueError: If there is no such layer.
    """
    given = [given] if isinstance(given, int) else list(given)
    if any(not -num_layers <= i < num_layers for i in given):
        raise ValueError(
            f'out_indices are {given}, beyond the {num_layers} layers. Give '
            f'some of {-num_layers} to {num_layers - 1}.'
        )
    return tuple(i % num_layers for i in given)


def check_size(name: str, img_size: Sequence[int], stride: Sequence[int]) -> None:
    """Check that images are whole numbers of positions.

    Args:
        name: The backbone's, for the message.
        img_size: Height and width in pixels.
        stride: Height and width of a position in pixels.

    Raises:
        ValueError: If they are not.
    """
    near = [
        max(round(side / step), 1) * step
        for side, step in zip(img_size, stride, strict=True)
    ]
    if near != [*img_size]:
        raise ValueError(
            f'img_size {img_size[0]} x {img_size[1]} is not a multiple of '
            f"{name}'s stride, {stride[0]}. Choose one that is, such as "
            f'{near[0]} x {near[1]}.'
        )


def check_mask(mask: Tensor, images: int, grid: Sequence[int]) -> None:
    """Check that a mask has a value for each position of each image.

    Args:
        mask: The mask.
        images: B.
        grid: Rows and columns of the student's positions.

    Raises:
        ValueError: If its shape is another one.
    """
    if mask.shape != (images, *grid):
        raise ValueError(
            f'The mask must be of shape {(images, *grid)} (images, patch rows, patch '
            f'columns), got {tuple(mask.shape)}. Set input_size of the '
            f'BlockMaskGenerator to {tuple(grid)}.'
        )


def mask_tokens(tokens: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """Replace masked tokens.

    Args:
        tokens: (B, N, C).
        mask: (B, h, w) with h * w = N, bool or 0/1.
        mask_token: (1, 1, C).

    Returns:
        (B, N, C).
    """
    return torch.where(mask.flatten(1).unsqueeze(-1).bool(), mask_token, tokens)
