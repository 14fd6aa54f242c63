"""TimmGenerator against timm's own modules."""

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from tiny import shake

from mmdtm.models.target_generators import TimmGenerator

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


@pytest.mark.parametrize(
    'name, prefix',
    [
        ('vit_base_patch14_reg4_dinov2', 5),
        ('vit_base_patch16_dinov3', 5),
        ('vit_base_patch16_siglip_224', 0),
        ('eva02_base_patch16_clip_224', 1),
    ],
)
def test_tokens_at_the_students_grid_equal_those_of_timm(name, prefix, tmp_path):
    model = network(name)
    generator = TimmGenerator(name, pretrained=save(model, tmp_path))
    side = generator.patch_size[0] * 4
    generator.set_student_grid((4, 4), 64)
    assert generator.input_size == (side, side)
    images = torch.randn(2, 3, 64, 64)
    tokens = generator(images)

    model.set_input_size(img_size=(side, side))
    resized = torch.nn.functional.interpolate(
        images, size=(side, side), mode='bicubic', antialias=True
    )
    with torch.no_grad():
        expected = model.forward_features(resized)[:, prefix:]
    assert tokens.shape == (2, 16, 24) and generator.out_channels == 24
    torch.testing.assert_close(tokens, expected)


def test_normalisation_and_grid_are_the_networks_own():
    config = dict(
        type='TimmGenerator', model='vit_base_patch16_siglip_224', random_weights=True
    )
    generator = MODELS.build(config)
    assert generator.mean == generator.std == [127.5] * 3
    assert generator.grid_size == (14, 14)


def test_network_that_norms_after_pooling_norms_each_token(tmp_path):
    model = network('test_vit2')
    assert isinstance(model.norm, torch.nn.Identity)
    generator = TimmGenerator('test_vit2', pretrained=save(model, tmp_path))
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        expected = model.fc_norm(model.forward_features(images)[:, 1:])
    torch.testing.assert_close(generator(images), expected)


def test_file_with_a_classifier_loads(tmp_path):
    name = 'vit_base_patch16_224'
    model = timm.create_model(name, num_classes=10)
    generator = TimmGenerator(name, pretrained=save(model, tmp_path))
    assert torch.equal(generator.teacher.cls_token, model.cls_token)
    assert 'state_dict' not in generator.teacher.pretrained_cfg


def test_a_network_that_is_not_pretrained_is_warned_of():
    with pytest.warns(UserWarning, match='RANDOM TEACHER: TimmGenerator'):
        TimmGenerator('test_vit', pretrained=False)


@pytest.mark.parametrize('name', ['resnet18', 'swin_tiny_patch4_window7_224'])
def test_a_network_without_patch_tokens_is_refused(name):
    with pytest.raises(ValueError, match='no fixed grid of patch tokens'):
        TimmGenerator(name, random_weights=True)


def test_a_network_of_one_size_refuses_another():
    generator = TimmGenerator('cait_xxs24_224', random_weights=True)
    with pytest.raises(ValueError, match='images of 224x224 alone'):
        generator.set_student_grid((4, 4), 64)


def test_an_unknown_model_and_a_missing_or_alien_file_are_named(tmp_path):
    with pytest.raises(ValueError, match='Near it: .*vit_base_patch14_dinov2'):
        TimmGenerator('vit_base_patch14_dinov22')
    with pytest.raises(FileNotFoundError, match='absent'):
        TimmGenerator('test_vit', pretrained=str(tmp_path / 'absent.safetensors'))
    path = tmp_path / 'alien.pt'
    torch.save({'layers.weight': torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="alien.pt does not hold timm's test_vit"):
        TimmGenerator('test_vit', pretrained=str(path))
    state = network('test_vit').state_dict()
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
