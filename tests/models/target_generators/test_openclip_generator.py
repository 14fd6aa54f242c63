"""OpenCLIPGenerator against open_clip's own modules, and its bad inputs."""

import json
import pickle
import warnings

import open_clip
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from mmdtm.models.target_generators import OpenCLIPGenerator

# Only the tests that are about them look at these.
pytestmark = [
    pytest.mark.filterwarnings('ignore:RANDOM TEACHER'),
    pytest.mark.filterwarnings('ignore:Detected pickle protocol'),
    pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning'),
]


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


@pytest.mark.parametrize('form', ['safetensors', 'wrapped', 'ddp', 'half', 'runner'])
def test_file_formats_give_the_same_tokens(form, clip, clip_config, tmp_path):
    state = {name: value.contiguous() for name, value in clip.state_dict().items()}
    path = tmp_path / f'tiny.{"safetensors" if form == "safetensors" else "pt"}'
    if form == 'safetensors':
        save_file(state, path)
    elif form == 'wrapped':
        torch.save({'epoch': 3, 'name': 'x', 'state_dict': state}, path)
    elif form == 'runner':
        history = HistoryBuffer()
        history.update(0.5)
        log = dict(log_scalars={'train/loss': history}, runtime_info={'iter': 3})
        torch.save({'state_dict': state, 'meta': {}, 'message_hub': log}, path)
    elif form == 'ddp':
        torch.save({'state_dict': {f'module.{k}': v for k, v in state.items()}}, path)
    else:
        clip = clip.half().float()
        torch.save({name: value.half() for name, value in state.items()}, path)
    generator = build(clip_config, str(path), force_quick_gelu=False)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = by_hand(clip, images)[:, 1:]
    torch.testing.assert_close(generator(images), expected)


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


def test_quick_gelu_of_files(clip, clip_config, clip_file, tmp_path):
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


def test_another_grid_of_an_oblong_network(clip_config):
    clip_config['vision_cfg']['image_size'] = [32, 16]
    generator = build(clip_config, None, random_weights=True)
    with pytest.raises(ValueError, match='square position embeddings'):
        generator.set_student_grid((6, 3), (48, 24))


def test_missing_file_and_unknown_tag(clip_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.pt.*neither a file'):
        build(clip_config, str(tmp_path / 'absent.pt'))
    with pytest.raises(FileNotFoundError, match='tags: openai'):
        OpenCLIPGenerator('ViT-B-16', 'openay')
    with pytest.raises(FileNotFoundError, match='model_config of tiny'):
        build(str(tmp_path), None, random_weights=True)


def test_tag_without_network(monkeypatch):
    def no_network(tag):
        raise OSError('no route to host')

    monkeypatch.setattr(open_clip, 'download_pretrained', no_network)
    with pytest.raises(
        FileNotFoundError, match="'openai', cannot be downloaded .*no route.*path"
    ):
        OpenCLIPGenerator()


@pytest.mark.parametrize(
    'model, message',
    [
        ('ViT-B-16-quikgelu', 'Near it: .*ViT-B-16-quickgelu'),
        ('RN50', 'ResNet, which has no patch tokens'),
        ('ViT-B-16-SigLIP', 'TimmGenerator'),
        ('coca_ViT-B-32', 'CoCa'),
    ],
)
def test_models_without_patch_tokens(model, message):
    with pytest.raises(ValueError, match=message):
        OpenCLIPGenerator(model, random_weights=True)


def test_files_that_are_not_this_clip(clip, clip_config, tmp_path):
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
        match=r'missing: ln_post\.bias; not expected: extra; of another shape: '
        r'proj \(32, 8\) instead of \(32, 16\)',
    ):
        build(clip_config, path)

    torch.save({'epoch': 3}, path)
    with pytest.raises(ValueError, match='holds no weights.*epoch'):
        build(clip_config, path)


class _Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, 'w')


@pytest.mark.parametrize('save', ['torch', 'pickle'])
def test_hostile_pickle_is_not_executed(save, clip, clip_config, tmp_path):
    marker = tmp_path / 'executed'
    path = tmp_path / 'hostile.pt'
    content = {'state_dict': clip.state_dict(), 'x': _Hostile(str(marker))}
    if save == 'torch':
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match='hostile.pt is not loaded') as error:
        build(clip_config, str(path))
    assert not marker.exists()
    # torch's own message goes on to say how to load it all the same.
    for advice in ('weights_only', 'safe_globals', '\x1b'):
        assert advice not in str(error.value)


def test_a_page_instead_of_a_file(clip_config, tmp_path):
    path = tmp_path / 'clip.pt'
    path.write_text('<html>404</html>')
    with pytest.raises(ValueError, match='is not a checkpoint.*Download it') as error:
        build(clip_config, str(path))
    assert 'weights_only' not in str(error.value)


@pytest.mark.parametrize('suffix', ['pt', 'safetensors'])
def test_truncated_file(suffix, clip, clip_config, tmp_path):
    path = tmp_path / f'cut.{suffix}'
    state = {name: value.contiguous() for name, value in clip.state_dict().items()}
    torch.save(state, path) if suffix == 'pt' else save_file(state, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f'cut.{suffix} .*[Dd]ownload it again'):
        build(clip_config, str(path))


def test_torchscript_archive_names_the_converter(clip, clip_config, tmp_path):
    path = tmp_path / 'ViT-B-16.pt'
    traced = torch.jit.trace(clip.visual, torch.randn(1, 3, 32, 32), check_trace=False)
    torch.jit.save(traced, path)
    with pytest.raises(
        ValueError, match='(?s)TorchScript.*openai_clip_to_open_clip.py'
    ):
        build(clip_config, str(path))
