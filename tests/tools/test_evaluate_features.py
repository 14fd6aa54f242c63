"""tools/evaluate_features.py on a tiny checkpoint and made images."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from tiny import ARCH
from tiny_run import ROOT, load_tool

import mmdtm.plugin  # noqa: F401
from mmdtm.evaluation.features import pool

SYNSETS = ['n01440764', 'n01443537', 'n15075141']


@pytest.fixture(scope='module')
def tool():
    return load_tool('evaluate_features.py')


@pytest.fixture
def world(tmp_path):
    """Noisy images of three classes, a checkpoint and a config for it."""
    rng = np.random.default_rng(0)
    colours = np.array([[150, 120, 120], [120, 150, 120], [120, 120, 150]])
    for split, images in (('train', 5), ('val', 4)):
        for name, colour in zip(SYNSETS, colours, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(images):
                noise = rng.integers(-30, 31, (1, 1, 3)) + rng.integers(
                    -9, 10, (32, 32, 3)
                )
                pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f'{i}.png')
    student = MODELS.build(dict(type='DTMPretrainViT', arch=ARCH, img_size=32))
    for module in student.modules():
        if hasattr(module, 'relative_position_bias_table'):
            torch.nn.init.normal_(module.relative_position_bias_table)
    state = {f'backbone.{name}': value for name, value in student.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'dtm.pth')
    (tmp_path / 'small.py').write_text(f"""
_base_ = ['{ROOT}/configs/linear_probe/dtm_vit-b_50e_in1k.py']
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{ARCH}), img_size=32, frozen_stages=2),
    neck=dict(input_features=48), head=dict(in_channels=48))
test_pipeline = [
    dict(type='LoadWholeImage'), dict(type='Resize', scale=32), dict(type='PackInputs')]
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=test_pipeline))
""")
    return tmp_path, student.eval()


def plain_features(root: Path, split: str, student) -> tuple[np.ndarray, list[str]]:
    """The same features by hand: RGB, normalised, patch tokens averaged."""
    mean = np.array([123.675, 116.28, 103.53])
    std = np.array([58.395, 57.12, 57.375])
    vectors, labels = [], []
    for path in sorted((root / split).rglob('*.png')):
        pixels = (np.array(Image.open(path)) - mean) / std
        image = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float()
        with torch.no_grad():
            token = student(image)[-1][0, 1:].mean(0)
        vectors.append(
            (token - token.mean()) / (token.var(unbiased=False) + 1e-6).sqrt()
        )
        labels.append(path.parent.name)
    return torch.stack(vectors).numpy(), labels


def run(tool, monkeypatch, *argv) -> None:
    monkeypatch.setattr(sys, 'argv', ['evaluate_features.py', *map(str, argv)])
    tool.main()


def test_figures_are_those_of_scikit_learn(tool, world, monkeypatch, capsys):
    root, student = world
    run(
        tool, monkeypatch, root / 'small.py', root / 'dtm.pth', '--data-root', root,
        '--k', 3, '--temperature', 5, '--l2', 0.01, '--device', 'cpu',
        '--out', root / 'deep/figures.json',
    )  # fmt: skip
    figures = json.loads((root / 'deep/figures.json').read_text())

    x, y = plain_features(root, 'train', student)
    queries, truth = plain_features(root, 'val', student)
    knn = KNeighborsClassifier(
        3, metric='cosine', weights=lambda distance: np.exp((1 - distance) / 5)
    ).fit(x, y)
    assert figures['knn_top1'] == pytest.approx(100 * knn.score(queries, truth))
    scaler = StandardScaler().fit(x)
    linear = LogisticRegression(C=1 / (len(y) * 0.01), max_iter=1000)
    linear.fit(scaler.transform(x), y)
    accuracy = 100 * linear.score(scaler.transform(queries), truth)
    assert figures['linear_top1'] == pytest.approx(accuracy)
    assert 30 < figures['knn_top1'] < 100, 'too easy or too hard to tell anything'

    assert (figures['train_images'], figures['val_images']) == (15, 12)
    assert all(figures[name] > 0 for name in ('features_s', 'knn_s', 'linear_s'))
    printed = capsys.readouterr().out
    assert f'{figures["knn_top1"]:.2f}' in printed
    assert f'{figures["linear_top1"]:.2f}' in printed


def test_the_hook_sees_the_same_features(tool, world):
    """Pre-training's backbone and the probe's give the same vectors."""
    root, student = world
    frozen = tool.FrozenBackbone(Config.fromfile(root / 'small.py'))
    tool.load_backbone(frozen.backbone, str(root / 'dtm.pth'))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        probe = pool(frozen.eval().backbone(images), 1)
        hook = pool(student(images), 1)
    torch.testing.assert_close(probe, hook, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_without_a_checkpoint_the_random_start_of_a_seed(tool, world, monkeypatch):
    root, _ = world
    figures = []
    for i, extra in enumerate(([], [], ['--images-per-class', '2'])):
        out = root / f'{i}.json'
        run(
            tool, monkeypatch, root / 'small.py', '--data-root', root, '--out', out,
            '--seed', 3, *extra,
        )  # fmt: skip
        figures.append(json.loads(out.read_text()))
    tops = [(f['knn_top1'], f['linear_top1']) for f in figures]
    assert tops[0] == tops[1]
    assert figures[0]['checkpoint'] is None
    assert figures[2]['train_images'] == 6


def test_bad_input_is_named(tool, world, monkeypatch):
    root, _ = world
    with pytest.raises(FileNotFoundError, match=r'nowhere/train is missing'):
        run(tool, monkeypatch, root / 'small.py', '--data-root', root / 'nowhere')
    backbone = tool.FrozenBackbone(Config.fromfile(root / 'small.py')).backbone
    with pytest.raises(FileNotFoundError, match=r'no\.pth: no such checkpoint'):
        tool.load_backbone(backbone, str(root / 'no.pth'))
    torch.save(dict(state_dict={'fc.weight': torch.zeros(1)}), root / 'other.pth')
    expected = r'other\.pth: .*the checkpoint has only fc\.weight'
    with pytest.raises(ValueError, match=expected):
        tool.load_backbone(backbone, str(root / 'other.pth'))
