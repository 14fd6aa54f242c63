"""mmpretrain's backbones as students: masks, gradients, upstream's output, loading."""

import copy

import pytest
import torch
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmpretrain.registry import MODELS
from tiny import ARCH, dtm_config, shake
from torch import nn

import mmdtm.plugin  # noqa: F401

SWIN = dict(embed_dims=6, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 3])
FAMILIES = dict(
    MaskedVisionTransformer=dict(arch=ARCH, img_size=64),
    MaskedViTEVA02=dict(arch=ARCH, img_size=64),
    MaskedBEiTViT=dict(arch=ARCH, img_size=64),
    MaskedSwinTransformer=dict(
        arch=SWIN, img_size=64, window_size=2, drop_path_rate=0.0
    ),
    MaskedSwinTransformerV2=dict(
        arch=dict(SWIN, extra_norm_every_n_blocks=0),
        img_size=64,
        window_size=2,
        drop_path_rate=0.0,
    ),
    MaskedConvNeXt=dict(arch=dict(depths=[1, 1, 2, 1], channels=[6, 12, 24, 48])),
)
V2 = dict(use_grn=True, layer_scale_init_value=0.0)
CASES = [
    *FAMILIES.items(),
    ('MaskedConvNeXt', FAMILIES['MaskedConvNeXt'] | V2),
    ('MaskedVisionTransformer', dict(arch=ARCH, img_size=64, with_cls_token=False)),
    (
        'MaskedVisionTransformer',
        dict(arch=ARCH, img_size=64, layer_scale_init_value=1e-4),
    ),
]
IDS = [*FAMILIES, 'ConvNeXtV2', 'no-class-token', 'DeiT3']
HIERARCHICAL = ('Swin', 'ConvNeXt')


def student_config(kind: str, options: dict) -> dict:
    config = dict(options, type=kind)
    return config | dict(img_size=64) if kind == 'MaskedConvNeXt' else config


def grid_of(kind: str) -> int:
    return 2 if any(name in kind for name in HIERARCHICAL) else 4


@pytest.fixture(params=CASES, ids=IDS)
def case(request):
    kind, options = request.param
    student = MODELS.build(student_config(kind, options))
    shake(student, 0.05)
    student.eval()
    return kind, options, student


def test_without_a_mask_it_is_upstreams(case):
    kind, options, student = case
    plain = dict(out_type='raw', final_norm=True)
    if 'ConvNeXt' in kind:
        plain = dict(gap_before_final_norm=False)
    elif 'Swin' in kind:
        plain = {}
    upstream = MODELS.build(dict(options, type=kind.removeprefix('Masked'), **plain))
    weights = {k: v for k, v in student.state_dict().items() if k != 'mask_token'}
    lacking, left_over = upstream.load_state_dict(weights, strict=False)
    assert not left_over
    assert all('relative_' in name for name in lacking)  # Swin V2 recomputes them
    upstream.eval()
    images = torch.randn(2, 3, 64, 64)
    expected = upstream(images)[-1]
    if expected.ndim == 4:
        expected = expected.flatten(2).transpose(1, 2)
    grid = grid_of(kind)
    tokens = student(images)[-1]
    assert torch.equal(tokens, expected)
    assert student.patch_resolution == (grid, grid)
    assert tokens.shape == (2, student.num_extra_tokens + grid**2, student.embed_dims)
    nothing = torch.zeros(2, grid, grid, dtype=torch.bool)
    assert torch.equal(student(images, nothing)[-1], expected)


@pytest.mark.parametrize('kind', [k for k in FAMILIES if grid_of(k) == 2])
def test_activation_checkpointing_gives_the_same_gradients(kind):
    gradients, runs = [], []
    for with_cp in (False, True):
        torch.manual_seed(0)
        student = MODELS.build(
            student_config(kind, FAMILIES[kind]) | {'with_cp': with_cp}
        )
        count = []
        for module in student.modules():
            if getattr(module, 'with_cp', None) is not None:
                norm = next(m for m in module.modules() if isinstance(m, nn.LayerNorm))
                norm.register_forward_hook(lambda *_, c=count: c.append(1))
        student.train()
        student(torch.randn(2, 3, 64, 64))[-1].square().sum().backward()
        runs.append(len(count))
        gradients.append([p.grad for p in student.parameters()])
    assert runs[1] == 2 * runs[0] > 0, 'each block is computed twice'
    torch.testing.assert_close(*gradients)


def test_masked_pixels_do_not_leak_and_visible_ones_count(case, check_masking):
    kind, _, student = case
    check_masking(student, grid_of(kind))


def dtm(kind: str, options: dict) -> dict:
    config = dtm_config()
    config['backbone'] = student_config(kind, options)
    if grid_of(kind) == 2:
        config['head'].update(grid_size=4)
    return config


def batch_for(kind: str, batch) -> dict:
    data = batch(2)
    if grid_of(kind) == 2:
        for sample in data['data_samples']:
            sample.mask = torch.tensor([[True, False], [False, False]])
    return data


@pytest.mark.parametrize(('kind', 'options'), CASES, ids=IDS)
def test_it_learns_and_every_parameter_has_a_gradient(
    kind, options, build, batch, overfit
):
    model = build(dtm(kind, options))
    model.morphing = MODELS.build(dict(type='IdentityMorphing'))
    losses = overfit(model, batch_for(kind, batch))
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(('kind', 'options'), CASES, ids=IDS)
def test_a_mask_on_another_grid_is_refused(kind, options):
    student = MODELS.build(student_config(kind, options))
    with pytest.raises(ValueError, match=r'mask must be .*input_size of the Block'):
        student(torch.randn(1, 3, 64, 64), torch.zeros(1, 3, 3, dtype=torch.bool))


@pytest.mark.parametrize('kind', FAMILIES)
def test_an_unknown_arch_gets_near_ones(kind):
    with pytest.raises(ValueError, match=f"{kind} has no arch 'smal'.* small"):
        MODELS.build(dict(type=kind, arch='smal'))


@pytest.mark.parametrize('kind', FAMILIES)
def test_layer_depths_rise_from_the_patches_to_the_head(kind):
    student = MODELS.build(student_config(kind, FAMILIES[kind]))
    depths = {}
    for name, _ in student.named_parameters():
        depths[name], total = student.get_layer_depth(f'backbone.{name}', 'backbone.')
    assert depths['mask_token'] == 0
    embedding = [d for n, d in depths.items() if n.startswith(('patch_', 'downs'))]
    assert min(embedding) == 0
    assert max(depths.values()) == total - 1  # the final norm
    assert set(depths.values()) >= {0, 1, 2, total - 2}
    assert student.get_layer_depth('head.fc.weight', 'backbone.') == (total - 1, total)


def test_swin_v2_has_the_depths_of_swin():
    both = [
        MODELS.build(student_config(kind, FAMILIES[kind]))
        for kind in ('MaskedSwinTransformer', 'MaskedSwinTransformerV2')
    ]
    for stage in range(4):
        name = f'stages.{stage}.blocks.0.attn.w_msa.qkv.weight'
        assert both[0].get_layer_depth(name) == both[1].get_layer_depth(name)
    for stage in range(3):
        assert both[0].get_layer_depth(f'stages.{stage}.downsample.norm.weight') == (
            both[1].get_layer_depth(f'stages.{stage + 1}.downsample.norm.weight')
        )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(type='MaskedSwinTransformer', img_size=200),
            '200 x 200.*stride, 32.*192',
        ),
        (dict(type='MaskedConvNeXt', arch='atto', img_size=100), 'multiple.*96 x 96'),
        (dict(type='MaskedSwinTransformer', use_abs_pos_embed=True), 'no absolute'),
        (
            dict(
                type='MaskedVisionTransformer',
                arch=ARCH,
                patch_cfg=dict(kernel_size=16, stride=8),
            ),
            '16x16 pixels every 8x8',
        ),
    ],
    ids=['swin', 'convnext', 'positions', 'overlap'],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(options)


def test_a_head_that_does_not_divide_names_both_grids():
    config = dtm('MaskedConvNeXt', FAMILIES['MaskedConvNeXt'])
    config['head'].update(grid_size=5)
    with pytest.raises(ValueError, match=r'2 x 2 pos.*5 x 5 .*grid_size.*img_size'):
        MODELS.build(config)


def test_a_checkpoint_of_another_size_or_of_something_else_is_refused():
    student = MODELS.build(dict(type='MaskedBEiTViT', arch=ARCH, img_size=64))
    weights = student.state_dict()
    wide = dict(weights, cls_token=torch.zeros(1, 1, 24))
    with pytest.raises(ValueError, match=r'another size: cls_token is \(1, 1, 24\)'):
        student.load_state_dict(wide)
    with pytest.raises(ValueError, match='lacks .*cls_token'):
        _load_checkpoint_to_model(student, dict(mask_token=weights['mask_token']))
    del weights['mask_token']  # of a supervised run
    student.load_state_dict(weights)


def test_positions_of_another_grid_are_resized():
    small = MODELS.build(dict(type='MaskedVisionTransformer', arch=ARCH, img_size=64))
    large = MODELS.build(dict(type='MaskedVisionTransformer', arch=ARCH, img_size=96))
    large.load_state_dict(small.state_dict())
    assert large.pos_embed.shape == (1, 37, 48)


def test_a_copy_checks_and_masks_by_itself():
    student = MODELS.build(dict(type='MaskedBEiTViT', arch=ARCH, img_size=64))
    copied = copy.deepcopy(student)
    weights = {k: v for k, v in student.state_dict().items() if k != 'mask_token'}
    shake(student)
    started = copied.mask_token.detach().clone()
    copied.load_state_dict(weights)
    assert torch.equal(copied.mask_token, started)
    assert not torch.equal(student.mask_token, started)
    assert not copied.patch_embed._forward_hooks
