"""BEiT-v2-style Vision Transformers: DTMViT and DTMPretrainViT."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmcv.cnn import Linear
from mmcv.cnn.bricks.drop import DropPath
from mmcv.cnn.bricks.transformer import FFN, PatchEmbed
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from mmpretrain.registry import MODELS
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from mmdtm.morphing.checks import check_count, check_option

from .loading import fit_state_dict, load_start
from .position_bias import position_index, resize_table, table_length
from .student import check_mask, layer_indices, mask_tokens

INIT_STD = 0.02
Bias = torch.Tensor | None | Callable[[torch.Tensor], torch.Tensor]


def trunc_normal_(tensor: torch.Tensor) -> torch.Tensor:
    """BEiT's start of weights and tokens: normal(0.02), cut at one deviation.

    The pre-training code of BEiT and BEiT v2 truncates at -0.02 and 0.02, which
    leaves a standard deviation of 0.0108. (torch's and timm's default bounds, -2
    and 2, would cut nothing off.)
    """
    return nn.init.trunc_normal_(tensor, std=INIT_STD, a=-INIT_STD, b=INIT_STD)


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of matrix products with ``x``: autocast's, or its own."""
    device = x.device.type
    # torch refuses the question for meta tensors, which count memory.
    if device != 'meta' and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def scaled_linear(
    linear: Any, x: torch.Tensor, scale: torch.Tensor | None
) -> torch.Tensor:
    """Scale a linear layer's outputs by way of its weights.

    They are fewer than the outputs, which then go through memory once less on the way
    forward and three times less on the way back.

    Args:
        linear: The layer, C' to C. Only of plain ones the weights are scaled, and not
            for float16, where scales such as 1e-5 would make them vanish.
        x: (..., C').
        scale: (C,), or None for the plain layer.

    Returns:
        (..., C).
    """
    if scale is None:
        return linear(x)
    half = torch.float16 in (compute_dtype(x), x.dtype)
    if half or type(linear) not in (nn.Linear, Linear):
        return scale * linear(x)
    return F.linear(x, scale.unsqueeze(1) * linear.weight, scale * linear.bias)


class Attention(BaseModule):
    """Multi-head self-attention with a relative position bias.

    Args:
        embed_dims: Width C.
        num_heads: Heads H; they divide C.
        qkv_bias: 'qv_bias' (queries and values have a bias, keys none; BEiT),
            True (all three) or False.
        grid: Patches (h, w) of this layer's own position table; None: the
            layer has none.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        qkv_bias: str | bool,
        grid: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias is True)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.q_bias = self.v_bias = None
        if qkv_bias == 'qv_bias':
            self.q_bias = nn.Parameter(torch.zeros(embed_dims))
            self.v_bias = nn.Parameter(torch.zeros(embed_dims))
        self.relative_position_bias_table = (
            None
            if grid is None
            else nn.Parameter(torch.zeros(table_length(grid), num_heads))
        )

    def forward(
        self, x: torch.Tensor, bias: Bias, scale: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend.

        Args:
            x: (B, 1 + N, C).
            bias: (H, 1 + N, 1 + N), added to the scaled products; or None; or what
                makes it of this layer's own table.
            scale: Of the output's channels, (C,).

        Returns:
            (B, 1 + N, C).
        """
        if self.q_bias is None or self.v_bias is None:
            qkv = self.qkv(x)
        else:
            no_k_bias = torch.zeros_like(self.v_bias)
            qkv_bias = torch.cat([self.q_bias, no_k_bias, self.v_bias])
            qkv = F.linear(x, self.qkv.weight, qkv_bias)
        # (B, 1 + N, 3 * C) -> 3 of (B, 1 + N, H, C / H), whose gradients lie in one
        # piece when stacked, and then (B, H, 1 + N, C / H)
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        q, k, v = (each.transpose(1, 2) for each in qkv)
        if bias is not None and not isinstance(bias, torch.Tensor):
            table: Any = self.relative_position_bias_table
            bias = bias(table)
        if bias is not None:
            bias = bias[None].to(q.dtype)  # q is of lower precision under autocast
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x.transpose(1, 2)
        if torch.compiler.is_exporting():
            # The product's strides are the kernel's, and ONNX decomposes another one.
            x = x.clone(memory_format=torch.contiguous_format)
        return scaled_linear(self.proj, x.flatten(2), scale)


class TransformerLayer(BaseModule):
    """Pre-norm layer: attention, then feed-forward, each scaled and droppable.

    Args:
        embed_dims, num_heads, feedforward_channels: Sizes.
        qkv_bias, grid: See :class:`Attention`.
        layer_scale_init_value: Start of the per-channel scale of both
            branches; 0 leaves the scales out.
        drop_path_rate: Probability, per sample and branch, that the branch is
            dropped in training.
        norm_cfg: mmcv's config of the normalisation layers.
        with_cp: Keep nothing but the input for the backward pass.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        qkv_bias: str | bool,
        grid: tuple[int, int] | None,
        layer_scale_init_value: float,
        drop_path_rate: float,
        norm_cfg: dict,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        self.attn = Attention(embed_dims, num_heads, qkv_bias, grid)
        self.ln2 = build_norm_layer(norm_cfg, embed_dims)
        self.ffn = FFN(
            embed_dims,
            feedforward_channels,
            add_identity=False,
            act_cfg=dict(type='GELU'),
        )
        self.drop_path = DropPath(drop_path_rate)
        self.gamma_1 = self.gamma_2 = None
        if layer_scale_init_value > 0:
            self.gamma_1 = nn.Parameter(
                torch.full((embed_dims,), float(layer_scale_init_value))
            )
            self.gamma_2 = nn.Parameter(self.gamma_1.detach().clone())

    def forward(self, x: torch.Tensor, bias: Bias) -> torch.Tensor:
        """Map (B, 1 + N, C) to the same shape; ``bias`` as in Attention."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._forward, x, bias, use_reentrant=False)
        return self._forward(x, bias)

    def _forward(self, x: torch.Tensor, bias: Bias) -> torch.Tensor:
        x = self._add(x, self.attn(self.ln1(x), bias, self.gamma_1))
        hidden = self.ffn.layers[0](self.ln2(x))
        return self._add(x, scaled_linear(self.ffn.layers[1], hidden, self.gamma_2))

    def _add(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        if self.training and self.drop_path.drop_prob:
            # In the stream's precision: a half's draws are too coarse.
            branch = self.drop_path(branch.to(x.dtype))
        return x + branch


class SharedPositionBias(BaseModule):
    """Holds the table that all layers share, under BEiT's name for it."""

    def __init__(self, grid: tuple[int, int], num_heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros(table_length(grid), num_heads)
        )


@MODELS.register_module()
class DTMViT(BaseBackbone):
    """Vision Transformer for fine-tuning and dense prediction.

    BEiT v2's architecture (arXiv 2208.06366; table 12 of the DTM paper, arXiv
    2401.00254): no absolute position embedding, relative position bias per
    layer (and, in pre-training, shared by all layers), bias on queries and
    values only, layer scale. Parameters have the names of mmpretrain's
    ``BEiTViT``.

    Inputs of other sizes than ``img_size`` work: the position tables are
    resized on the fly to the input's grid (see
    :func:`~mmdtm.models.backbones.position_bias.resize_table`), and an input
    that is not a multiple of the patch is padded at its right and bottom.

    Loading, by whatever way (``init_cfg``, ``load_from``, ``load_state_dict``),
    adapts the checkpoint to this model, logs one line about it, and raises
    where anything of the backbone is missing: see
    :func:`~mmdtm.models.backbones.loading.fit_state_dict`.

    Args:
        arch: 'small' ('s': ViT-S/16, 384 wide), 'base' ('b'), 'large' ('l'),
            'huge' ('h'), 'giant' ('g': ViT-g, 1408 wide),
            or a dict with ``embed_dims``, ``num_layers``, ``num_heads`` and
            ``feedforward_channels``.
        img_size: Height and width in pixels that the position tables are for.
        patch_size: Patch side in pixels.
        in_channels: Image channels.
        out_indices: Layers to output, from 0; negative ones count from the
            last.
        drop_path_rate: Drop path of the last layer; it grows linearly from 0
            at the first.
        qkv_bias: 'qv_bias', True or False; see :class:`Attention`.
        layer_scale_init_value: Start of the layer scale; 0 means none.
        use_rel_pos_bias: Give each layer an own position table.
        use_shared_rel_pos_bias: Add one table that all layers share.
        out_type: What each output is:

            - 'avg_featmap': (B, C), the mean over patch tokens, normalised
              after (``ln2``), as in BEiT's fine-tuning;
            - 'cls_token': (B, C), the class token;
            - 'featmap': (B, C, h, w), the patch tokens;
            - 'raw': (B, 1 + N, C), the class token, then the patch tokens,
              row-major.
        final_norm: Normalise the tokens after the last layer (``ln1``).
        frozen_stages: -1: none; n >= 0: patch embedding, tokens, the shared
            table and the first n layers get no gradient and stay in eval mode;
            with n the number of layers, the final norms as well.
        norm_cfg: mmcv's config of the normalisation layers.
        pretrain_img_size: Image size of the checkpoint to load. Needed only
            where its grid is not square and not this model's: the length of a
            table alone does not tell it.
        with_cp: Keep nothing of a layer but its input for the backward pass, which
            then computes the layer again: less memory, a third more computation.
        allow_missing: Let a checkpoint lack parameters of the backbone; they
            keep their start values, and the log names them.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: If the image size is not a multiple of the patch, arch or
            out_type is unknown, or out_indices or frozen_stages is out of range.
    """

    arch_zoo = {
        **dict.fromkeys(
            ['s', 'small'],
            dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
        ),
        **dict.fromkeys(
            ['b', 'base'],
            dict(
                embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072
            ),
        ),
        **dict.fromkeys(
            ['l', 'large'],
            dict(
                embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096
            ),
        ),
        **dict.fromkeys(
            ['h', 'huge'],
            dict(
                embed_dims=1280, num_layers=32, num_heads=16, feedforward_channels=5120
            ),
        ),
        **dict.fromkeys(
            ['g', 'giant'],
            dict(
                embed_dims=1408, num_layers=40, num_heads=16, feedforward_channels=6144
            ),
        ),
    }
    smoke: ClassVar[dict] = dict(
        arch=dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96),
        img_size=64,
        patch_size=16,
    )
    OUT_TYPES = ('raw', 'cls_token', 'featmap', 'avg_featmap')
    num_extra_tokens = 1  # the class token

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        drop_path_rate: float = 0.0,
        qkv_bias: str | bool = 'qv_bias',
        layer_scale_init_value: float = 0.1,
        use_rel_pos_bias: bool = True,
        use_shared_rel_pos_bias: bool = False,
        out_type: str = 'avg_featmap',
        final_norm: bool = False,
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        pretrain_img_size: int | tuple[int, int] | None = None,
        with_cp: bool = False,
        allow_missing: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch_settings = self._arch_settings(arch)
        self.embed_dims = self.arch_settings['embed_dims']
        self.num_layers = self.arch_settings['num_layers']
        self.num_heads = self.arch_settings['num_heads']
        self.img_size = to_2tuple(img_size)
        self.patch_size = patch_size
        self.patch_resolution = self._grid(self.img_size, 'img_size')
        self.pretrain_resolution = (
            None
            if pretrain_img_size is None
            else self._grid(to_2tuple(pretrain_img_size), 'pretrain_img_size')
        )
        self.out_indices = layer_indices(out_indices, self.num_layers)
        check_option(out_type, self.OUT_TYPES, 'out_type')
        self.out_type = out_type
        self.frozen_stages = check_count(
            frozen_stages, -1, self.num_layers, 'frozen_stages'
        )
        self.final_norm = final_norm
        self.use_rel_pos_bias = use_rel_pos_bias
        self.use_shared_rel_pos_bias = use_shared_rel_pos_bias
        self.allow_missing = allow_missing

        norm_cfg = norm_cfg or dict(type='LN', eps=1e-6)
        self.patch_embed = PatchEmbed(
            in_channels=in_channels,
            embed_dims=self.embed_dims,
            kernel_size=patch_size,
            stride=patch_size,
            padding='corner',
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        self.rel_pos_bias = (
            SharedPositionBias(self.patch_resolution, self.num_heads)
            if use_shared_rel_pos_bias
            else None
        )
        self.layers = ModuleList(
            [
                TransformerLayer(
                    self.embed_dims,
                    self.num_heads,
                    self.arch_settings['feedforward_channels'],
                    qkv_bias=qkv_bias,
                    grid=self.patch_resolution if use_rel_pos_bias else None,
                    layer_scale_init_value=layer_scale_init_value,
                    drop_path_rate=drop_path_rate * i / max(self.num_layers - 1, 1),
                    norm_cfg=norm_cfg,
                    with_cp=with_cp,
                )
                for i in range(self.num_layers)
            ]
        )
        if final_norm:
            self.ln1 = build_norm_layer(norm_cfg, self.embed_dims)
        if out_type == 'avg_featmap':
            self.ln2 = build_norm_layer(norm_cfg, self.embed_dims)
        # Follows from the grid alone, so checkpoints need not carry it.
        self.register_buffer(
            'position_index',
            position_index(self.patch_resolution).clone(),
            persistent=False,
        )
        self._reset_parameters()
        self._freeze()

    def _arch_settings(self, arch: str | dict) -> dict:
        needed = {'embed_dims', 'num_layers', 'num_heads', 'feedforward_channels'}
        if isinstance(arch, str):
            if arch.lower() not in self.arch_zoo:
                raise ValueError(
                    f'arch is {arch!r}. Give one of {sorted(self.arch_zoo)} or a dict '
                    f'with {sorted(needed)}.'
                )
            return self.arch_zoo[arch.lower()]
        if not needed <= set(arch):
            raise ValueError(
                f'{sorted(needed - set(arch))} is missing in arch. A dict needs '
                f'{sorted(needed)}.'
            )
        if arch['embed_dims'] % arch['num_heads']:
            raise ValueError(
                f'embed_dims {arch["embed_dims"]} is not a multiple of num_heads '
                f'{arch["num_heads"]}. Change one of them in arch.'
            )
        return dict(arch)

    def _grid(self, size: tuple[int, int], name: str) -> tuple[int, int]:
        if any(side < self.patch_size or side % self.patch_size for side in size):
            raise ValueError(
                f'{name} {size[0]} x {size[1]} is not a multiple of the '
                f'patch size {self.patch_size}. Choose one that is.'
            )
        return size[0] // self.patch_size, size[1] // self.patch_size

    @torch.no_grad()
    def _reset_parameters(self) -> None:
        """BEiT's start: weights cut at 0.02, deep projections scaled down.

        The output projections of the two branches of layer l (from 1) are
        divided by sqrt(2 l), since their outputs add up along the residual
        stream. Position tables and biases start at zero. Done at construction,
        so that mmengine's ``init_weights`` has only ``init_cfg`` to apply.
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                trunc_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        trunc_normal_(self.cls_token)
        for depth, layer in enumerate(self.layers, start=1):
            layer.attn.proj.weight.div_(math.sqrt(2 * depth))
            layer.ffn.layers[1].weight.div_(math.sqrt(2 * depth))

    def init_weights(self) -> None:
        """Apply ``init_cfg``.

        Raises:
            ValueError: If ``init_cfg`` names no checkpoint, as in the fine-tuning
                configs before one is given, or one that does not fit.
        """
        load_start(self, super().init_weights)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        modules = [self.patch_embed, *self.layers[: self.frozen_stages]]
        if self.rel_pos_bias is not None:
            modules.append(self.rel_pos_bias)
        if self.frozen_stages == self.num_layers:
            modules += [
                norm
                for name in ('ln1', 'ln2')
                if (norm := getattr(self, name, None)) is not None
            ]
        return modules

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False)
        if self.frozen_stages >= 0:
            self.cls_token.requires_grad_(False)

    def train(self, mode: bool = True) -> 'DTMViT':
        """Set training mode; frozen stages stay in eval mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _position_biases(self, grid: tuple[int, int]) -> Sequence[Bias]:
        """Each layer's own plus the shared bias: (H, 1 + N, 1 + N), or None.

        All come from one look-up. Where processes share a layer's parameters out, its
        table is whole only while the layer computes, and the layer looks up by itself.
        """
        tables = [layer.attn.relative_position_bias_table for layer in self.layers]
        if isinstance(tables[0], DTensor):
            return [lambda table: self._look_up([table], grid)[0]] * self.num_layers
        if not self.use_rel_pos_bias:  # all the same
            tables = tables[:1]
        biases = self._look_up(tables, grid)
        return biases if self.use_rel_pos_bias else [*biases] * self.num_layers

    def _look_up(self, tables: Sequence[Any], grid: tuple[int, int]) -> Sequence[Any]:
        """The biases of layers, in the dtype that attention computes in.

        Their rows begin at multiples of 8 entries: only such biases do the fast
        kernels take without a copy.

        Args:
            tables: The layers' own, or None.
            grid: Rows and columns of the input's patches.
        """
        if self.rel_pos_bias is not None:
            shared = self.rel_pos_bias.relative_position_bias_table
            tables = [shared if own is None else own + shared for own in tables]
        if tables[0] is None:
            return tables
        index = self.position_index
        if grid != self.patch_resolution:
            tables = [
                resize_table(table, self.patch_resolution, grid) for table in tables
            ]
            index = position_index(grid, tables[0].device)
        table = torch.stack([table.t() for table in tables])  # (L, H, entries)
        count = index.shape[1]
        index = F.pad(index, (0, -count % 8))
        biases = table.index_select(2, index.flatten()).unflatten(2, index.shape)
        # After the look-up, so that its gradients add up in the table's precision.
        biases = biases.to(compute_dtype(table))
        return biases[..., :count].unbind()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of images.

        Args:
            x: (B, in_channels, H, W), of any size.

        Returns:
            One tensor for each of ``out_indices``, of the shape that
            ``out_type`` says.
        """
        tokens, grid = self.patch_embed(x)
        return self._forward_layers(tokens, grid)

    def _forward_layers(
        self, tokens: torch.Tensor, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, ...]:
        """From patch tokens (B, N, C) to the outputs."""
        x = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        outs = []
        biases = self._position_biases(grid)
        for i, (layer, bias) in enumerate(zip(self.layers, biases, strict=True)):
            x = layer(x, bias)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x, grid))
        return tuple(outs)

    def _format_output(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return x[:, 0]
        patches = x[:, self.num_extra_tokens :]
        if self.out_type == 'featmap':
            return patches.transpose(1, 2).unflatten(2, grid).contiguous()
        return self.ln2(patches.mean(dim=1))

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: The backbone's own part of that name.

        Returns:
            The depth, and the number of depths, ``num_layers + 2``. Depth 0
            holds the patch embedding, the class and the mask token; layer i
            (from 0) has depth i + 1; all else has the last depth,
            ``num_layers + 1``: final norms, everything outside the backbone,
            and the shared position table, which acts on the last layer as on
            the first (BEiT's choice).
        """
        last = self.num_layers + 1
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix):
            depth = last
        elif name.startswith('layers.'):
            depth = int(name.split('.')[1]) + 1
        elif name in ('cls_token', 'mask_token') or name.startswith('patch_embed.'):
            depth = 0
        else:
            depth = last
        return depth, last + 1

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args, **kwargs
    ) -> None:
        fit_state_dict(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@MODELS.register_module()
class DTMPretrainViT(DTMViT):
    """DTMViT with a mask token, for pre-training.

    Per-layer and shared position bias together, and a final norm, by default
    (table 12). All other arguments are those of :class:`DTMViT`.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        *,
        use_shared_rel_pos_bias: bool = True,
        out_type: str = 'raw',
        final_norm: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(
            arch,
            use_shared_rel_pos_bias=use_shared_rel_pos_bias,
            out_type=out_type,
            final_norm=final_norm,
            **kwargs,
        )
        self.mask_token = nn.Parameter(
            torch.zeros(1, 1, self.embed_dims), requires_grad=self.frozen_stages < 0
        )
        trunc_normal_(self.mask_token)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Features of images, some of their patches masked.

        Args:
            x: (B, in_channels, H, W).
            mask: (B, h, w), bool or 0/1; true (1) where the patch is replaced
                by the mask token. None: no patch is.

        Returns:
            As :meth:`DTMViT.forward`.

        Raises:
            ValueError: If the mask's shape is not that of the images' patches.
        """
        tokens, grid = self.patch_embed(x)
        if mask is not None:
            check_mask(mask, len(x), grid)
            tokens = mask_tokens(tokens, mask, self.mask_token)
        return self._forward_layers(tokens, grid)
