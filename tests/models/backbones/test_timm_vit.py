"""timm's Vision Transformers as students and downstream, against timm itself."""

import mmdtm.plugin  # noqa: F401  # isort: skip


import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from tiny import dtm_config, shake

TINY = dict(embed_dim=48, depth=2, num_heads=3)
# With what comes before the patches: class, distillation and register tokens.
MODEL_TOKENS = {
    'vit_small_patch16_224': 1,
    'deit3_base_patch16_224': 1,
    'deit_small_distilled_patch16_224': 2,
    'eva02_base_patch14_224': 1,
    'vit_base_patch16_rope_224': 1,
    'vit_base_patch14_reg4_dinov2': 5,
    'vit_small_patch16_dinov3': 5,
    'vit_base_patch16_siglip_224': 0,
    'beitv2_base_patch16_224': 1,
    'vit_relpos_small_patch16_224': 0,
}


def config(name: str, kind: str = 'MaskedTimmViT', **options) -> dict:
    size = dict(img_size=64, patch_size=16) | TINY
    return dict(type=kind, model=name) | size | options


@pytest.fixture(params=MODEL_TOKENS)
def name(request):
    return request.param


def build_student(name: str, **options):
    student = MODELS.build(config(name, **options))
    shake(student, 0.05)
    student.eval()
    return student


def test_without_a_mask_it_is_timms(name):
    student = build_student(name)
    upstream = timm.create_model(
        name, img_size=64, patch_size=16, num_classes=0, **TINY
    ).eval()
    pools = isinstance(upstream.norm, torch.nn.Identity)  # and norms what it pools
    for key, value in student.network.state_dict().items():
        key = key.replace('norm.', 'fc_norm.') if pools and key[:5] == 'norm.' else key
        upstream.get_parameter(key).data.copy_(value)
    images = torch.randn(2, 3, 64, 64)
    expected = upstream.forward_features(images)
    if pools:
        expected = upstream.fc_norm(expected)
    assert student.num_extra_tokens == MODEL_TOKENS[name]
    assert student.patch_resolution == (4, 4) and student.img_size == (64, 64)
    assert torch.equal(student(images)[-1], expected)
    assert expected.shape == (2, MODEL_TOKENS[name] + 16, student.embed_dims)
    nothing = torch.zeros(2, 4, 4, dtype=torch.bool)
    assert torch.equal(student(images, nothing)[-1], expected)


def test_masked_pixels_do_not_leak_and_visible_ones_count(name, check_masking):
    check_masking(build_student(name), 4)


def test_it_learns_and_every_parameter_has_a_gradient(name, build, batch, overfit):
    dtm = dtm_config()
    dtm.update(backbone=config(name), morphing=dict(type='IdentityMorphing'))
    model = build(dtm)
    losses = overfit(model, batch(2))
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    assert losses[-1] < 0.8 * losses[0]


def test_downstream_it_pools_as_timm_and_gives_the_maps_of_its_layers(name):
    pretrained = build_student(name)
    student = {f'backbone.{k}': v for k, v in pretrained.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)

    out_type = 'cls_token' if MODEL_TOKENS[name] == 2 else 'avg_featmap'
    pooled = MODELS.build(config(name, 'TimmViT', out_type=out_type))
    whole = torch.nn.ModuleDict(dict(backbone=pooled)).eval()
    left_over = whole.load_state_dict(student, strict=False).unexpected_keys
    assert set(left_over) <= {
        f'backbone.{n}' for n in ('mask_token', 'network.norm.weight')
    } | {'backbone.network.norm.bias'}
    tokens = pooled.network.forward_features(images)
    if MODEL_TOKENS[name] != 2:  # a distilled one means its two tokens
        mean = tokens[:, MODEL_TOKENS[name] :].mean(1)
        torch.testing.assert_close(pooled(images)[-1], pooled.network.fc_norm(mean))
    assert pooled(images)[-1].shape == (2, 48)

    maps = MODELS.build(config(name, 'TimmViT', out_type='featmap', out_indices=[0, 1]))
    whole = torch.nn.ModuleDict(dict(backbone=maps)).eval()
    whole.load_state_dict(student, strict=False)
    outputs = maps(images)
    assert [output.shape for output in outputs] == [(2, 48, 4, 4)] * 2
    last = outputs[-1].flatten(2).transpose(1, 2)
    expected = pretrained(images)[-1][:, MODEL_TOKENS[name] :]
    torch.testing.assert_close(pretrained.network.norm(last), expected)
    sum(output.square().mean() for output in outputs).backward()
    assert not [n for n, p in maps.named_parameters() if p.grad is None]


def test_depths_are_those_of_timm(name):
    """But for tokens, of which timm has not all at the stem, and the final norm.

    timm has that in the last block's group, and BEiT and mmpretrain in the head's.
    """
    student = MODELS.build(config(name))
    groups = timm.models.group_parameters(
        student.network, student.network.group_matcher(coarse=False)
    )
    for depth, names in enumerate(groups):
        for parameter in groups[names] if isinstance(groups, dict) else names:
            ours, total = student.get_layer_depth(
                f'backbone.network.{parameter}', 'backbone.'
            )
            assert total == 4
            token = parameter.endswith(('_token', 'pos_embed')) or 'rope' in parameter
            last = parameter.startswith('norm.')
            assert ours == (0 if token else depth + last), parameter
    assert student.get_layer_depth('backbone.mask_token', 'backbone.') == (0, 4)
    assert student.get_layer_depth('head.fc.weight', 'backbone.') == (3, 4)


def test_timms_weights_are_the_start_at_another_size(name, tmp_path):
    """A file of images of 96 pixels, in patches of 24; resampled as timm does."""
    # timm resamples no patches of networks with relative positions.
    large = dict(img_size=96, patch_size=16 if 'relpos' in name else 24)
    source = timm.create_model(name, **large, num_classes=7, **TINY)
    path = tmp_path / 'model.safetensors'
    save_file(dict(shake(source).state_dict()), path)
    student = MODELS.build(config(name, pretrained=str(path)))
    student.init_weights()
    expected = timm.create_model(
        name,
        img_size=64,
        patch_size=16,
        num_classes=7,
        pretrained=True,
        pretrained_cfg_overlay=dict(
            state_dict=dict(source.state_dict()), num_classes=7, label_offset=0
        ),
        **TINY,
    ).state_dict()
    for key, value in student.network.state_dict().items():
        if key not in expected:
            key = key.replace('norm.', 'fc_norm.')
        assert torch.equal(value, expected[key]), key


def test_a_dynamic_size_masks_on_its_grid():
    student = build_student('vit_small_patch16_224', dynamic_img_size=True)
    images = torch.randn(1, 3, 64, 64)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    before = student(images, mask)[-1]
    images[:, :, 16:32, 32:48] = 0
    assert torch.equal(student(images, mask)[-1], before)
    images[:, :, 32:48, 16:32] = 0  # the transposed position
    assert not torch.equal(student(images, mask)[-1], before)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(model='vit_smal_patch16_224'), 'near it: .*vit_small_patch16_224'),
        (dict(model='resnet18', img_size=64), 'does not take .*img_size'),
        (dict(model='resnet18'), 'no fixed grid of patch tokens.*plain ViT'),
        (
            dict(model='swin_tiny_patch4_window7_224'),
            'no fixed grid.*MaskedSwinTransformer',
        ),
        (
            dict(model='test_vit', patch_drop_rate=0.5),
            r'drops tokens in training \(patch_drop_rate\)\. Choose',
        ),
        (dict(model='test_vit', img_size=100), 'img_size 100 x 100.*96 x 96'),
        (dict(model='test_vit', out_type='mean'), "out_type is 'mean'.*avg_featmap"),
        (dict(model='test_vit', out_indices=[6]), 'beyond the 6 layers.*to 5'),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='MaskedTimmViT', **options))


def test_a_hybrid_whose_patches_overlap_is_refused():
    with pytest.raises(ValueError, match='patches do not overlap'):
        MODELS.build(dict(type='MaskedTimmViT', model='vit_tiny_r_s16_p8_224'))


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / 'model.safetensors'
    other = timm.create_model('vit_small_patch16_224', num_classes=0, **TINY)
    save_file(other.state_dict(), path)
    wider = config('vit_small_patch16_224', pretrained=str(path), embed_dim=96)
    with pytest.raises(ValueError, match=r'(?s)does not hold timm.*size mismatch'):
        MODELS.build(wider).init_weights()
    registers = config('vit_small_patch16_224', pretrained=str(path), reg_tokens=2)
    with pytest.raises(ValueError, match='does not hold timm'):
        MODELS.build(registers).init_weights()
    student = MODELS.build(config('vit_small_patch16_224'))
    weights = student.state_dict()
    with pytest.raises(ValueError, match='of another size: cls_token'):
        MODELS.build(wider | dict(pretrained=False)).load_state_dict(weights)
    del weights['network.blocks.1.norm1.bias']
    with pytest.raises(ValueError, match='lacks blocks.1.norm1.bias'):
        student.load_state_dict(weights)
