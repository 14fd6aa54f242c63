"""OpenCLIPGenerator against open_clip's own modules, and its bad inputs."""

import json
import socket
import warnings

import open_clip
import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from tiny import shake

from mmdtm.models import downloads
from mmdtm.models.target_generators import OpenCLIPGenerator, openclip_generator
from mmdtm.models.target_generators.openclip_generator import QuickGELUFeedForward


def build(clip_config, pretrained, **kwargs):
    return OpenCLIPGenerator(
        'tiny', pretrained=pretrained, model_config=clip_config, **kwargs
    )


def by_hand(clip, images):
    """Patch tokens from open_clip's leaf modules, step by step."""
    visual = clip.visual
    tokens = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    tokens = torch.cat([class_token, tokens], dim=1) + visual.positional_embedding
    tokens = visual.ln_pre(tokens)
    for block in visual.transformer.resblocks:
        tokens = block(tokens)
    return visual.ln_post(tokens) @ visual.proj


def test_tokens_equal_those_by_hand_and_the_class_token_equals_encode_image(
    clip, clip_config, clip_file
):
    images = torch.randn(3, 3, 32, 32)
    tokens = build(clip_config, clip_file)(images)
    with torch.no_grad():
        expected = by_hand(clip, images)
        torch.testing.assert_close(expected[:, 0], clip.encode_image(images))
    assert tokens.shape == (3, 16, 16) and tokens.dtype == torch.float32
    torch.testing.assert_close(tokens, expected[:, 1:])


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_quick_gelu_by_the_products_factors_is_open_clips(dtype, clip_config):
    clip_config['quick_gelu'] = True
    torch.manual_seed(0)
    clip = shake(open_clip.CLIP(**clip_config)).double()
    plain = clip.visual.transformer.resblocks[0].mlp
    ours = QuickGELUFeedForward(**dict(plain.named_children()))
    x = 3 * torch.randn(2, 17, plain.c_fc.in_features, dtype=torch.float64)
    with torch.no_grad():
        exact = plain(x)
        found, expected = ours.to(dtype)(x.to(dtype)), plain(x.to(dtype))
    error, theirs = ((y - exact).norm() / exact.norm() for y in (found, expected))
    assert error <= (1e-12 if dtype == torch.float64 else 1.2 * theirs)


def test_tokens_are_row_major(clip, clip_config):
    # Without attention and position, a token is a function of its patch alone.
    with torch.no_grad():
        clip.visual.positional_embedding.zero_()
        for block in clip.visual.transformer.resblocks:
            block.attn.out_proj.weight.zero_()
    generator = build(clip_config, None, random_weights=True)
    generator.teacher.load_state_dict(clip.visual.state_dict())
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:16, 24:32] = 1  # row 1, column 3
    tokens = generator(images)[0]
    differs = (tokens - tokens[0]).abs().amax(dim=1) > 1e-4
    assert differs.nonzero().flatten().tolist() == [1 * 4 + 3]


def test_registered_with_config_folder_and_own_normalisation(
    clip_config, clip_file, tmp_path
):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/tiny.json').write_text(json.dumps(clip_config))
    config = dict(
        type='OpenCLIPGenerator',
        model='tiny',
        pretrained=clip_file,
        model_config=str(tmp_path / 'configs'),
    )
    generator = MODELS.build(config)
    assert generator.out_channels == 16
    assert generator.mean == [255 * x for x in open_clip.OPENAI_DATASET_MEAN]
    assert generator.std == [255 * x for x in open_clip.OPENAI_DATASET_STD]
    preprocess = dict(mean=[0.5] * 3, std=[0.25] * 3)
    wrapped = dict(model_cfg=clip_config, preprocess_cfg=preprocess)
    generator = MODELS.build({**config, 'model_config': wrapped})
    assert generator.mean == [127.5] * 3 and generator.std == [63.75] * 3


def test_tag_decides_on_quick_gelu_and_normalisation(clip, clip_file, monkeypatch):
    from open_clip import factory

    config = {**open_clip.get_model_config('ViT-B-16')}
    config.update(
        embed_dim=16,
        vision_cfg=dict(image_size=32, patch_size=8, width=32, head_width=16, layers=2),
    )
    monkeypatch.setitem(factory._MODEL_CONFIGS, 'ViT-B-16', config)
    monkeypatch.setattr(open_clip, 'download_pretrained', lambda tag: clip_file)
    monkeypatch.setattr(openclip_generator, 'find_cached', lambda tag: None)
    monkeypatch.setattr(openclip_generator, 'require_network', lambda tag: None)

    openai = OpenCLIPGenerator('ViT-B/16', 'openai')
    laion = OpenCLIPGenerator('ViT-B-16', 'laion2b_s34b_b88k')
    forced = OpenCLIPGenerator('ViT-B-16', 'openai', force_quick_gelu=False)
    kinds = [
        {type(block.mlp.gelu).__name__ for block in g.teacher.transformer.resblocks}
        for g in (openai, laion, forced)
    ]
    assert kinds == [{'QuickGELU'}, {'GELU'}, {'GELU'}]
    tag = open_clip.get_pretrained_cfg('ViT-B-16', 'openai')
    assert openai.mean == [255 * x for x in tag['mean']]
    own = dict(tag, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    monkeypatch.setattr(open_clip, 'get_pretrained_cfg', lambda *_: own)
    monkeypatch.setattr(open_clip, 'list_pretrained_tags_by_model', lambda _: [])
    other = OpenCLIPGenerator('ViT-B-16', 'openai')
    assert other.mean == [255 * x for x in own['mean']]
    assert other.std == [255 * x for x in own['std']]


def test_the_activation_of_a_file_is_the_configs_and_a_doubt_is_said(
    clip, clip_config, clip_file, tmp_path
):
    def activation(generator):
        return type(generator.teacher.transformer.resblocks[0].mlp.gelu).__name__

    quick = {**clip_config, 'quick_gelu': True}
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert activation(build(clip_config, clip_file)) == 'GELU'
        assert activation(build(quick, clip_file)) == 'QuickGELU'

    state = {name: value.contiguous() for name, value in clip.state_dict().items()}
    marked = tmp_path / 'converted.safetensors'
    save_file(state, marked, metadata={'quick_gelu': 'true'})
    assert activation(build(clip_config, str(marked))) == 'QuickGELU'

    # What OpenAI's weights look like: stored in half precision, or with extras.
    half = tmp_path / 'half.pt'
    torch.save({name: value.half() for name, value in state.items()}, half)
    extras = tmp_path / 'extras.pt'
    torch.save({**state, 'input_resolution': torch.tensor(32)}, extras)
    for path in (half, extras):
        with pytest.warns(UserWarning, match='looks like weights of OpenAI'):
            assert activation(build(clip_config, str(path))) == 'GELU'
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            build(quick, str(path))
            build(clip_config, str(path), force_quick_gelu=False)


def test_default_is_openai_vit_b_16_with_quick_gelu():
    generator = OpenCLIPGenerator(random_weights=True)
    assert generator.out_channels == 512 and generator.grid_size == (14, 14)
    block = generator.teacher.transformer.resblocks[0]
    assert type(block.mlp.gelu).__name__ == 'QuickGELU'
    assert not hasattr(generator.teacher, 'token_embedding')


def test_another_grid_interpolates_the_position_embedding_as_open_clip_does(
    clip_config, clip_file
):
    generator = build(clip_config, clip_file)
    generator.set_student_grid((3, 3), 48)
    assert generator.input_size == (24, 24) and generator.grid_size == (3, 3)

    clip_config['vision_cfg']['image_size'] = 24
    smaller = open_clip.CLIP(**clip_config).eval()
    open_clip.load_checkpoint(smaller, clip_file)
    images = torch.randn(2, 3, 48, 48)
    resized = torch.nn.functional.interpolate(
        images, size=(24, 24), mode='bicubic', antialias=True
    )
    with torch.no_grad():
        expected = by_hand(smaller, resized)[:, 1:]
    assert generator(images).shape == (2, 9, 16)
    torch.testing.assert_close(generator(images), expected)


def test_another_grid_of_an_oblong_network_is_refused(clip_config):
    clip_config['vision_cfg']['image_size'] = [32, 16]
    generator = build(clip_config, None, random_weights=True)
    with pytest.raises(ValueError, match='square position embeddings'):
        generator.set_student_grid((6, 3), (48, 24))


def test_a_missing_file_and_an_unknown_tag_are_named(clip_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.pt.*neither a file'):
        build(clip_config, str(tmp_path / 'absent.pt'))
    with pytest.raises(FileNotFoundError, match='tags: openai'):
        OpenCLIPGenerator('ViT-B-16', 'openay')
    with pytest.raises(FileNotFoundError, match='model_config of tiny'):
        build(str(tmp_path), None, random_weights=True)


def test_a_tag_without_network_says_what_to_do(monkeypatch):
    """At once, from the constructor as from the question before a run."""
    tried = []

    def no_network(address, timeout):
        tried.append(address)
        raise OSError('no route to host')

    monkeypatch.setattr(socket, 'create_connection', no_network)
    monkeypatch.setattr(downloads, 'getproxies', dict)
    monkeypatch.setattr(openclip_generator, 'find_cached', lambda tag: None)
    monkeypatch.delenv('HF_ENDPOINT', raising=False)
    message = "'openai', cannot be downloaded .*no route.*path"
    for ask in (OpenCLIPGenerator, lambda: OpenCLIPGenerator.require_weights({})):
        with pytest.raises(FileNotFoundError, match=message):
            ask()
    assert tried == [('huggingface.co', 443)] * 2


@pytest.mark.parametrize(
    'model, message',
    [
        ('ViT-B-16-quikgelu', 'Choose one of .*; near it: .*ViT-B-16-quickgelu'),
        ('RN50', 'ResNet of OpenAI.*no patch grid.*Choose a ViT'),
    ],
)
def test_unknown_models_and_those_without_a_patch_grid_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        OpenCLIPGenerator(model, random_weights=True)


def test_files_that_are_not_this_clip_are_refused(clip, clip_config, tmp_path):
    path = str(tmp_path / 'other.pt')
    torch.save({'layers.0.weight': torch.zeros(2)}, path)
    with pytest.raises(ValueError, match='not a CLIP.*visual.proj.*layers.0.weight'):
        build(clip_config, path)

    state = clip.state_dict()
    del state['visual.ln_post.bias']
    state['visual.extra'] = torch.zeros(1)
    state['visual.proj'] = torch.zeros(32, 8)
    torch.save(state, path)
    with pytest.raises(
        ValueError,
        match=r'is not the CLIP tiny. Give weights of this architecture.* '
        r'missing: ln_post\.bias; not expected: extra; of another shape: '
        r'proj is \(32, 8\), here \(32, 16\)',
    ):
        build(clip_config, path)
