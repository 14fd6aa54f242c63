"""Tiny ImageNet as it is published."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_imagenet import COLOURS, SYNSETS, draw_tiny_imagenet

import mmdtm.plugin  # noqa: F401
from mmdtm.datasets import TinyImageNet

ORDER = sorted(SYNSETS)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return draw_tiny_imagenet(tmp_path_factory.mktemp('data') / 'tiny-imagenet-200')


def infos(dataset) -> list[dict]:
    return [dataset.get_data_info(i) for i in range(len(dataset))]


@pytest.mark.parametrize('split, number', [('train', 24), ('val', 12)])
def test_labels_and_boxes_are_those_of_the_pixels(root, split, number):
    dataset = TinyImageNet(str(root), split)
    assert len(dataset) == number
    assert list(dataset.CLASSES) == [SYNSETS[synset] for synset in ORDER]
    for info in infos(dataset):
        pixels = np.asarray(Image.open(info['img_path'])).astype(int)
        x0, y0, x1, y1 = info['box']
        colour = COLOURS[list(SYNSETS).index(ORDER[info['gt_label']])]
        inside = np.abs(pixels[y0 : y1 + 1, x0 : x1 + 1] - colour)
        assert np.median(inside) < 12
        outside = np.ones((64, 64), bool)
        outside[y0 : y1 + 1, x0 : x1 + 1] = False
        assert np.median(pixels[outside]) < 60


def test_a_share_is_balanced_and_part_of_every_larger_one(root):
    paths = {}
    for share in (1 / 6, 0.5, 1.0):
        dataset = TinyImageNet(str(root), share=share)
        counts = np.bincount(dataset.get_gt_labels(), minlength=4)
        assert counts.tolist() == [round(6 * share)] * 4
        paths[share] = {info['img_path'] for info in infos(dataset)}
    assert paths[1 / 6] < paths[0.5] < paths[1.0]
    # Rounded up: a class has at least one image.
    assert len(TinyImageNet(str(root), share=0.01)) == 4


def test_a_share_does_not_depend_on_where_the_data_lie(root, tmp_path):
    other = draw_tiny_imagenet(tmp_path / 'elsewhere')
    names = [
        [Path(info['img_path']).name for info in infos(TinyImageNet(str(r), share=0.4))]
        for r in (root, other)
    ]
    assert names[0] == names[1] and len(names[0]) == 12


def test_what_is_wrong_is_said(root, tmp_path):
    with pytest.raises(ValueError, match="'test'.*no labels"):
        TinyImageNet(str(root), 'test')
    with pytest.raises(ValueError, match='share is 0'):
        TinyImageNet(str(root), share=0)
    with pytest.raises(FileNotFoundError, match=r'words\.txt is missing.*cs231n'):
        TinyImageNet(str(tmp_path))
    other = draw_tiny_imagenet(tmp_path / 'damaged', 1, 1)
    lines = (other / 'val/val_annotations.txt').read_text()
    (other / 'val/val_annotations.txt').write_text(lines + 'val_9.JPEG\tn0\t1\t1\t2\n')
    with pytest.raises(ValueError, match='line 5 has 5 values, not 6'):
        TinyImageNet(str(other), 'val')
    (other / 'val/val_annotations.txt').write_text('a.JPEG\tn00001740\t1\t1\t2\t2\n')
    with pytest.raises(ValueError, match=r'a\.JPEG is of n00001740'):
        TinyImageNet(str(other), 'val')
    (other / 'words.txt').write_text('n02124075\tEgyptian cat\n')
    with pytest.raises(ValueError, match='does not name n01443537'):
        TinyImageNet(str(other))
