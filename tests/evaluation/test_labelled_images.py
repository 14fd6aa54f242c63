"""Class names, labels from folders, and images that cannot be read."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from mmdtm.evaluation.labelled_images import (
    ClassNames,
    LabelledImages,
    find_images,
    label_images,
    read_image,
)


def write_image(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_imagenet_classes_by_name_and_by_wnid():
    classes = ClassNames.imagenet()
    assert len(classes) == 1000
    # Sorted wnids number ImageNet's classes; these are well known.
    for index, wnid, name in [
        (0, 'n01440764', 'tench'),
        (207, 'n02099601', 'Golden Retriever'),
        (291, 'n02129165', 'lion'),
        (999, 'n15075141', 'toilet paper'),
    ]:
        assert classes.index(wnid) == index
        assert classes.index(name.lower()) == index
        assert classes.names[index].lower() == name.lower()


def test_unknown_class_name_suggests_the_likeliest():
    with pytest.raises(ValueError, match="'tenhc' is none of the 1000.*'tench'"):
        ClassNames.imagenet().index('tenhc')


def test_class_list_from_a_file(tmp_path):
    file = tmp_path / 'classes.txt'
    file.write_text('a_001\tred fox\n\nb_002\tgrey-wolf\nhare\n')
    classes = ClassNames.from_file(file)
    assert classes.names == ['red fox', 'grey-wolf', 'hare']
    for index, label in enumerate(['a_001', 'b_002', 'hare']):
        assert classes.index(label) == index
    assert classes.index('Red_Fox') == 0
    assert classes.index('grey wolf') == 1


@pytest.mark.parametrize(
    'text, message', [('\n \n', 'names no class'), ('a\nb\na\n', 'more than once: a')]
)
def test_bad_class_list_is_refused(tmp_path, text, message):
    file = tmp_path / 'classes.txt'
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        ClassNames.from_file(file)


def test_missing_class_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.txt'):
        ClassNames.from_file(tmp_path / 'absent.txt')


def test_images_are_found_in_order(tmp_path):
    files = [
        write_image(tmp_path / name) for name in ('b/2.png', 'a/1.JPEG', 'b/1.jpg')
    ]
    (tmp_path / 'a/notes.txt').write_text('no image')
    assert find_images(tmp_path) == sorted(files)
    assert find_images(files[0]) == [files[0]]
    (tmp_path / 'empty').mkdir()
    for missing in ('empty', 'nowhere'):
        with pytest.raises(FileNotFoundError, match=missing):
            find_images(tmp_path / missing)


def test_unknown_folder_is_named_and_the_rest_labelled(tmp_path):
    images = [tmp_path / name for name in ('hen/1.png', 'hne/1.png', 'hne/2.png')]
    classes = ClassNames(['cock', 'hen'])
    items, messages = label_images(images, classes)
    assert items == [(images[0], 1)]
    assert len(messages) == 1
    assert messages[0].startswith("2 image(s) left out: 'hne'")
    assert "'hen'" in messages[0]
    assert label_images(images, classes, 'cock') == ([(i, 0) for i in images], [])


def test_damaged_images_become_messages(tmp_path):
    good = write_image(tmp_path / 'good.png', size=(16, 16))
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert('RGB').save(stream, 'JPEG')
    cut = tmp_path / 'cut.jpg'
    cut.write_bytes(stream.getvalue()[:-400])
    text = tmp_path / 'text.png'
    text.write_text('this is no image')
    for bad in (cut, text):
        with pytest.raises(ValueError, match=bad.name):
            read_image(bad)
    loader = DataLoader(
        LabelledImages([(cut, 0), (good, 3), (text, 1), (text, 1)], pil_to_tensor),
        batch_size=3,
        collate_fn=LabelledImages.collate,
    )
    (images, labels, messages), (none, no_labels, more) = loader
    assert images.shape == (1, 3, 16, 16)
    assert torch.equal(images[0], pil_to_tensor(Image.open(good)))
    assert labels.tolist() == [3]
    assert [('cut' in m, 'text' in m) for m in messages] == [
        (True, False),
        (False, True),
    ]
    assert none is None and no_labels.tolist() == [] and len(more) == 1


def test_an_image_of_very_many_pixels_is_not_decoded(tmp_path):
    path = tmp_path / 'bomb.png'
    Image.new('1', (8200, 8200)).save(path)
    with pytest.raises(ValueError, match='bomb.png .*8200 x 8200 pixels'):
        read_image(path)


def test_every_mode_is_read_as_rgb(tmp_path):
    grey = tmp_path / 'grey.png'
    Image.new('L', (4, 4), 7).save(grey)
    assert read_image(grey).mode == 'RGB'
