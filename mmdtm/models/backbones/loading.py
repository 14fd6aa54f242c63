"""Adapting a checkpoint to a backbone while it is loaded."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.backbones import (
    ConvNeXt,
    SwinTransformer,
    SwinTransformerV2,
    VisionTransformer,
)
from torch import nn

from mmdtm.io.checkpoints import reshaped, shorten, under

from .position_bias import resize_table, table_length

if TYPE_CHECKING:
    from .dtm_vit import DTMViT

TABLE = 'relative_position_bias_table'
SHARED_TABLE = f'rel_pos_bias.{TABLE}'
# Parameters that belong to one use of the backbone only: the mask token to
# pre-training, ln1 to outputs that are normalised as tokens, ln2 to outputs
# that are normalised after pooling. A checkpoint of another use has no values
# for them, or values that this use has no place for.
OPTIONAL = ('mask_token', 'ln1.weight', 'ln1.bias', 'ln2.weight', 'ln2.bias')


def fit_state_dict(
    backbone: 'DTMViT', state_dict: dict[str, torch.Tensor], prefix: str
) -> None:
    """Make the backbone's part of a checkpoint fit the backbone, in place.

    - Where the checkpoint has a shared position table and the backbone has
      only one per layer, each layer's becomes its own plus the shared one, so
      that the model computes the same as before.
    - Tables for another grid of patches are resized.
    - What only another use of the backbone needs is dropped (mask token, a
      final norm, indices that follow from the grid).
    - The norm of pooled features (``ln2``) starts fresh when the checkpoint
      has none: pre-training does not pool, and its own final norm (``ln1``)
      saw tokens, not means. BEiT's fine-tuning does the same.

    One line is logged of all that.

    Args:
        backbone: What is being loaded.
        state_dict: Name to tensor. Other modules' entries are left alone.
        prefix: What the backbone's names start with, such as 'backbone.'.

    Raises:
        ValueError: If nothing in the checkpoint is for the backbone, a parameter
            of the backbone is missing (unless ``backbone.allow_missing``), or the
            checkpoint is of another architecture.
    """
    wanted = backbone.state_dict()
    given = take(state_dict, prefix)
    where = f"under '{prefix}'" if prefix else 'without a prefix'
    who = f'{type(backbone).__name__} {where}'
    _check_about_backbone(given, wanted, who)

    given = {
        name: value
        for name, value in given.items()
        if not name.endswith('relative_position_index')
    }
    # Tables of another grid are of another length; that is not another
    # architecture, and the number of heads is compared after the resize.
    resized = _resize_tables(backbone, given, who)
    summed = _carry_shared_table(backbone, given, who)
    _check_architecture(backbone, given, wanted, who)

    left_over = sorted(given.keys() - wanted.keys())
    for name in OPTIONAL:
        if name not in wanted:
            given.pop(name, None)
    missing = sorted(wanted.keys() - given.keys())
    fresh = [name for name in missing if name.startswith(('mask_token', 'ln2.'))]
    missing = [name for name in missing if name not in fresh]
    if missing and not backbone.allow_missing:
        raise ValueError(
            f'{who}: the checkpoint lacks {_names(missing)}. Load a checkpoint that '
            'has them, or set allow_missing=True in the backbone to let them keep '
            'their start values.'
        )
    for name in fresh + missing:
        given[name] = wanted[name]  # else strict loading would refuse

    loaded = len(wanted) - len(fresh) - len(missing)
    print_log(
        f'{who}: {loaded} tensors loaded; summed: {summed}; resized: {resized}; '
        f'fresh: {_names(fresh)}; missing: {_names(missing)}; '
        f'left over: {_names(left_over)}.',
        logger='current',
    )
    state_dict.update({prefix + name: value for name, value in given.items()})


def take(state_dict: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Take what is under a prefix out of a state dict."""
    taken = under(state_dict, prefix)
    for name in taken:
        del state_dict[prefix + name]
    return taken


def _names(names: list[str], limit: int = 8) -> str:
    return shorten(names, limit) or 'none'


def _check_about_backbone(given: dict, wanted: dict, who: str) -> None:
    """Raise when the checkpoint holds something else under the prefix."""
    inner = sorted(
        {name.split('layers.0.')[0] for name in given if '.layers.0.ln1.' in name}
    )
    # BEiT's checkpoints share the names of the tokens with ours.
    if any(name.startswith('blocks.') for name in given):
        advice = (
            'It has the names of a BEiT checkpoint: convert it with '
            'tools/converters/beit_to_mmdtm.py.'
        )
    elif given.keys() & wanted.keys():
        return
    elif inner:
        advice = (
            'The backbone is further inside: load it with init_cfg=dict('
            f"type='Pretrained', checkpoint=..., prefix='{inner[0]}')."
        )
    else:
        advice = (
            'For a checkpoint of a bare backbone, set init_cfg=dict('
            "type='Pretrained', checkpoint=...) in the backbone; for one without a "
            'backbone, in the part that it is for.'
        )
    found = f'only {_names(sorted(given), 3)}' if given else 'nothing'
    raise ValueError(f'{who}: the checkpoint has {found} there. {advice}')


def _table_names(given: dict) -> list[str]:
    return [
        name
        for name in given
        if re.fullmatch(rf'(layers\.\d+\.attn|rel_pos_bias)\.{TABLE}', name)
    ]


def _source_grid(backbone: 'DTMViT', length: int, who: str) -> tuple[int, int]:
    """The grid that a table of this length is for."""
    for grid in (backbone.pretrain_resolution, backbone.patch_resolution):
        if grid is not None and length == table_length(grid):
            return grid
    # (2 s - 1)**2 + 3 entries: square grids tell their side.
    side = (math.isqrt(max(length - 3, 0)) + 1) // 2
    if length == table_length((side, side)):
        return side, side
    raise ValueError(
        f'{who}: the checkpoint has position tables of {length} entries, which is '
        'the length of no square grid. Set pretrain_img_size=(height, width) of the '
        'backbone to the image size that the checkpoint was trained at.'
    )


def _resize_tables(backbone: 'DTMViT', given: dict, who: str) -> str:
    """Bring all tables to the backbone's grid; say so in words."""
    target = backbone.patch_resolution
    sources = []
    for name in _table_names(given):
        # Sums and splines of half precision would round twice.
        given[name] = given[name].to(
            torch.promote_types(given[name].dtype, torch.float32)
        )
        source = _source_grid(backbone, given[name].shape[0], who)
        if source != target:
            given[name] = resize_table(given[name], source, target)
            sources.append(source)
    if not sources:
        return 'none'
    return (
        f'{len(sources)} position tables from {sources[0][0]} x {sources[0][1]} '
        f'to {target[0]} x {target[1]} patches'
    )


def _carry_shared_table(backbone: 'DTMViT', given: dict, who: str) -> str:
    """Put the checkpoint's position bias into the tables that the backbone has.

    Layer i's bias is its own table plus the shared one, an absent one counting
    as zero; whatever tables the backbone has must add up to the same.
    """
    own = [f'layers.{i}.attn.{TABLE}' for i in range(backbone.num_layers)]
    has_own = any(name in given for name in own)
    has_shared = SHARED_TABLE in given
    if not has_own and not has_shared:
        return 'none'
    if not backbone.use_rel_pos_bias and (
        has_own or not backbone.use_shared_rel_pos_bias
    ):
        raise ValueError(
            f'{who}: the checkpoint has position tables that this backbone has no '
            'place for. Set use_rel_pos_bias=True.'
        )
    zeros = torch.zeros_like(next(given[n] for n in (SHARED_TABLE, *own) if n in given))
    if backbone.use_rel_pos_bias and not has_own:
        given.update(dict.fromkeys(own, zeros))
    if backbone.use_shared_rel_pos_bias:
        given.setdefault(SHARED_TABLE, zeros)
    elif has_shared:
        shared = given.pop(SHARED_TABLE)
        given.update({name: given[name] + shared for name in own if name in given})
        return f"each layer's own position table and the shared one, {len(own)} layers"
    return 'none'


def _check_architecture(
    backbone: 'DTMViT', given: dict, wanted: dict, who: str
) -> None:
    """Raise when shapes or the number of layers differ."""
    differ = reshaped(wanted, given)
    layers = {
        int(name.split('.')[1]) for name in given if re.match(r'layers\.\d+\.', name)
    }
    depth = max(layers, default=-1) + 1
    if layers and depth != backbone.num_layers:
        differ.insert(0, f'it has {depth} layers, here {backbone.num_layers}')
    if differ:
        raise ValueError(
            f'{who}: the checkpoint is of another architecture: '
            f'{shorten(differ, 8)}. Set arch, patch_size and in_channels to those of '
            'the checkpoint.'
        )


def check_fits(
    module: nn.Module,
    state_dict: dict[str, torch.Tensor],
    prefix: str,
    fresh: tuple[str, ...] = (),
) -> None:
    """Check that a checkpoint has all of a backbone's parameters, in their shapes.

    mmengine loads what fits and logs the rest, which is easily missed.

    Args:
        module: What is being loaded.
        state_dict: Name to tensor.
        prefix: What the backbone's names start with, such as 'backbone.'.
        fresh: Beginnings of names that may be missing; such parameters keep their
            start values.

    Raises:
        ValueError: If parameters are missing or of another shape.
    """
    who = f'{type(module).__name__} under {prefix!r}'
    wanted, given = dict(module.named_parameters()), under(state_dict, prefix)
    missing = [name for name in wanted if name not in given]
    for name in [name for name in missing if name.startswith(fresh)]:
        state_dict[prefix + name] = wanted[name].detach()  # else strict would refuse
        missing.remove(name)
    differ = reshaped(wanted, given)
    if missing:
        raise ValueError(
            f'{who}: the checkpoint lacks {_names(missing)}. Load one of this '
            'backbone, and set prefix of init_cfg to what its names start with there.'
        )
    if differ:
        raise ValueError(
            f'{who}: the checkpoint is of another size: {_names(differ, 4)}. Set arch, '
            'img_size and patch_size to those of the checkpoint, or load another.'
        )


def load_start(backbone: Any, init_weights: Callable[[], None]) -> None:
    """Start a backbone, and say what is wrong with the checkpoint if one does not fit.

    Args:
        backbone: With an ``init_cfg``.
        init_weights: Applies it.

    Raises:
        ValueError: If ``init_cfg`` names no checkpoint, as in the fine-tuning configs
            before one is given, or one that does not fit.
    """
    init_cfg = backbone.init_cfg if isinstance(backbone.init_cfg, dict) else {}
    checkpoint, prefix = init_cfg.get('checkpoint'), init_cfg.get('prefix')
    if checkpoint == '':
        raise ValueError(
            f'{type(backbone).__name__}: no checkpoint to start from. Name a '
            'pre-trained one with --cfg-options '
            'model.backbone.init_cfg.checkpoint=PATH, go on from a whole model '
            'with --resume or load_from=PATH, or start from random weights with '
            'model.backbone.init_cfg=None.'
        )
    try:
        init_weights()
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error
    except AssertionError as error:  # mmengine found nothing below the prefix
        raise ValueError(
            f"{checkpoint}: no parameter's name starts with {prefix!r}. Set "
            'prefix of init_cfg to what the names start with, or leave it out '
            'for a bare backbone.'
        ) from error


# What students are of; BEiTViT and ViTEVA02 are among the ViTs.
FAMILIES = (VisionTransformer, SwinTransformer, SwinTransformerV2, ConvNeXt)


def check_upstream(backbone: nn.Module) -> None:
    """Let one of mmpretrain's backbones refuse a start that is not of its kind.

    Fine-tuning and segmentation use mmpretrain's own classes, which log what a
    checkpoint lacks, and train on. Those of other kinds, and mmdtm's, which check by
    themselves, are left alone.

    Args:
        backbone: Of a whole model, built.
    """
    if isinstance(backbone, FAMILIES) and not hasattr(backbone, 'mask_token'):
        start: Any = backbone
        start.init_weights = partial(load_start, backbone, start.init_weights)
        # After its own hooks, which resize position embeddings.
        backbone._register_load_state_dict_pre_hook(_check_upstream, with_module=True)


def _check_upstream(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    # Rotary positions follow from the image size, and are in the file.
    for name, buffer in module.named_buffers():
        if '.freqs_' in f'.{name}' and prefix + name in state_dict:
            state_dict[prefix + name] = buffer
    # Norms of pooled features, and of stages that pre-training does not look at.
    check_fits(module, state_dict, prefix, ('ln2.', 'norm0.', 'norm1.', 'norm2.'))
