"""mmpretrain's backbones in timm and back: equal outputs, equal weights."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from tiny import shake

from mmdtm.io.converters import to_timm, write_timm
from mmdtm.io.timm_names import from_timm

# Widths by which timm's ViTs tell their heads; stages as narrow as Swin allows.
VIT = dict(embed_dims=192, num_layers=2, num_heads=3, feedforward_channels=768)
SWIN = dict(embed_dims=6, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 3])
CONVNEXT = dict(arch=dict(depths=[1, 1, 2, 1], channels=[6, 12, 24, 48]))
CASES = dict(
    ViT=dict(type='VisionTransformer', arch=VIT, img_size=64),
    DeiT3=dict(
        type='VisionTransformer', arch=VIT, img_size=64, layer_scale_init_value=0.1
    ),
    BEiT=dict(type='BEiTViT', arch=VIT, img_size=64),
    Swin=dict(type='SwinTransformer', arch=SWIN, window_size=2),
    SwinV2=dict(
        type='SwinTransformerV2',
        arch=dict(SWIN, extra_norm_every_n_blocks=0),
        img_size=256,
        window_size=8,
    ),
    ConvNeXt=dict(type='ConvNeXt', **CONVNEXT),
    ConvNeXtV2=dict(
        type='ConvNeXt', **CONVNEXT, use_grn=True, layer_scale_init_value=0.0
    ),
)
NETWORK = 'vit_small_patch14_reg4_dinov2'
TIMM = dict(
    model=NETWORK, img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=2
)


def classifier(backbone: dict) -> torch.nn.Module:
    plain = backbone['type'] in ('VisionTransformer', 'BEiTViT', 'TimmViT')
    pooled = dict(out_type='avg_featmap', final_norm=False) if plain else {}
    width = dict(VisionTransformer=192, BEiTViT=192, TimmViT=24)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone | pooled,
            neck=dict(type='GlobalAveragePooling')
            if 'Swin' in backbone['type']
            else None,
            head=dict(
                type='LinearClsHead',
                num_classes=7,
                in_channels=width.get(backbone['type'], 48),
            ),
        )
    )
    shake(model, 0.05)
    model.eval()
    return model


def create(arguments: str, state: dict, **more) -> torch.nn.Module:
    call = f'timm.create_model({arguments}, **more)'
    network = eval(call, dict(timm=timm, more=more))
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize('name', CASES)
def test_a_fine_tuned_model_has_the_same_logits_in_timm(name, tmp_path):
    model = classifier(CASES[name])
    side = CASES[name].get('img_size', 224)
    images = torch.randn(2, 3, side, side)
    state, arguments = to_timm(model.state_dict())
    expected = model.head.fc(model.extract_feat(images)[-1])
    torch.testing.assert_close(
        create(arguments, state)(images), expected, atol=1e-4, rtol=1e-4
    )
    write_timm(state, arguments, tmp_path / 'folder')
    from_folder = timm.create_model(f'local-dir:{tmp_path}/folder', pretrained=True)
    torch.testing.assert_close(
        from_folder.eval()(images), expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize('name', CASES)
def test_a_pre_trained_student_has_the_same_tokens_in_timm(name):
    config = dict(CASES[name], type=f'Masked{CASES[name]["type"]}')
    student = MODELS.build(config)
    shake(student, 0.05)
    student.eval()
    side = student.img_size[0]
    images = torch.randn(2, 3, side, side)
    state, arguments = to_timm(
        {f'backbone.{key}': value for key, value in student.state_dict().items()}
    )
    network = create(arguments, state)
    tokens = network.forward_features(images)
    if 'Swin' in name:
        tokens = tokens.flatten(1, 2)  # (B, h, w, C)
    elif 'ConvNeXt' in name:
        tokens = network.head.norm(tokens).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, student(images)[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', [name for name in CASES if name != 'BEiT'])
def test_there_and_back_all_weights_are_equal(name):
    state = classifier(CASES[name]).state_dict()
    back, left_out = from_timm(to_timm(state)[0])
    buffers = {key for key in state if key.endswith(('_index', '_coords_table'))}
    normalise = {key for key in state if key.startswith('data_preprocessor')}
    assert back.keys() == state.keys() - buffers - normalise and not left_out
    for key, value in back.items():
        assert torch.equal(value, state[key]), key


def test_the_names_of_timms_own_files_are_all_known():
    """As they are published, with classifiers, at the smallest sizes."""
    for name, options in {
        'deit_tiny_patch16_224': dict(depth=1),
        'swin_tiny_patch4_window7_224': dict(depths=(1, 1, 1, 1)),
        'swinv2_tiny_window8_256': dict(depths=(1, 1, 1, 1)),
        'convnext_tiny': dict(depths=(1, 1, 1, 1)),
        'convnextv2_tiny': dict(depths=(1, 1, 1, 1)),
    }.items():
        state = timm.create_model(name, num_classes=7, **options).state_dict()
        converted, left_out = from_timm(state)
        assert not left_out and len(converted) == len(state), name
        back, arguments = to_timm(converted)
        assert arguments.startswith(repr(name).replace('deit', 'vit'))
        assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize('kind', ['MaskedTimmViT', 'TimmViT'])
def test_a_network_of_timm_goes_to_timm_by_its_name(kind):
    images = torch.randn(2, 3, 64, 64)
    sizes = {key: TIMM[key] for key in ('embed_dim', 'depth', 'num_heads')}
    if kind == 'TimmViT':
        model = classifier(dict(TIMM, type=kind))
        expected = model.head.fc(model.extract_feat(images)[-1])
        state, arguments = to_timm(model.state_dict(), NETWORK)
        network = create(arguments, state, **sizes)
        torch.testing.assert_close(network(images), expected)
    else:
        student = shake(MODELS.build(dict(TIMM, type=kind)))
        student.eval()
        state, arguments = to_timm(student.state_dict(), NETWORK)
        network = create(arguments, state, **sizes)
        assert torch.equal(network.forward_features(images), student(images)[-1])
    assert 'img_size=64' in arguments and 'patch_size=16' in arguments
    with pytest.raises(ValueError, match='whose name .* do not tell.*--model NAME'):
        to_timm({'network.norm.weight': torch.ones(2)})


def test_what_timm_has_no_place_for_is_refused():
    arch = dict(embed_dims=48, num_layers=1, num_heads=3, feedforward_channels=96)
    student = MODELS.build(dict(type='MaskedViTEVA02', arch=arch, img_size=64))
    with pytest.raises(ValueError, match="different angles.*type='MaskedTimmViT'"):
        to_timm(student.state_dict())
    student = MODELS.build(dict(type='MaskedVisionTransformer', arch=arch, img_size=64))
    with pytest.raises(ValueError, match='48 wide does not tell.*192, 384'):
        to_timm(student.state_dict())
    both = {'layers.0.ln1.weight': torch.ones(8), 'pos_embed': torch.ones(1, 4, 8)}
    both |= {'ln1.weight': torch.ones(8), 'ln2.weight': torch.ones(8)}
    with pytest.raises(ValueError, match=r'both final norms.*final_norm=False'):
        to_timm(both)
    state = MODELS.build(dict(type='MaskedConvNeXt', **CONVNEXT)).state_dict()
    with pytest.raises(ValueError, match='has other.weight, for which'):
        to_timm(dict(state, **{'other.weight': torch.zeros(1)}))
    with pytest.raises(ValueError, match='no backbone known here.*MaskedTimmViT'):
        from_timm({'conv1.weight': torch.zeros(1)})
