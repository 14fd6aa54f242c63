"""TimmGenerator against timm's own modules."""

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from tiny import shake
from torch import nn

from mmdtm.models.target_generators import TimmGenerator
from mmdtm.models.target_generators.timm_generator import measure

TINY = dict(embed_dim=24, depth=2, num_heads=2)


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """The named models with their own structure and settings, only thinner."""
    for cls in (VisionTransformer, Eva):

        def init(self, *args, _init=cls.__init__, **kwargs):
            _init(self, *args, **{**kwargs, **TINY})

        monkeypatch.setattr(cls, '__init__', init)


def network(name, **kwargs):
    model = timm.create_model(name, num_classes=0, **kwargs).eval()
    shake(model)
    return model


def save(model, tmp_path):
    path = tmp_path / 'model.safetensors'
    save_file(dict(model.state_dict()), path)
    return str(path)


def test_normalisation_and_grid_are_the_networks_own():
    config = dict(
        type='TimmGenerator', model='vit_base_patch16_siglip_224', random_weights=True
    )
    generator = MODELS.build(config)
    assert generator.mean == generator.std == [127.5] * 3
    assert generator.grid_size == (14, 14)


def test_file_with_a_classifier_loads(tmp_path):
    name = 'vit_base_patch16_224'
    model = timm.create_model(name, num_classes=10)
    generator = TimmGenerator(name, pretrained=save(model, tmp_path))
    assert torch.equal(generator.teacher.cls_token, model.cls_token)
    assert 'state_dict' not in generator.teacher.pretrained_cfg


def test_a_network_that_is_not_pretrained_is_warned_of():
    with pytest.warns(UserWarning, match='RANDOM TEACHER: TimmGenerator'):
        TimmGenerator('test_vit', pretrained=False)


@pytest.mark.parametrize('name', ['levit_128s', 'crossvit_tiny_240'])
def test_a_network_without_a_patch_grid_is_refused(name):
    with pytest.raises(ValueError, match='has no patch grid.*Choose a teacher'):
        TimmGenerator(name, random_weights=True)


class HiddenClassToken(nn.Module):
    """Gives a class token before its patches and does not say so."""

    num_prefix_tokens = 0
    feature_info = ({'reduction': 16},)

    def forward_features(self, images):
        return images.new_ones(len(images), 1 + images[0, 0].numel() // 256, 8)

    def forward_head(self, features):
        return features.mean(1)


def test_a_network_that_hides_its_class_token_is_refused():
    with pytest.raises(ValueError, match='HiddenClassToken has no patch grid'):
        measure(HiddenClassToken(), (32, 32))
    open_about_it = HiddenClassToken()
    open_about_it.num_prefix_tokens = 1
    assert measure(open_about_it, (32, 32)) == ((16, 16), 8)


def test_a_network_of_one_size_refuses_another():
    generator = TimmGenerator('tnt_s_legacy_patch16_224', random_weights=True)
    with pytest.raises(
        ValueError,
        match='14x14 patches .* student 4x4 .* TNT takes images of one size alone. '
        'Choose a student with 14x14 patches or another teacher',
    ):
        generator.set_student_grid((4, 4), 64)


def test_an_unknown_model_and_a_missing_or_alien_file_are_named(tmp_path):
    for name, near in {
        'vit_base_patch14_dinov22': 'vit_base_patch14_dinov2',
        'vit_base_patch16_dinov3.lvd1698m': 'vit_base_patch16_dinov3.lvd1689m',
    }.items():
        with pytest.raises(ValueError, match=f'no model .{name}.*near it: .*{near}'):
            TimmGenerator(name)
    with pytest.raises(FileNotFoundError, match='absent'):
        TimmGenerator('test_vit', pretrained=str(tmp_path / 'absent.safetensors'))
    path = tmp_path / 'alien.pt'
    torch.save({'layers.weight': torch.zeros(3)}, path)
    with pytest.raises(
        ValueError,
        match="(?s)alien.pt does not hold timm's test_vit .*Give the weights",
    ):
        TimmGenerator('test_vit', pretrained=str(path))
    state = network('test_vit').state_dict()
    wide = {name: value.repeat_interleave(2, 0) for name, value in state.items()}
    torch.save(wide, path)
    with pytest.raises(ValueError, match='(?s)size mismatch for .*Give the weights of'):
        TimmGenerator('test_vit', pretrained=str(path))
    del state['norm.bias']
    torch.save(state, path)
    with pytest.raises(ValueError, match='norm.bias'):
        TimmGenerator('test_vit', pretrained=str(path))


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(timm.models._builder, 'load_state_dict_from_hf', no_network)
    with pytest.raises(FileNotFoundError, match='no route to host.*path'):
        TimmGenerator('test_vit')
