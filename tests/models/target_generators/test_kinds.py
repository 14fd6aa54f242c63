"""Every kind of image tower, thin: its tokens against a forward by hand.

The networks have the classes and structure of their names in open_clip and timm, and
a few thousand weights. By hand, each patch goes through the tower's leaf modules; a
pooling by attention gives a patch alone its own value.
"""

import copy

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.model import _build_vision_tower
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.fastvit import FastVit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from tiny import shake

from mmdtm.models.target_generators import OpenCLIPGenerator, TimmGenerator
from mmdtm.models.target_generators.half_weights import without_fast_path

VIT = dict(embed_dim=24, depth=2, num_heads=2)
THIN = {
    VisionTransformer: VIT,
    Eva: VIT,
    VisionTransformerSAM: VIT | dict(neck_chans=16, global_attn_indexes=(1,)),
    ConvNeXt: dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 24)),
    SwinTransformer: dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
    FastVit: dict(layers=(1, 1, 1, 1), embed_dims=(8, 8, 16, 32)),
}


@pytest.fixture(autouse=True)
def thin(monkeypatch):
    """The named models with their own structure and settings, only thinner."""
    for cls, small in THIN.items():

        def init(self, *args, _init=cls.__init__, _small=small, **kwargs):
            if 'embed_layer' in kwargs:  # a convolutional stem, as wide as the ViT
                _small = dict(depth=1)
            _init(self, *args, **{**kwargs, **_small})

        monkeypatch.setattr(cls, '__init__', init)


def value_alone(attention, token):
    """What attention of open_clip's pooler gives one token alone."""
    width = attention.embed_dim
    weight = attention.v_proj_weight
    if weight is None:
        weight = attention.in_proj_weight[2 * width :]
    return attention.out_proj(token @ weight.T + attention.in_proj_bias[2 * width :])


def own_tower(tower, images):
    """open_clip's own VisionTransformer; patch tokens before its pooling."""
    x = F.conv2d(images, tower.conv1.weight, stride=tower.patch_size)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], dim=1)
    x = tower.ln_pre(x + tower.positional_embedding)
    for block in tower.transformer.resblocks:
        x = x + block.ls_1(block.attention(block.ln_1(x)))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return x[:, 1:]


def pooled_vit(tower, images):
    return tower.ln_post(own_tower(tower, images)) @ tower.proj


def coca(tower, images):
    pooler = tower.attn_pool
    x = value_alone(pooler.attn, pooler.ln_k(own_tower(tower, images)))
    return tower.ln_post(x) @ tower.proj


def parallel(tower, images):
    pooler = tower.attn_pool_contrastive
    x = tower.ln_post(own_tower(tower, images))
    return value_alone(pooler.attn, pooler.ln_k(x)) @ tower.proj


def cascade(tower, images):
    x = tower.ln_post(own_tower(tower, images))
    for pooler in (tower.attn_pool, tower.attn_pool_contrastive):
        x = value_alone(pooler.attn, pooler.ln_k(x))
    return x @ tower.proj


def vit(network, images):
    """Patch tokens of timm's ViTs, rotary or not, after the final norm."""
    patches = network.patch_embed(images)
    if patches.ndim == 4:  # NHWC
        patches = patches.flatten(1, 2)
    grid = tuple(n // s for n, s in zip(images.shape[2:], stride(network), strict=True))
    assert patches.shape[1] == grid[0] * grid[1]
    names = ('cls_token', 'reg_token')
    prefix = [getattr(network, name, None) for name in names]
    prefix = [
        token.expand(len(images), -1, -1) for token in prefix if token is not None
    ]
    position = getattr(network, 'pos_embed', None)
    if position is None:
        x = torch.cat([*prefix, patches], dim=1)
    elif position.shape[1] == patches.shape[1]:
        x = torch.cat([*prefix, patches + position], dim=1)
    else:
        x = torch.cat([*prefix, patches], dim=1) + position
    norm = getattr(network, 'norm_pre', None)
    x = x if norm is None else norm(x)
    rope = getattr(network, 'rope', None)
    options = {} if rope is None else dict(rope=rope.get_embed(shape=grid))
    for block in network.blocks:
        x = block(x, **options)
    return network.fc_norm(network.norm(x))[:, sum(t.shape[1] for t in prefix) :]


def stride(network):
    return [network.feature_info[-1]['reduction']] * 2


def trunk_head(tower, images):
    """EVA-02-CLIP, MobileCLIP-B: timm's own head projects."""
    return tower.trunk.head(vit(tower.trunk, images))


def map_pooled(tower, images):
    """SigLIP, PE: attention pooling, here to each patch's own value."""
    pooler = tower.trunk.attn_pool
    x = vit(tower.trunk, images)
    value = pooler.kv(x)[..., x.shape[2] :]
    x = pooler.proj(value)
    return tower.trunk.head(x + pooler.mlp(pooler.norm(x)))


def vitamin(tower, images):
    return tower.head.proj(vit(tower.trunk, images))


def rows(maps):
    """(B, C, h, w) to (B, h w, C)."""
    return torch.stack([maps[:, :, i, j] for i, j in cells(maps.shape[2:])], dim=1)


def cells(grid):
    return [(i, j) for i in range(grid[0]) for j in range(grid[1])]


def fastvit(tower, images):
    trunk = tower.trunk
    maps = trunk.final_conv(trunk.stages(trunk.stem(images)))
    return trunk.head.fc(rows(maps))


def convnext_maps(network, images):
    x = network.norm_pre(network.stages(network.stem(images)))
    return F.layer_norm(
        rows(x), x.shape[1:2], network.head.norm.weight, network.head.norm.bias, 1e-6
    )


def convnext(tower, images):
    return tower.head.proj(convnext_maps(tower.trunk, images))


def convnext_mlp(tower, images):
    return tower.head.mlp(convnext_maps(tower.trunk, images))


def swin_maps(network, images):
    x = network.norm(network.layers(network.patch_embed(images)))
    return torch.stack([x[:, i, j] for i, j in cells(x.shape[1:3])], dim=1)


def swin(tower, images):
    return tower.head.proj(swin_maps(tower.trunk, images))


def sam(network, images):
    x = network.patch_embed(images)
    position = network.pos_embed.permute(0, 3, 1, 2)
    side = x.shape[1:3]
    position = F.interpolate(position, side, mode='bicubic', antialias=True)
    x = network.blocks(network.norm_pre(x + position.permute(0, 2, 3, 1)))
    return rows(network.neck(x.permute(0, 3, 1, 2)))


OWN = dict(image_size=32, patch_size=8, width=32, head_width=16, layers=2)
# Name in open_clip, or options of its own tower; D; how by hand.
OPEN_CLIP = {
    'class token': (OWN, 16, pooled_vit),
    'mean (CLIPA)': (
        OWN | dict(pool_type='avg', final_ln_after_pool=True, no_ln_pre=True),
        16,
        pooled_vit,
    ),
    'mean, norm first': (OWN | dict(pool_type='avg'), 16, pooled_vit),
    'layer scale': (OWN | dict(ls_init_value=0.1), 16, pooled_vit),
    'CoCa': (OWN | dict(attentional_pool=True), 16, coca),
    'CoCa, mean': (OWN | dict(attentional_pool=True, pool_type='avg'), 16, coca),
    'CoCa, parallel': (OWN | dict(attentional_pool='parallel'), 32, parallel),
    'CoCa, cascade': (OWN | dict(attentional_pool='cascade'), 32, cascade),
    'SigLIP': ('ViT-B-16-SigLIP', 24, map_pooled),
    'SigLIP 2': ('ViT-B-16-SigLIP2-256', 24, map_pooled),
    'PE-Core': ('PE-Core-B-16', 16, map_pooled),
    'EVA-01-CLIP': ('EVA01-g-14', 16, trunk_head),
    'EVA-02-CLIP': ('EVA02-B-16', 16, trunk_head),
    'MobileCLIP-B': ('MobileCLIP-B', 16, trunk_head),
    'MobileCLIP2-L': ('MobileCLIP2-L-14', 16, trunk_head),
    'MobileCLIP-S': ('MobileCLIP-S1', 16, fastvit),
    'ViTamin': ('ViTamin-B', 16, vitamin),
    'mean of timm': ('vit_medium_patch16_gap_256', 16, vitamin),
    'ConvNeXt': ('convnext_base', 16, convnext),
    'ConvNeXt, MLP': ('convnext_large_d', 16, convnext_mlp),
    'Swin': ('swin_base_patch4_window7_224', 16, swin),
}
TIMM = {
    'DINOv2': ('vit_small_patch14_dinov2', vit),
    'DINOv2 with registers': ('vit_small_patch14_reg4_dinov2', vit),
    'DINOv3': ('vit_small_patch16_dinov3', vit),
    'SigLIP': ('vit_base_patch16_siglip_224', vit),
    'PE-Core': ('vit_pe_core_tiny_patch16_384', vit),
    'PE-Spatial': ('vit_pe_spatial_tiny_patch16_512', vit),
    'EVA-02': ('eva02_tiny_patch14_224', vit),
    'EVA-02-CLIP': ('eva02_base_patch16_clip_224', vit),
    'DeiT III': ('deit3_small_patch16_224', vit),
    'mean, norm after': ('vit_base_patch16_224.mae', vit),
    'SAM': ('samvit_base_patch16', sam),
    'ConvNeXt': ('convnext_tiny', convnext_maps),
    'Swin': ('swin_tiny_patch4_window7_224', swin_maps),
}


def tokens_in_another_grid(generator, side=3):
    """Images that the teacher sees at ``side`` x ``side`` patches, and its tokens."""
    size = tuple(side * n for n in generator.patch_size)
    generator.set_student_grid((side, side), size)
    images = torch.randn(2, 3, *size)
    tokens = generator(images)
    assert tokens.shape == (2, side * side, generator.out_channels)
    return images, tokens


def check_half_precision(generator, images):
    """Weights that were cast once give what autocast gives, to the bit."""
    generator.dtype = 'bfloat16'
    generator._choose_precision()
    autocast = torch.autocast('cpu', torch.bfloat16)
    with torch.no_grad(), autocast, without_fast_path():
        expected = generator.extract_tokens(images).float()
    assert torch.equal(generator(images), expected) and generator._half_weights
    assert torch.equal(generator(images), expected)


@pytest.mark.parametrize('kind', OPEN_CLIP)
def test_tokens_of_open_clips_towers_are_those_by_hand(kind, tmp_path):
    tower, width, by_hand = OPEN_CLIP[kind]
    if isinstance(tower, str):
        tower = open_clip.get_model_config(tower)['vision_cfg']
    config = dict(embed_dim=width, vision_cfg=tower)
    reference = shake(_build_vision_tower(width, dict(tower))).eval()
    path = tmp_path / 'clip.safetensors'
    state = reference.state_dict()
    save_file({f'visual.{name}': state[name].clone() for name in state}, path)
    generator = OpenCLIPGenerator('thin', str(path), config)
    assert generator.out_channels == width
    if hasattr(reference, 'trunk'):
        images, tokens = tokens_in_another_grid(generator)
        reference.trunk = resized(reference.trunk, generator.input_size)
    else:
        images = torch.randn(2, 3, 32, 32)
        tokens = generator(images)
    with torch.no_grad():
        expected = by_hand(reference, images)
    assert expected.std(dim=1).mean() > 1e-3  # from patch to patch
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)
    check_half_precision(generator, images)


@pytest.mark.parametrize('kind', TIMM)
def test_tokens_of_timms_networks_are_those_by_hand(kind):
    name, by_hand = TIMM[kind]
    reference = shake(timm.create_model(name, num_classes=0)).eval()
    generator = TimmGenerator(name, random_weights=True)
    loaded = generator.teacher.load_state_dict(reference.state_dict(), strict=False)
    assert not loaded.missing_keys
    assert all(key.startswith('attn_pool.') for key in loaded.unexpected_keys)
    images, tokens = tokens_in_another_grid(generator)
    with torch.no_grad():
        expected = by_hand(resized(reference, generator.input_size), images)
    assert expected.std(dim=1).mean() > 1e-3  # from patch to patch
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)
    check_half_precision(generator, images)


def resized(network, size):
    network = copy.deepcopy(network)
    if hasattr(network, 'set_input_size'):
        network.set_input_size(img_size=size)
    elif isinstance(network, VisionTransformerSAM):
        network.patch_embed.set_input_size(img_size=size)
    return network
