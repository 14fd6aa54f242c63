"""The converter of OpenAI's archives, on small archives of the same make."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import hashlib
import sys

import open_clip
import pytest
import torch
from safetensors import safe_open
from tiny_run import load_tool

from mmdtm.models.target_generators import OpenCLIPGenerator

CONFIG = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, patch_size=8, width=32, head_width=16, layers=2),
    text_cfg=dict(context_length=8, vocab_size=64, width=32, heads=2, layers=1),
)

pytestmark = pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')


@pytest.fixture(scope='module')
def converter():
    return load_tool('converters/openai_clip_to_open_clip.py')


@pytest.fixture
def clip():
    return open_clip.CLIP(**CONFIG, quick_gelu=True).eval()


@pytest.fixture
def archive(clip, tmp_path):
    """A TorchScript archive with the extra entries that OpenAI's have."""
    clip.register_buffer('input_resolution', torch.tensor(32))
    images, texts = torch.randn(1, 3, 32, 32), torch.zeros(1, 8, dtype=torch.long)
    path = tmp_path / 'ViT-B-16.pt'
    torch.jit.trace(clip, (images, texts), check_trace=False).save(path)
    assert {'attn_mask', 'input_resolution'} <= set(torch.jit.load(path).state_dict())
    return path


def test_published_archive_converts_to_the_same_model(
    converter, clip, archive, tmp_path, monkeypatch
):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(converter, 'published_models', lambda: {digest: 'ViT-B-16'})
    target = tmp_path / 'tiny.safetensors'
    assert converter.convert(archive, target) == 'ViT-B-16'

    expected = open_clip.CLIP(**CONFIG).state_dict()
    with safe_open(target, framework='pt') as file:
        assert set(file.keys()) == set(expected)
    # The model says GELU; the file knows better.
    generator = OpenCLIPGenerator('tiny', str(target), model_config=CONFIG)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        clip.visual.output_tokens = True
        tokens = clip.visual(images)[1] @ clip.visual.proj
    torch.testing.assert_close(generator(images), tokens)


def test_unknown_archive_is_loaded_only_if_trusted(
    converter, archive, tmp_path, monkeypatch
):
    target = tmp_path / 'tiny.safetensors'
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, 'load', lambda *a, **k: pytest.fail('loaded'))
        with pytest.raises(ValueError, match='none of the files.*--trust'):
            converter.convert(archive, target)
    assert not target.exists()
    assert converter.convert(archive, target, trust=True) is None
    with safe_open(target, framework='pt') as file:
        assert 'quick_gelu' not in file.metadata()


def test_knows_openais_files(converter):
    models = converter.published_models()
    assert {'ViT-B-16', 'ViT-B-32', 'ViT-L-14'} <= set(models.values())
    assert all(len(digest) == 64 for digest in models)


def test_bad_files_are_refused(converter, tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pt'):
        converter.convert(tmp_path / 'absent.pt', tmp_path / 'x')
    plain, target = tmp_path / 'plain.pt', tmp_path / 'x.safetensors'
    torch.save({'a': torch.zeros(1)}, plain)
    with pytest.raises(ValueError, match='not a TorchScript archive'):
        converter.convert(plain, target, trust=True)
    other = tmp_path / 'other.pt'
    torch.jit.script(torch.nn.Linear(1, 1)).save(other)
    with pytest.raises(ValueError, match='not a CLIP'):
        converter.convert(other, target, trust=True)
    target.write_text('mine')
    with pytest.raises(FileExistsError, match='x.safetensors exists'):
        converter.convert(other, target, trust=True)


def test_the_command_line_converts_only_what_is_trusted(
    converter, archive, tmp_path, monkeypatch, capsys
):
    target = tmp_path / 'x.safetensors'
    monkeypatch.setattr(sys, 'argv', ['convert', str(archive), str(target)])
    with pytest.raises(SystemExit, match='^error: .*--trust'):
        converter.main()
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--trust'])
    converter.main()
    assert target.exists() and 'is written' in capsys.readouterr().out
