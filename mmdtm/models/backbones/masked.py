"""mmpretrain's backbones as students: each with a mask token.

Upstream's forward runs as it is. The mask token is put in by a hook behind the patch
embedding, where an image has become patches that no pixel outside enters.
"""

import contextlib
import difflib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from mmengine.utils import to_2tuple
from mmpretrain.models.backbones import (
    BEiTViT,
    ConvNeXt,
    SwinTransformer,
    SwinTransformerV2,
    VisionTransformer,
    ViTEVA02,
)
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .dtm_vit import trunc_normal_
from .loading import check_fits
from .student import check_mask, check_size, mask_tokens

if TYPE_CHECKING:
    from mmpretrain.models.backbones.base_backbone import BaseBackbone as Backbone
else:
    Backbone = object  # the class that is inherited next is one


class MaskToken(Backbone):
    """Adds a mask token to a backbone that embeds patches; to be inherited first.

    A backbone of one's own gets a mask by ``class Mine(MaskToken, Theirs)``, whose
    constructor calls ``add_mask_token`` at its end, and whose ``forward(x, mask)``
    runs the other's in ``with self.masking(mask, len(x), self.patch_embed)``.
    """

    channels_last = False  # of embeddings in four dimensions

    def add_mask_token(self, channels: int, embedding: nn.Module) -> None:
        """Make the parameter, and check what is loaded from then on.

        Args:
            channels: Width of what ``embedding`` gives.
            embedding: Turns the image into patches.

        Raises:
            ValueError: If patches overlap, so that what is masked would leak.
        """
        for conv in embedding.modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size != conv.stride:
                raise ValueError(
                    f'{type(self).__name__} embeds patches of '
                    f'{conv.kernel_size[0]}x{conv.kernel_size[1]} pixels every '
                    f'{conv.stride[0]}x{conv.stride[1]}, so that a masked one shows in '
                    'its neighbours. Choose a backbone whose patches do not overlap.'
                )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, channels))
        trunc_normal_(self.mask_token)
        # After the hooks of the class itself, which resize position embeddings.
        self._register_load_state_dict_pre_hook(self._check_fits)

    def _check_fits(self, state_dict: dict, prefix: str, *args) -> None:
        check_fits(self, state_dict, prefix, fresh=('mask_token',))

    def masking(
        self, mask: Tensor | None, images: int, embedding: nn.Module
    ) -> AbstractContextManager:
        """While it lasts, ``embedding`` gives the mask token for what is masked.

        Args:
            mask: (B, h, w), bool or 0/1; None: nothing is masked.
            images: B.
            embedding: Gives (B, N, C), alone or with rows and columns, or (B, C, H, W)
                ((B, H, W, C) with ``channels_last``); its grid is
                ``patch_resolution`` or finer by a whole number.

        Raises:
            ValueError: If the mask has another shape.
        """
        if mask is None:
            return contextlib.nullcontext()
        check_mask(mask, images, self.patch_resolution)

        def replace(tokens: Tensor, grid: Any) -> Tensor:
            token = self.mask_token.to(tokens.dtype)
            return mask_tokens(tokens, _spread(mask, grid), token)

        def put_in(module: nn.Module, args: tuple, output: Any) -> Any:
            if isinstance(output, tuple):
                tokens, grid = output
                return replace(tokens, grid), grid
            if output.ndim == 3:
                return replace(output, self.patch_resolution)
            if self.channels_last:
                grid = output.shape[1:3]
                return replace(output.flatten(1, 2), grid).unflatten(1, grid)
            grid = output.shape[2:]
            tokens = replace(output.flatten(2).transpose(1, 2), grid)
            return tokens.transpose(1, 2).unflatten(2, grid)

        return embedding.register_forward_hook(put_in)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As the backbone's own; the mask token is at depth 0."""
        depth, depths = super().get_layer_depth(param_name, prefix)
        return (0 if param_name == f'{prefix}mask_token' else depth), depths


def _spread(mask: Tensor, grid: Any) -> Tensor:
    """A mask on a finer grid (rows, columns)."""
    rows, columns = grid[0] // mask.shape[1], grid[1] // mask.shape[2]
    return mask.repeat_interleave(rows, dim=1).repeat_interleave(columns, dim=2)


def _check_arch(backbone: type, arch: str | dict, zoo: dict) -> None:
    """Upstream asserts it, and names no near one."""
    if isinstance(arch, str) and arch.lower() not in zoo:
        near = difflib.get_close_matches(arch.lower(), zoo, n=4, cutoff=0.3)
        raise ValueError(
            f'{backbone.__name__} has no arch {arch!r}. Choose '
            + (f'one near it, {", ".join(near)}, ' if near else '')
            + f'from {", ".join(sorted(zoo))}, or give a dict of sizes.'
        )


class MaskedViT(MaskToken):
    """A plain ViT of mmpretrain that masks, and gives all tokens after a norm."""

    def __init__(
        self,
        arch: str | dict = 'base',
        *,
        out_type: str = 'raw',
        final_norm: bool = True,
        **kwargs,
    ) -> None:
        _check_arch(type(self), arch, self.arch_zoo)
        super().__init__(arch=arch, out_type=out_type, final_norm=final_norm, **kwargs)
        self.add_mask_token(self.embed_dims, self.patch_embed)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        with self.masking(mask, len(x), self.patch_embed):
            return super().forward(x)


@MODELS.register_module()
class MaskedVisionTransformer(MaskedViT, VisionTransformer):
    """mmpretrain's ``VisionTransformer`` (ViT, DeiT, DeiT III) as a student.

    DeiT III is a ViT with layer scale: ``arch='deit-small'`` with
    ``layer_scale_init_value=1e-4``. mmpretrain's own ``DeiT3`` normalises both
    branches of a layer with its first norm, so that its second is never trained.

    Args:
        arch: Its archs, such as 'base' or 'deit-small', or a dict of sizes.
        out_type: Only 'raw' pre-trains.
        final_norm: Normalise the tokens after the last layer.
        **kwargs: See ``VisionTransformer``.
    """


@MODELS.register_module()
class MaskedViTEVA02(MaskedViT, ViTEVA02):
    """mmpretrain's ``ViTEVA02`` as a student: rotary positions and SwiGLU.

    Arguments are those of MaskedVisionTransformer.
    """


@MODELS.register_module()
class MaskedBEiTViT(MaskedViT, BEiTViT):
    """mmpretrain's ``BEiTViT`` as a student; arguments as MaskedVisionTransformer's."""


class MaskedHierarchy(MaskToken):
    """A backbone in stages that masks, and gives the last stage's positions.

    Masks are on the grid of the last stage; behind the patch embedding each of their
    positions covers a block of patches.
    """

    num_extra_tokens = 0

    def _finish(
        self,
        width: int,
        channels: int,
        stride: int,
        img_size: int | tuple[int, int],
        embedding: nn.Module,
    ) -> None:
        """Set what the contract asks for, of the last stage."""
        self.img_size = tuple(to_2tuple(img_size))
        check_size(type(self).__name__, self.img_size, (stride, stride))
        self.embed_dims = width
        self.patch_resolution = tuple(side // stride for side in self.img_size)
        self.add_mask_token(channels, embedding)

    def rows(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Feature maps (B, C, h, w) as tokens (B, h * w, C)."""
        return tuple(output.flatten(2).transpose(1, 2) for output in outputs)


def swin_v2_depth(
    backbone: SwinTransformerV2, param_name: str, prefix: str = ''
) -> tuple[int, int]:
    """Depths as of mmpretrain's ``SwinTransformer``, for layer-wise decay.

    Args:
        backbone: Swin V2.
        param_name: Name of the parameter in the whole model.
        prefix: The backbone's own part of that name.

    Returns:
        The depth, and the number of depths.
    """
    last = sum(backbone.depths) + 1
    name = param_name.removeprefix(prefix)
    if not param_name.startswith(prefix):
        depth = last
    elif name.startswith('patch_embed.'):
        depth = 0
    elif name.startswith('stages.'):
        _, stage, part, *rest = name.split('.')
        # A stage begins with the merging that ends the one before in V1.
        block = int(rest[0]) + 1 if part == 'blocks' else 0
        depth = sum(backbone.depths[: int(stage)]) + block
    else:
        depth = last
    return depth, last + 1


# mmpretrain's V2 has no such method (to 1.3.6), which fine-tuning asks for.
if not hasattr(SwinTransformerV2, 'get_layer_depth'):
    SwinTransformerV2.get_layer_depth = swin_v2_depth


class MaskedSwin(MaskedHierarchy):
    """What Swin and Swin V2 have in common."""

    def __init__(self, arch: str | dict = 'tiny', **kwargs) -> None:
        _check_arch(type(self), arch, self.arch_zoo)
        if kwargs.get('use_abs_pos_embed'):
            raise ValueError(
                f'{type(self).__name__} takes no absolute positions: '
                "patch_resolution is the last stage's. Leave use_abs_pos_embed out, "
                'as all published archs do.'
            )
        super().__init__(arch=arch, **kwargs)
        channels, patches = self.embed_dims, self.patch_embed.init_out_size
        img_size = to_2tuple(kwargs.get('img_size', self.default_size))
        self._finish(
            width=channels * 2 ** (self.num_layers - 1),
            channels=channels,
            stride=img_size[0] // patches[0] * 2 ** (self.num_layers - 1),
            img_size=img_size,
            embedding=self.patch_embed,
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        with self.masking(mask, len(x), self.patch_embed):
            return self.rows(super().forward(x))


@MODELS.register_module()
class MaskedSwinTransformer(MaskedSwin, SwinTransformer):
    """mmpretrain's ``SwinTransformer`` as a student, of the last stage's positions.

    Args:
        arch: 'tiny', 'small', 'base', 'large' or a dict of sizes.
        **kwargs: See ``SwinTransformer``. ``img_size`` must be a multiple of the
            stride, 32 by default.
    """

    default_size = 224


@MODELS.register_module()
class MaskedSwinTransformerV2(MaskedSwin, SwinTransformerV2):
    """mmpretrain's ``SwinTransformerV2``; arguments as MaskedSwinTransformer's."""

    default_size = 256


@MODELS.register_module()
class MaskedConvNeXt(MaskedHierarchy, ConvNeXt):
    """mmpretrain's ``ConvNeXt`` (V1, V2) as a student, of the last stage's positions.

    What is masked gets the mask token behind the stem; later convolutions see it as
    any other value, so that the network stays dense.

    Args:
        arch: 'tiny', ... or a dict of ``depths`` and ``channels``.
        img_size: Height and width in pixels, a multiple of the stride, 32 by default.
        **kwargs: See ``ConvNeXt``. V2 is ``use_grn=True, layer_scale_init_value=0.0``.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        img_size: int | tuple[int, int] = 224,
        stem_patch_size: int = 4,
        **kwargs,
    ) -> None:
        _check_arch(type(self), arch, self.arch_settings)
        super().__init__(
            arch=arch,
            stem_patch_size=stem_patch_size,
            gap_before_final_norm=False,
            **kwargs,
        )
        self._finish(
            width=self.channels[-1],
            channels=self.channels[0],
            stride=stem_patch_size * 2 ** (self.num_stages - 1),
            img_size=img_size,
            embedding=self.downsample_layers[0],
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        with self.masking(mask, len(x), self.downsample_layers[0]):
            return self.rows(super().forward(x))
