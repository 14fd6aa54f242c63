"""Images without labels: what is found where."""

import os

import pytest
from mmengine.logging import MMLogger
from PIL import Image


def test_finds_images_wherever_they_are(tmp_path, build, paths):
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


def test_list_of_paths_spares_the_scan(root, build, paths):
    (root / 'list.txt').write_text('c1/2.JPEG\nc0/0.JPEG\n')
    dataset = build(root, ann_file='list.txt')
    assert paths(dataset) == [
        str(root / 'train/c1/2.JPEG'),
        str(root / 'train/c0/0.JPEG'),
    ]


def test_missing_and_empty_folders_are_named(tmp_path, build):
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/train is missing.*JPEG'):
        build(tmp_path)
    (tmp_path / 'train/c0').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/train has no image'):
        build(tmp_path)


@pytest.mark.parametrize('kind', ['UnlabeledImages', 'ImageFolder'])
def test_what_would_hang_or_loop_is_left_out_by_name(
    root, tmp_path, build, paths, kind
):
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
