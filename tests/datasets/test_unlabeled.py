"""Images without labels: what is found where."""

import os

import pytest
from mmengine.logging import MMLogger
from mmpretrain.registry import DATASETS
from PIL import Image
from tiny_run import draw_images

import mmdtm.plugin  # noqa: F401

PIPELINE = [dict(type='LoadWholeImage'), dict(type='PackInputs')]


def build(root, **kwargs):
    cfg = dict(
        type='UnlabeledImages',
        data_root=str(root),
        data_prefix='train',
        pipeline=PIPELINE,
        serialize_data=False,
    )
    return DATASETS.build(cfg | kwargs)


def paths(dataset) -> list[str]:
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


@pytest.fixture
def root(tmp_path):
    """8 images."""
    draw_images(tmp_path, classes=2, each=4)
    return tmp_path


def test_finds_images_wherever_they_are(tmp_path):
    image = Image.new('RGB', (8, 8))
    names = ['b/2.JPEG', 'b/deep/er/1.png', 'a/1.jpg', 'top.jpeg']
    for name in names:
        path = tmp_path / 'train' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    (tmp_path / 'train/a/notes.txt').write_text('no image')
    dataset = build(tmp_path)
    assert paths(dataset) == sorted(str(tmp_path / 'train' / name) for name in names)
    assert dataset[0]['inputs'].shape == (3, 8, 8)


def test_list_of_paths_spares_the_scan(root):
    (root / 'list.txt').write_text('c1/2.JPEG\nc0/0.JPEG\n')
    dataset = build(root, ann_file='list.txt')
    assert paths(dataset) == [
        str(root / 'train/c1/2.JPEG'),
        str(root / 'train/c0/0.JPEG'),
    ]


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/train is missing.*JPEG'):
        build(tmp_path)
    (tmp_path / 'train/c0').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/train has no image'):
        build(tmp_path)


@pytest.mark.parametrize('kind', ['UnlabeledImages', 'ImageFolder'])
def test_what_would_hang_or_loop_is_left_out_by_name(root, tmp_path, kind):
    """Regular files behind links are found; each odd entry is named in the log."""
    folder = root / 'train/c0'
    expected = sorted(map(str, root.glob('train/*/*')))
    (root / 'elsewhere').mkdir()
    expected.append(str((root / 'train/c1/1.JPEG').rename(root / 'elsewhere/1.JPEG')))
    (root / 'train/c1/1.JPEG').symlink_to(root / 'elsewhere/1.JPEG')
    (root / 'train/c1/linked').symlink_to(root / 'elsewhere')
    expected[-1] = str(root / 'train/c1/linked/1.JPEG')

    os.mkfifo(folder / 'pipe.jpg')
    (folder / 'device.jpg').symlink_to('/dev/zero')
    (folder / 'loop').symlink_to(folder / 'loop')
    (folder / 'above').symlink_to(root / 'train/c0')
    (folder / 'dangling.jpg').symlink_to(root / 'nowhere')
    (folder / '.hidden.jpg').write_bytes(b'')

    MMLogger.get_instance('odd files', log_file=str(tmp_path / 'log'))
    try:
        dataset = build(root, type=kind)
    finally:
        MMLogger._instance_dict.pop('odd files')
    assert paths(dataset) == sorted(expected)
    log = (tmp_path / 'log').read_text()
    assert '5 entries are left out' in log
    for name in ('pipe.jpg', 'device.jpg', 'loop', 'above', 'dangling.jpg'):
        assert f'{folder / name} (' in log
