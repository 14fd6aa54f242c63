"""Weights in and out: BEiT's format, timm, transformers, on real photographs."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import argparse
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from mmengine.logging import HistoryBuffer
from mmpretrain.registry import MODELS
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models.beit import Beit
from tiny import ARCH, classifier_config
from tiny_run import run_tool

from mmdtm.io import converters
from mmdtm.io.weights import read_weights
from mmdtm.models.backbones import DTMPretrainViT, DTMViT

SHARED = 'rel_pos_bias.relative_position_bias_table'


def fill(model: torch.nn.Module, std: float = 0.2) -> torch.nn.Module:
    """Random values everywhere, so that nothing agrees by being zero or one."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            if 'gamma' in name or 'ln' in name and name.endswith('weight'):
                param.uniform_(0.5, 1.5)
            else:
                param.normal_(std=0.5 if 'table' in name else std)
    model.eval()
    return model


def pretrained(arch=ARCH, img_size=64, **options) -> DTMPretrainViT:
    return fill(DTMPretrainViT(arch=arch, img_size=img_size, **options))


def classifier(**options) -> torch.nn.Module:
    return fill(MODELS.build(classifier_config(5, **options)))


def checkpoint_of(backbone: torch.nn.Module) -> dict:
    """A pre-training model's state dict, its head included."""
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    return {**state, 'head.projection.weight': torch.ones(8, backbone.embed_dims)}


def load_photos(folder: Path, size: int, number: int = 2) -> torch.Tensor:
    """Some of the photographs, normalised as mmdtm does: (number, 3, size, size)."""
    files = sorted(folder.glob('train/*/*'))[::7][:number]
    images = [
        np.asarray(Image.open(file).convert('RGB').resize((size, size))) / 255.0
        for file in files
    ]
    pixels = (np.stack(images) - converters.IMAGE_MEAN) / converters.IMAGE_STD
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


@pytest.fixture(params=['photographs', 'noise'])
def images(request) -> torch.Tensor:
    if request.param == 'noise':
        return torch.randn(2, 3, 64, 64)
    return load_photos(request.getfixturevalue('photos'), 64)


def script(name: str, *arguments) -> None:
    """Run a converter as from the command line."""
    run_tool(f'converters/{name}', *arguments)


def timm_model(state, path: Path) -> torch.nn.Module:
    """By the call that the converter says, from the file that it writes."""
    converted, arguments = converters.to_timm(state)
    converters.write_safetensors(converted, path)
    build = f'timm.create_model({arguments}, checkpoint_path={str(path)!r})'
    return eval(build, {'timm': timm}).eval()


def transformers_model(state, path: Path, name: str = 'BeitModel') -> torch.nn.Module:
    transformers = pytest.importorskip('transformers')
    converters.write_transformers(*converters.to_transformers(state), path)
    model, info = getattr(transformers, name).from_pretrained(
        path, output_loading_info=True
    )
    # A name that transformers does not know would leave random weights.
    assert not info['missing_keys'] and not info['mismatched_keys']
    if name == 'BeitForImageClassification' or 'head.fc.weight' not in state:
        assert not info['unexpected_keys']
    return model.eval()


def assert_features_agree(features, expected) -> None:
    assert expected.std() > 0.1  # else 1e-4 says little
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_pretrained__features_agree_everywhere(images, tmp_path):
    backbone = pretrained()
    expected = backbone(images)[0]
    state = checkpoint_of(backbone)
    theirs = timm_model(state, tmp_path / 'timm.safetensors')
    assert_features_agree(theirs.forward_features(images), expected)
    assert_features_agree(theirs(images), expected[:, 0])
    theirs = transformers_model(state, tmp_path / 'transformers')
    output = theirs(images)
    assert_features_agree(output.last_hidden_state, expected)
    assert_features_agree(output.pooler_output, expected[:, 0])
    # A masked input as well: the mask token came along.
    mask = torch.rand(2, 4, 4) > 0.5
    output = theirs(images, bool_masked_pos=mask.flatten(1))
    assert_features_agree(output.last_hidden_state, backbone(images, mask)[0])


@torch.no_grad()
def test_fine_tuned__features_and_scores_agree_everywhere(images, tmp_path):
    model = classifier()
    state = model.state_dict()
    features, expected = model.backbone(images)[0], model(images, mode='tensor')

    theirs = timm_model(state, tmp_path / 'timm.safetensors')
    assert_features_agree(theirs(images), expected)
    pooled = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    assert_features_agree(pooled, features)
    folder = tmp_path / 'transformers'
    theirs = transformers_model(state, folder, 'BeitForImageClassification')
    assert theirs.config.num_labels == 5
    assert_features_agree(theirs(images).logits, expected)
    transformers = pytest.importorskip('transformers')
    theirs = transformers.BeitModel.from_pretrained(folder).eval()
    assert_features_agree(theirs(images).pooler_output, features)


@torch.no_grad()
@pytest.mark.parametrize(
    'options',
    [
        dict(use_rel_pos_bias=False),
        dict(use_shared_rel_pos_bias=False),
        dict(layer_scale_init_value=0.0),
        dict(qkv_bias=False),
        dict(img_size=32),
        dict(in_channels=1),
    ],
    ids=str,
)
def test_variants__features_agree(options, tmp_path):
    backbone = pretrained(**options)
    images = torch.randn(2, options.get('in_channels', 3), *backbone.img_size)
    expected = backbone(images)[0]
    state = checkpoint_of(backbone)
    theirs = timm_model(state, tmp_path / 'timm.safetensors')
    assert_features_agree(theirs.forward_features(images), expected)
    theirs = transformers_model(state, tmp_path / 'transformers')
    assert_features_agree(theirs(images).last_hidden_state, expected)


@pytest.mark.parametrize(
    ('arch', 'expected'),
    [
        ('base', "'beitv2_base_patch16_224', "),
        ('small', "'beitv2_base_patch16_224', embed_dim=384, num_heads=6, "),
        ('large', "'beitv2_large_patch16_224', "),
    ],
)
def test_to_timm__names_the_nearest_model(arch, expected):
    with torch.device('meta'):
        state, arguments = converters.to_timm(DTMPretrainViT(arch=arch).state_dict())
        model = eval(f'timm.create_model({arguments})', {'timm': timm})
    assert arguments == f"{expected}num_classes=0, global_pool='token'"
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }


def test_transformers_preprocessor__normalises_as_mmdtm(photos, tmp_path):
    """transformers' default is another mean, which would shift every feature."""
    transformers = pytest.importorskip('transformers')
    converters.write_transformers(
        *converters.to_transformers(checkpoint_of(pretrained())), tmp_path / 'folder'
    )
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'folder')
    file = sorted(photos.glob('train/*/*'))[0]
    image = Image.open(file).convert('RGB').resize((64, 64))
    pixels = processor(image, return_tensors='pt')['pixel_values']
    torch.testing.assert_close(
        pixels, load_photos(photos, 64, number=1), rtol=0, atol=1e-5
    )


def beit_checkpoint(
    path: Path, pretraining: bool = True, wrapper: str = 'model'
) -> Beit:
    """timm's BEiT has BEiT's own names; with what BEiT's programs add to a file."""
    model = Beit(
        img_size=64,
        embed_dim=48,
        depth=2,
        num_heads=3,
        mlp_ratio=2,
        num_classes=0 if pretraining else 5,
        use_abs_pos_emb=False,
        init_values=0.1,
        use_rel_pos_bias=True,
        use_shared_rel_pos_bias=pretraining,
        global_pool='token' if pretraining else 'avg',
    )
    state = fill(model).state_dict()
    if pretraining:
        state['mask_token'] = torch.randn(1, 1, 48)
        state['lm_head.weight'] = torch.randn(8, 48)
        state['cls_pt_layers.0.norm1.weight'] = torch.randn(48)
    state['blocks.0.attn.relative_position_index'] = torch.zeros(17, 17)
    torch.save({wrapper: state, 'epoch': 3, 'args': argparse.Namespace(lr=1e-3)}, path)
    return model


@torch.no_grad()
@pytest.mark.parametrize('wrapper', ['model', 'module'])
def test_from_beit__pretrained_computes_the_same(wrapper, tmp_path):
    theirs = beit_checkpoint(tmp_path / 'beit.pth', wrapper=wrapper)
    state, left_out = converters.from_beit(read_weights(tmp_path / 'beit.pth')[0])
    assert left_out == [
        'lm_head.weight',
        'cls_pt_layers.0.norm1.weight',
        'blocks.0.attn.relative_position_index',
    ]
    ours = DTMPretrainViT(arch=ARCH, img_size=64).eval()
    result = ours.load_state_dict(
        {name.removeprefix('backbone.'): value for name, value in state.items()}
    )
    assert not result.missing_keys and not result.unexpected_keys
    assert torch.equal(ours.mask_token, state['backbone.mask_token'])
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        ours(images)[0], theirs.forward_features(images), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_from_beit__converted_file_starts_fine_tuning(tmp_path, capsys):
    """The command line, then init_cfg: tables summed as from mmdtm's own file."""
    theirs = beit_checkpoint(tmp_path / 'beit.pth')
    target = tmp_path / 'converted.pth'
    script('beit_to_mmdtm.py', tmp_path / 'beit.pth', target)
    printed = capsys.readouterr().out
    assert 'Left out: lm_head.weight' in printed
    ours = DTMViT(
        arch=ARCH,
        img_size=64,
        out_type='raw',
        final_norm=True,
        init_cfg=dict(type='Pretrained', checkpoint=str(target), prefix='backbone.'),
    )
    ours.init_weights()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        ours.eval()(images)[0], theirs.forward_features(images), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_from_beit__fine_tuned_keeps_its_classifier(tmp_path):
    theirs = beit_checkpoint(tmp_path / 'beit.pth', pretraining=False)
    state, _ = converters.from_beit(read_weights(tmp_path / 'beit.pth')[0])
    model = classifier()
    model.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        model(images, mode='tensor'), theirs(images), rtol=1e-5, atol=1e-5
    )


def test_round_trip__into_timms_names_and_back():
    """timm's names are BEiT's, so an export can be read back, tables summed."""
    backbone = pretrained()
    state, left_out = converters.from_beit(
        converters.to_timm(checkpoint_of(backbone))[0]
    )
    assert not left_out
    before = backbone.state_dict()
    for name, value in before.items():
        if name in (SHARED, 'mask_token'):
            assert f'backbone.{name}' not in state
        elif name.endswith('bias_table'):
            expected = value.double() + before[SHARED].double()
            assert torch.equal(state[f'backbone.{name}'], expected.float())
        else:
            assert torch.equal(state[f'backbone.{name}'], value)


@pytest.mark.parametrize('export', [converters.to_timm, converters.to_transformers])
@pytest.mark.parametrize(
    ('model', 'match'),
    [
        (lambda: pretrained(final_norm=False), 'no final norm'),
        (lambda: pretrained(out_type='avg_featmap'), 'both final norms'),
        (lambda: pretrained(qkv_bias=True), 'bias on the keys'),
        (lambda: pretrained(img_size=(32, 96)), 'not that of a square grid'),
        (
            lambda: pretrained(use_rel_pos_bias=False, use_shared_rel_pos_bias=False),
            'no relative position bias',
        ),
        (lambda: torch.nn.Linear(2, 2), 'no DTMViT .* names are such as weight, bias'),
    ],
)
def test_export__what_others_cannot_express_is_named(export, model, match):
    with pytest.raises(ValueError, match=match):
        export(model().state_dict())


@pytest.mark.parametrize('export', [converters.to_timm, converters.to_transformers])
def test_export__a_parameter_without_a_place_is_named(export):
    state = checkpoint_of(pretrained()) | {'backbone.adapter.weight': torch.ones(1)}
    with pytest.raises(ValueError, match='has adapter.weight, for which .* no place'):
        export(state)


def test_from_beit__other_formats_are_named():
    with pytest.raises(ValueError, match='pos_embed'):
        converters.from_beit({'pos_embed': torch.zeros(1)})
    with pytest.raises(ValueError, match='no DTMViT'):
        converters.from_beit({'conv1.weight': torch.zeros(1)})


SCRIPTS = ['beit_to_mmdtm.py', 'mmdtm_to_timm.py', 'mmdtm_to_transformers.py']
EXPORTS = [
    ('mmdtm_to_timm.py', 'out.safetensors', 'out.safetensors'),
    ('mmdtm_to_timm.py', 'out', 'out/model.safetensors'),
    ('mmdtm_to_transformers.py', 'out', 'out/model.safetensors'),
]


@pytest.mark.parametrize(('name', 'target', 'weights'), EXPORTS)
def test_scripts__write_what_they_say(name, target, weights, tmp_path, capsys):
    backbone = pretrained()
    source = tmp_path / 'epoch_300.pth'
    log = {'train/loss': HistoryBuffer([1.0], [1])}  # as a Runner saves it
    torch.save(
        {'state_dict': checkpoint_of(backbone), 'message_hub': {'log_scalars': log}},
        source,
    )
    script(name, source, tmp_path / target)
    call = capsys.readouterr().out.splitlines()[-1]
    state = load_file(tmp_path / weights)
    if name == 'mmdtm_to_timm.py':
        model = eval(call, {'timm': timm})
        assert model.state_dict().keys() == state.keys()
    else:
        transformers = pytest.importorskip('transformers')
        eval(call, {'transformers': transformers})
        config = json.loads((tmp_path / 'out/config.json').read_text())
        assert config['hidden_size'] == 48 and config['num_hidden_layers'] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'epoch_300.pth',
        target,
    ]


@torch.no_grad()
@pytest.mark.parametrize('model', ['pretrained', 'classifier'])
def test_folder_for_timm__builds_the_model_without_arguments(model, images, tmp_path):
    state = (
        checkpoint_of(pretrained())
        if model == 'pretrained'
        else classifier().state_dict()
    )
    converters.write_timm(*converters.to_timm(state), tmp_path / 'out')
    theirs = timm.create_model(f'local-dir:{tmp_path}/out', pretrained=True).eval()
    expected = timm_model(state, tmp_path / 'out.safetensors')(images)
    assert_features_agree(theirs(images), expected)
    data = timm.data.resolve_model_data_config(theirs)
    assert list(data['input_size']) == [3, 64, 64]
    assert list(data['mean']) == converters.IMAGE_MEAN


RUN = dict(
    id='b',
    config='finetune/dtm_vit-b_100e_in1k',
    changes={'train_cfg.max_epochs': 50, 'model.`x`\n# title': '<b>'},
    epoch=50,
    parent=dict(id='a', config='dtm_vit-b_300e', changes={}, epoch=300, parent=None),
)


@pytest.mark.parametrize('script_name', SCRIPTS[1:])
def test_model_card__says_what_the_checkpoint_says(script_name, tmp_path):
    source = tmp_path / 'epoch_50.pth'
    meta = dict(run={k: v for k, v in RUN.items() if k != 'epoch'}, epoch=50)
    torch.save(dict(state_dict=checkpoint_of(pretrained()), meta=meta), source)
    script(script_name, source, tmp_path / 'out')
    card = (tmp_path / 'out/README.md').read_text()
    _, head, body = card.split('---\n', 2)
    library = script_name.removeprefix('mmdtm_to_').removesuffix('.py')
    assert yaml.safe_load(head) == dict(
        library_name=library,
        pipeline_tag='image-feature-extraction',
        tags=['masked-image-modeling', 'dtm', 'mmdtm'],
    )
    (load,) = re.findall(r'```python\n(.*)\n```', body)
    eval(load, {library: importlib.import_module(library)})
    training = body.partition('## Training\n\n')[2].splitlines()
    assert training[:4] == [
        '1. `dtm_vit-b_300e`, epoch 300',
        '2. `finetune/dtm_vit-b_100e_in1k`, epoch 50',
        "    - `model.'x' # title`: `<b>`",
        '    - `train_cfg.max_epochs`: `50`',
    ]


@pytest.mark.parametrize('name', SCRIPTS)
def test_scripts__help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        script(name, '--help')
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert 'source' in printed and f'python tools/converters/{name}' in printed


@pytest.mark.parametrize(('name', 'target', 'weights'), EXPORTS)
def test_scripts__nothing_is_overwritten(name, target, weights, tmp_path):
    source = tmp_path / 'source.pth'
    torch.save({'state_dict': checkpoint_of(pretrained())}, source)
    (tmp_path / target).write_text('mine')
    with pytest.raises(SystemExit, match='exists'):
        script(name, source, tmp_path / target)
    assert (tmp_path / target).read_text() == 'mine'


def test_write_safetensors__wrong_suffix_is_named(tmp_path):
    with pytest.raises(ValueError, match='out.pth does not end in .safetensors'):
        converters.write_safetensors({}, tmp_path / 'out.pth')


@pytest.mark.parametrize('write', ['file', 'folder'])
def test_writing__broken_off_leaves_nothing(write, tmp_path, monkeypatch):
    def half(state, path, metadata):
        save_file(state, path)
        raise OSError('disk full')

    monkeypatch.setattr(converters, 'save_file', half)
    state = {'weight': torch.ones(2)}
    with pytest.raises(OSError, match='disk full'):
        if write == 'file':
            converters.write_safetensors(state, tmp_path / 'out.safetensors')
        else:
            converters.write_transformers(state, {'image_size': 64}, tmp_path / 'out')
    assert not list(tmp_path.iterdir())
