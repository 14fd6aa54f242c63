"""Images that lie in class folders, asked and answering."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import numpy as np
import pytest
import torch
from PIL import Image

from mmdtm.evaluation import folder_probe
from mmdtm.evaluation.embedding import Embedder
from mmdtm.evaluation.folder_probe import probe_folder, split_images


def touch(folder, names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_every_fifth_image_of_a_class_is_asked(tmp_path, monkeypatch):
    names = [f'{kind}/{i}.jpg' for kind in ('b', 'a/deep') for i in range(7)]
    touch(tmp_path, [*names, 'few/0.jpg', 'none.jpg'])
    known, asked = split_images(tmp_path)
    assert asked == {f'{tmp_path}/a/deep/4.jpg': 0, f'{tmp_path}/b/4.jpg': 1}
    expected = {f'{tmp_path}/{n}' for n in names} - asked.keys()
    assert known.keys() == expected and set(known.values()) == {0, 1}
    assert all(('/b/' in path) == bool(label) for path, label in known.items())
    monkeypatch.setattr(folder_probe, 'PROBED', 5)
    known, asked = split_images(tmp_path)
    assert len(known) == 8 and len(asked) == 2


def test_splits_are_kept_apart(tmp_path):
    touch(tmp_path, ['train/a/0.jpg', 'train/b/0.jpg', 'train/c/0.jpg'])
    touch(tmp_path, ['val/b/1.jpg', 'val/a/1.jpg', 'val/d/1.jpg'])
    known, asked = split_images(tmp_path)
    assert known == {f'{tmp_path}/train/a/0.jpg': 0, f'{tmp_path}/train/b/0.jpg': 1}
    assert asked == {f'{tmp_path}/val/a/1.jpg': 0, f'{tmp_path}/val/b/1.jpg': 1}


@pytest.mark.parametrize('names', [['0.jpg'] * 9, [f'a/{i}.jpg' for i in range(9)]])
def test_nothing_to_ask(tmp_path, names):
    touch(tmp_path, names)
    assert split_images(tmp_path) == ({}, {}) and probe_folder(tmp_path, {}) == {}


class Brightness(torch.nn.Module):
    """Two classes by their means, or one feature that says nothing."""

    def __init__(self, blind: bool) -> None:
        super().__init__()
        self.blind = blind

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        mean = mean * 0 + 1 if self.blind else mean
        return (torch.stack([mean, mean * 0 + 0.1], dim=1),)


def test_values_are_those_of_the_features(tmp_path):
    for label, kind in enumerate(('a', 'b')):
        (tmp_path / kind).mkdir()
        for i in range(10):
            pixels = np.full((20, 20, 3), 20 + 200 * label + i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f'{i}.png')
    (tmp_path / 'a/0.png').write_bytes(b'none')
    half, one = torch.full((3,), 127.0), torch.ones(3)
    embedders = {
        name: Embedder(network, network, 16, half, one)
        for name in ('sees', 'blind')
        for network in [Brightness(name == 'blind')]
    }
    values = probe_folder(tmp_path, embedders)
    assert values['classes'] == 2
    assert (values['images_known'], values['images_asked']) == (15, 4)
    assert values['sees'] == dict(knn_top1=100, linear_top1=100)
    assert values['blind'] == dict(knn_top1=50, linear_top1=50)
