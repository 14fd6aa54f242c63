"""Labels by folder name, the same in every split."""

import numpy as np
import pytest
from tiny import draw_classes

from mmdtm.datasets import ImageFolder


def draw(root, split: str, names) -> None:
    draw_classes(root / split, dict.fromkeys(names, (0, 0, 0)))


def read(root, split: str, **kwargs) -> ImageFolder:
    return ImageFolder(str(root), split, **kwargs)


def test_classes_come_from_the_training_split(tmp_path):
    draw(tmp_path, 'train', ['ant', 'bee', 'cow'])
    draw(tmp_path, 'val', ['bee', 'cow'])
    val = read(tmp_path, 'val')
    assert val.get_gt_labels().tolist() == [1, 2]  # not 0 and 1
    assert val.metainfo['classes'] == ('ant', 'bee', 'cow')
    assert val.get_data_info(0)['img_path'] == str(tmp_path / 'val/bee/0.png')


def test_imagenet_labels_of_a_part_of_imagenet(tmp_path):
    # First, second and last of the usual order.
    draw(tmp_path, 'val', ['n15075141', 'n01440764', 'n01443537'])
    val = read(tmp_path, 'val', classes='imagenet-1k')
    assert val.get_gt_labels().tolist() == [0, 1, 999]
    assert len(val.metainfo['classes']) == 1000


def test_labels_of_the_photographs(photos):
    train = read(photos, 'train', classes='imagenet-1k')
    names = [path.name for path in sorted((photos / 'train').iterdir())]
    labels = train.get_gt_labels()
    assert [train.metainfo['classes'][label] for label in np.unique(labels)] == names


def test_a_list_of_classes(tmp_path):
    draw(tmp_path, 'train', ['ant', 'bee'])
    train = read(tmp_path, 'train', classes=['bee', 'ant'])
    assert {i['img_path'][-9:-6]: i['gt_label'] for i in train} == dict(ant=1, bee=0)


def test_folder_of_no_class_is_named(tmp_path):
    draw(tmp_path, 'train', ['ant', 'bee'])
    draw(tmp_path, 'val', ['ant', 'wasp'])
    with pytest.raises(ValueError, match=r'val: 1 of 2 folders.*wasp.*set classes'):
        read(tmp_path, 'val')
    with pytest.raises(ValueError, match='none of the 1000 classes'):
        read(tmp_path, 'train', classes='imagenet-1k')


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='train is missing.*data_root'):
        read(tmp_path, 'train')
    (tmp_path / 'train/ant').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='1 class folders, but no image'):
        read(tmp_path, 'train')
    (tmp_path / 'val').mkdir()
    with pytest.raises(FileNotFoundError, match='val has no class folders'):
        read(tmp_path, 'val', classes_from='val')
