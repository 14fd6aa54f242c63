"""mmdtm embed: vectors and tokens are the backbone's own."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image
from tiny import ARCH

import mmdtm.plugin  # noqa: F401
from mmdtm import cli
from mmdtm.hub import get_config
from mmdtm.models.backbones import DTMPretrainViT, DTMViT


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0)
    for name in ('b/2.png', 'b/1.png', 'a/3.PNG'):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 256, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / 'images'


def save(model, path) -> str:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = {f'backbone.{name}': v for name, v in model.state_dict().items()}
    torch.save(dict(state_dict={**state, 'head.x': torch.ones(1)}), path)
    return str(path)


def views(folder) -> torch.Tensor:
    images = []
    for name in ('a/3.PNG', 'b/1.png', 'b/2.png'):
        image = Image.open(folder / name)
        # 64 / (224 / 256) = 73 pixels for the shorter side; 14 is 13.5 rounded
        image = image.resize((91, 73), Image.Resampling.BICUBIC)
        images.append(np.asarray(image)[4:68, 14:78] / 255)
    pixels = (np.stack(images) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


@torch.no_grad()
@pytest.mark.parametrize('tokens', [False, True])
def test_embeddings_of_a_pretraining(tokens, folder, tmp_path):
    model = DTMPretrainViT(arch=ARCH, img_size=64).eval()
    out = tmp_path / 'x.npy'
    words = [str(folder), '--checkpoint', save(model, tmp_path / 'a.pth')]
    words += ['--out', str(out), '--batch-size', '2', '--device', 'cpu']
    cli.main(['embed', *words, *(['--tokens'] * tokens)])
    patches = model(views(folder))[-1][:, 1:]
    mean = patches.mean(1)
    pooled = (mean - mean.mean(1, keepdim=True)) / mean.std(
        1, keepdim=True, correction=0
    )
    expected = patches if tokens else pooled
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-3, atol=1e-4)
    assert (tmp_path / 'x.txt').read_text() == 'a/3.PNG\nb/1.png\nb/2.png\n'


@torch.no_grad()
def test_embeddings_of_a_finetuning_are_its_pooled_features(folder, tmp_path):
    model = DTMViT(arch=ARCH, img_size=64).eval()
    words = [str(folder), '--checkpoint', save(model, tmp_path / 'a.pth')]
    cli.main(['embed', *words, '--out', str(tmp_path / 'x.npy'), '--device', 'cpu'])
    (expected,) = model(views(folder))
    found = np.load(tmp_path / 'x.npy')
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('tokens', [False, True])
def test_other_backbones_by_their_config(tokens, folder, tmp_path):
    cfg = get_config('dtm_vit-b_300e')
    arch = dict(depths=[1, 1, 1, 1], channels=[6, 12, 24, 48])
    cfg.model.backbone = dict(type='MaskedConvNeXt', arch=arch, img_size=64)
    cfg.dump(tmp_path / 'mine.py')
    model = MODELS.build(cfg.model.backbone)
    model.eval()
    words = [str(folder), '--checkpoint', save(model, tmp_path / 'a.pth')]
    words += ['--config', str(tmp_path / 'mine.py'), '--out', str(tmp_path / 'x.npy')]
    cli.main(['embed', *words, '--device', 'cpu', *(['--tokens'] * tokens)])
    patches = model(views(folder))[-1]
    if patches.dim() == 4:
        patches = patches.flatten(2).transpose(1, 2)
    mean = torch.nn.functional.layer_norm(patches.mean(1), patches.shape[-1:])
    expected = patches if tokens else mean
    found = np.load(tmp_path / 'x.npy')
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_backbone_that_masks_by_itself_does_not(folder, tmp_path):
    cfg = get_config('applicability/mae-dtm_vit-b_100e')
    cfg.model.backbone.update(arch=ARCH, img_size=64, patch_size=16)
    cfg.dump(tmp_path / 'mine.py')
    model = MODELS.build(cfg.model.backbone)
    model.eval()
    words = [str(folder), '--checkpoint', save(model, tmp_path / 'a.pth')]
    words += ['--config', str(tmp_path / 'mine.py'), '--out', str(tmp_path / 'x.npy')]
    cli.main(['embed', *words, '--device', 'cpu', '--tokens'])
    expected = model(views(folder), None)[-1][:, 1:]
    found = np.load(tmp_path / 'x.npy')
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_bad_images_are_named_and_left_out(folder, tmp_path, capsys):
    checkpoint = save(DTMViT(arch=ARCH, img_size=64), tmp_path / 'a.pth')
    words = [str(folder), '--checkpoint', checkpoint, '--device', 'cpu']
    words += ['--batch-size', '1', '--workers', '0']
    cli.main(['embed', *words, '--out', str(tmp_path / 'whole.npy')])
    data = (folder / 'a/3.PNG').read_bytes()
    (folder / 'a/3.PNG').write_bytes(data[: len(data) // 2])
    cli.main(['embed', *words, '--out', str(tmp_path / 'x.npy')])
    assert f'left out: {folder}/a/3.PNG' in capsys.readouterr().err
    whole, found = np.load(tmp_path / 'whole.npy'), np.load(tmp_path / 'x.npy')
    np.testing.assert_array_equal(found, whole[1:])
    assert (tmp_path / 'x.txt').read_text() == 'b/1.png\nb/2.png\n'
    for name in ('b/1.png', 'b/2.png'):
        (folder / name).write_bytes(b'none')
    with pytest.raises(SystemExit, match='^error: None of the 3 images .* Restore'):
        cli.main(['embed', *words, '--out', str(tmp_path / 'y.npy')])
    with pytest.raises(SystemExit, match='x.npy exists. Remove it'):
        cli.main(['embed', *words, '--out', str(tmp_path / 'x.npy')])
    (tmp_path / 'x.npy').unlink()
    with pytest.raises(SystemExit, match='x.txt exists. Remove it'):
        cli.main(['embed', *words, '--out', str(tmp_path / 'x.npy')])
    (tmp_path / 'x.npy').touch()
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert files == {'a.pth', 'whole.npy', 'whole.txt', 'x.npy', 'x.txt'}


def test_what_is_not_there_is_said(folder, tmp_path):
    words = ['--checkpoint', 'a.pth', '--out', str(tmp_path / 'x.npy')]
    with pytest.raises(SystemExit, match='^error: .* does not exist. Name a folder'):
        cli.main(['embed', str(tmp_path / 'none'), *words])
    with pytest.raises(SystemExit, match='^error: There are no weights at .*a.pth'):
        cli.main(['embed', str(folder), *words])
