"""Names of mmdtm's and mmpretrain's backbones and of timm's, in both directions.

N and M in a name stand for the numbers of a stage, a layer or a block.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch

from .checkpoints import shorten

State = dict[str, torch.Tensor]

BEIT_NAMES = {
    'cls_token': 'cls_token',
    'mask_token': 'mask_token',
    'patch_embed.projection': 'patch_embed.proj',
    'rel_pos_bias': 'rel_pos_bias',
    'layers.N.ln1': 'blocks.N.norm1',
    'layers.N.ln2': 'blocks.N.norm2',
    'layers.N.attn': 'blocks.N.attn',
    'layers.N.ffn.layers.0.0': 'blocks.N.mlp.fc1',
    'layers.N.ffn.layers.1': 'blocks.N.mlp.fc2',
    'layers.N.gamma_1': 'blocks.N.gamma_1',
    'layers.N.gamma_2': 'blocks.N.gamma_2',
    'ln1': 'norm',
    'ln2': 'fc_norm',
}
VIT = {
    'cls_token': 'cls_token',
    'pos_embed': 'pos_embed',
    'patch_embed.projection': 'patch_embed.proj',
    'pre_norm': 'norm_pre',
    'layers.N.ln1': 'blocks.N.norm1',
    'layers.N.ln2': 'blocks.N.norm2',
    'layers.N.attn.gamma1.weight': 'blocks.N.ls1.gamma',
    'layers.N.attn': 'blocks.N.attn',
    'layers.N.ffn.gamma2.weight': 'blocks.N.ls2.gamma',
    'layers.N.ffn.layers.0.0': 'blocks.N.mlp.fc1',
    'layers.N.ffn.layers.1': 'blocks.N.mlp.fc2',
    'ln1': 'norm',
    'ln2': 'fc_norm',
}
SWIN = {
    'patch_embed.projection': 'patch_embed.proj',
    'patch_embed.norm': 'patch_embed.norm',
    'stages.N.downsample': 'layers.N.downsample',
    'stages.N.blocks.M.attn.w_msa': 'layers.N.blocks.M.attn',
    'stages.N.blocks.M.norm1': 'layers.N.blocks.M.norm1',
    'stages.N.blocks.M.norm2': 'layers.N.blocks.M.norm2',
    'stages.N.blocks.M.ffn.layers.0.0': 'layers.N.blocks.M.mlp.fc1',
    'stages.N.blocks.M.ffn.layers.1': 'layers.N.blocks.M.mlp.fc2',
    'norm3': 'norm',
}
CONVNEXT = {
    'downsample_layers.0': 'stem',
    'downsample_layers.N': 'stages.N.downsample',
    'stages.N.M.gamma': 'stages.N.blocks.M.gamma',
    'stages.N.M.depthwise_conv': 'stages.N.blocks.M.conv_dw',
    'stages.N.M.norm': 'stages.N.blocks.M.norm',
    'stages.N.M.pointwise_conv1': 'stages.N.blocks.M.mlp.fc1',
    'stages.N.M.grn.gamma': 'stages.N.blocks.M.mlp.grn.weight',
    'stages.N.M.grn.beta': 'stages.N.blocks.M.mlp.grn.bias',
    'stages.N.M.pointwise_conv2': 'stages.N.blocks.M.mlp.fc2',
    'norm3': 'head.norm',
}
# They follow from the sizes, and are not trained.
BUFFERS = ('relative_position_index', 'relative_coords_table')


@dataclass(frozen=True)
class Family:
    """How a kind of backbone is called on both sides.

    Attributes:
        ours, theirs: A parameter by which each side is known.
        names: mmpretrain's names, and timm's.
        classifier: timm's.
        first_conv: timm's.
    """

    ours: str
    theirs: str
    names: dict[str, str]
    classifier: str = 'head.fc'
    first_conv: str = 'patch_embed.proj'


# Of DTMViT as well; BEiT's own programs have timm's names.
BEIT = Family('layers.0.ln1.weight', 'blocks.0.norm1.weight', BEIT_NAMES, 'head')
SWIN_V1 = Family(
    'stages.0.blocks.0.attn.w_msa.relative_position_bias_table',
    'layers.0.blocks.0.attn.relative_position_bias_table',
    SWIN,
)
SWIN_V2 = Family(
    'stages.0.blocks.0.attn.w_msa.logit_scale',
    'layers.0.blocks.0.attn.logit_scale',
    SWIN,
)
FAMILIES = {
    'ViT': Family('pos_embed', 'blocks.0.norm1.weight', VIT, 'head'),
    'Swin': SWIN_V1,
    'Swin V2': SWIN_V2,
    'ConvNeXt': Family(
        'downsample_layers.0.0.weight', 'stem.0.weight', CONVNEXT, first_conv='stem.0'
    ),
}


def _rename(names: dict[str, str], name: str) -> str | None:
    """The other side's name; None where there is none."""
    for source, target in names.items():
        number = r'(?P<N>\d+)', r'(?P<M>\d+)'
        pattern = re.escape(source).replace('N', number[0]).replace('M', number[1])
        found = re.match(rf'{pattern}(?=\.|$)', name)
        if found:
            for letter, value in found.groupdict().items():
                target = target.replace(letter, value)
            return target + name[found.end() :]
    return None


def renamed(names: dict[str, str], weights: State) -> State:
    """Weights under the other side's names.

    Raises:
        ValueError: If there is no place for one.
    """
    targets = {name: _rename(names, name) for name in weights}
    unknown = [name for name, target in targets.items() if target is None]
    if unknown:
        raise ValueError(
            f'The backbone has {shorten(unknown)}, for which the other library has no '
            'place. Convert a backbone of one of its families: '
            f'{", ".join(FAMILIES)}.'
        )
    return {str(targets[name]): value for name, value in weights.items()}


def _merging(weights: State, to_timm: bool) -> State:
    """Bring what merges patches in Swin's two libraries to the other's order.

    mmpretrain has the four patches of a channel beside one another, row by row; timm
    the channels of a patch, and the patches column by column. mmpretrain's V1 has the
    layer at a stage's end, timm at the next one's beginning.
    """
    first = SWIN_V1.theirs in weights
    result = {}
    for name, value in weights.items():
        if '.downsample.' in name:
            if 'reduction' in name or first:  # V2 normalises what is reduced
                shape = (-1, 2, 2) if to_timm else (2, 2, -1)
                # (channel, row, column) to (column, row, channel), and back
                rows = value.reshape(-1, value.shape[-1]).unflatten(1, shape)
                value = rows.permute(0, 3, 2, 1).reshape(value.shape)
            if first:
                _, stage, rest = name.split('.', 2)
                name = f'layers.{int(stage) + (1 if to_timm else -1)}.{rest}'
        result[name] = value
    return result


def find_family(weights: State) -> Family | None:
    """The family of mmpretrain's weights, without a prefix; None if of none."""
    found = (family for family in FAMILIES.values() if family.ours in weights)
    return next(found, None)


def family_to_timm(family: Family, weights: State) -> State:
    """Rename mmpretrain's weights, of the family, for timm.

    Raises:
        ValueError: If timm has no place for one.
    """
    kept = {
        name: value
        for name, value in weights.items()
        if name != 'mask_token' and not name.endswith(BUFFERS)
    }
    converted = renamed(family.names, kept)
    return _merging(converted, to_timm=True) if family.names is SWIN else converted


def from_timm(state: State) -> tuple[State, list[str]]:
    """Convert weights of timm's ViT, Swin or ConvNeXt to mmpretrain's names.

    Args:
        state: timm's names.

    Returns:
        mmdtm's, the backbone's under 'backbone.', a classifier's under 'head.fc.'; and
        the names that are left out, as those of a pooling by attention.

    Raises:
        ValueError: If the weights are of another kind.
    """
    for family in FAMILIES.values():
        if family.theirs in state:
            break
    else:
        raise ValueError(
            'The weights are of no backbone known here: expected one of '
            f'{", ".join(FAMILIES)} of timm, and found names such as '
            f'{shorten(state)}. MaskedTimmViT takes networks of timm by their names.'
        )
    if family.names is SWIN:
        state = _merging(state, to_timm=False)
    return restore(family, state)


def restore(family: Family, state: State) -> tuple[State, list[str]]:
    """Rename timm's weights, of the family; see :func:`from_timm`."""
    back = {theirs: ours for ours, theirs in family.names.items()}
    classifier = f'{family.classifier}.'
    converted, left_out = {}, []
    for name, value in state.items():
        target = _rename(back, name)
        if name.startswith(classifier) and target is None:
            converted[name.replace(classifier, 'head.fc.', 1)] = value
        elif target is None or name.endswith(BUFFERS):
            left_out.append(name)
        else:
            converted[f'backbone.{target}'] = value
    return converted, left_out


def _depths(weights: State) -> tuple[int, ...]:
    """Blocks of each stage, or of the whole ViT."""
    numbers: dict[int, int] = {}
    for name in weights:
        found = re.match(r'(?:(?:layers|stages)\.(\d+)\.)?blocks\.(\d+)\.', name)
        if found:
            stage, block = int(found[1] or 0), int(found[2])
            numbers[stage] = max(numbers.get(stage, 0), block + 1)
    return tuple(numbers[stage] for stage in sorted(numbers))


# timm's models of each width, and the heads, which a ViT's weights do not tell.
VITS = {192: ('tiny', 3), 384: ('small', 6), 768: ('base', 12), 1024: ('large', 16)}
# By the width and the blocks of the third stage.
SWINS = {(96, 6): 'tiny', (96, 18): 'small', (128, 18): 'base', (192, 18): 'large'}
CONVNEXTS = {(96, 9): 'tiny', (96, 27): 'small', (128, 27): 'base', (192, 27): 'large'}


def describe_timm(weights: State, model: str | None = None) -> tuple[str, dict]:
    """A model of timm and the arguments that make it fit weights.

    Args:
        weights: Under timm's names.
        model: timm's name, where it is known.

    Raises:
        ValueError: If the weights do not tell it.
    """
    if model is not None:
        return model, _patches(weights)
    if 'stem.0.weight' in weights:
        return _convnext(weights)
    return _vit(weights) if 'pos_embed' in weights else _swin(weights)


def _patches(weights: State) -> dict[str, Any]:
    """Size of patches and images of a ViT with absolute positions."""
    if 'patch_embed.proj.weight' not in weights:
        return {}
    side = weights['patch_embed.proj.weight'].shape[-1]
    if 'pos_embed' not in weights:
        return dict(patch_size=side)
    # Of a square grid, and a few class and register tokens.
    grid = math.isqrt(weights['pos_embed'].shape[1])
    return dict(patch_size=side, img_size=grid * side)


def _vit(weights: State) -> tuple[str, dict]:
    width = weights['patch_embed.proj.weight'].shape[0]
    if width not in VITS:
        raise ValueError(
            f'A ViT {width} wide does not tell its number of heads, and timm has none '
            f'of that width. Convert one of {", ".join(map(str, VITS))}.'
        )
    arguments = _patches(weights) | dict(
        depth=_depths(weights)[0],
        num_heads=VITS[width][1],
        mlp_ratio=weights['blocks.0.mlp.fc1.weight'].shape[0] / width,
        class_token='cls_token' in weights,
    )
    if 'blocks.0.ls1.gamma' in weights:
        arguments['init_values'] = 1e-4  # any but None makes the layer scales
    return f'vit_{VITS[width][0]}_patch16_224', arguments


def _swin(weights: State) -> tuple[str, dict]:
    width, depths = weights['patch_embed.proj.weight'].shape[0], _depths(weights)
    size, second = SWINS.get((width, depths[2]), 'tiny'), SWIN_V2.theirs in weights
    table = 'logit_scale' if second else 'relative_position_bias_table'
    heads = [
        weights[f'layers.{stage}.blocks.0.attn.{table}'].shape[0 if second else 1]
        for stage in range(len(depths))
    ]
    arguments: dict[str, Any] = dict(
        embed_dim=width, depths=depths, num_heads=tuple(heads)
    )
    if second:  # whose windows the weights do not tell
        return f'swinv2_{size}_window8_256', dict(arguments, img_size=256)
    arguments['window_size'] = (math.isqrt(weights[SWIN_V1.theirs].shape[0]) + 1) // 2
    return f'swin_{size}_patch4_window7_224', arguments


def _convnext(weights: State) -> tuple[str, dict]:
    width, depths = weights['stem.0.weight'].shape[0], _depths(weights)
    size = CONVNEXTS.get((width, depths[2]), 'tiny')
    version = 'v2' if 'stages.0.blocks.0.mlp.grn.weight' in weights else ''
    return f'convnext{version}_{size}', dict(
        depths=depths, dims=tuple(width * 2**stage for stage in range(len(depths)))
    )
