"""Images that cannot be read: named, counted, replaced, and too many of them."""

import pytest
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmdtm.datasets import bad_images
from mmdtm.datasets.transforms import BadImageError


@pytest.fixture
def spoil(root):
    """Spoil images: half a JPEG, no image at all, and an empty file."""
    images = sorted(root.glob('train/*/*'))

    def spoil_first(count: int) -> list[str]:
        ways = [lambda data: data[: len(data) // 2], lambda _: b'text', lambda _: b'']
        for path, way in zip(images[:count], ways, strict=False):
            path.write_bytes(way(path.read_bytes()))
        return [str(path) for path in images[:count]]

    return spoil_first


@pytest.fixture
def log(tmp_path):
    """The file of the current logger, as a Runner has one."""
    MMLogger.get_instance('bad images', log_file=str(tmp_path / 'log'))
    yield tmp_path / 'log'
    MMLogger._instance_dict.pop('bad images')


@pytest.mark.parametrize('workers', [0, 2])
def test_bad_images_are_named_once_counted_and_replaced(
    root, spoil, log, workers, build, paths
):
    bad = spoil(3)
    dataset = build(root, max_bad_fraction=0.5)
    loader = DataLoader(dataset, num_workers=workers, batch_size=None)
    epochs = [
        [sample['data_samples'].img_path for sample in loader] for epoch in range(2)
    ]
    assert len(epochs[0]) == 8 and epochs[0] == epochs[1], 'replaced by the same again'
    assert not set(epochs[0]) & set(bad)
    assert epochs[0][3:] == paths(dataset)[3:], 'the others stay in place'
    assert dataset.num_bad == 3, 'counted over all workers'
    text = log.read_text()
    assert [text.count(f'Skipped {path} is not a whole image') for path in bad] == [
        1
    ] * 3
    assert 'Bad so far: 3 of 8 images' in text


def test_too_many_bad_images_are_an_error(root, spoil, build):
    bad = spoil(3)
    dataset = build(root, max_bad_fraction=0.25)
    with pytest.raises(OSError, match='3 of 8 images are bad.*0.25') as error:
        [dataset[i] for i in range(8)]
    assert all(path in str(error.value) for path in bad)
    assert error.type is OSError, 'which a worker process can hand on'


def test_each_of_several_processes_counts_what_it_reads(
    root, spoil, monkeypatch, build, paths
):
    spoil(2)
    monkeypatch.setattr(bad_images, 'get_world_size', lambda: 4)
    dataset = build(root, max_bad_fraction=0.6)
    assert dataset[0]['data_samples'].img_path == paths(dataset)[6]
    with pytest.raises(OSError, match='2 of 3 images are bad.*0.6'):
        dataset[1]
    # Once it has read all, two are not too many.
    dataset._read[:] = True
    assert dataset[1]['data_samples'].img_path == paths(dataset)[2]


def test_one_bad_image_of_few_is_no_error(root, spoil, build, paths):
    spoil(1)
    dataset = build(root)
    assert dataset[0]['data_samples'].img_path in paths(dataset)[1:]
    assert dataset.num_bad == 1


def test_nothing_but_bad_images_ends(tmp_path, build):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/0.JPEG').write_bytes(b'')
    with pytest.raises(OSError, match='1 of 1 images are bad'):
        build(tmp_path, max_bad_fraction=1.0)[0]


def test_evaluation_takes_no_replacement(root, spoil, build):
    (bad,) = spoil(1)
    with pytest.raises(BadImageError, match=bad):
        build(root, test_mode=True)[0]


@pytest.mark.parametrize('fraction', [-0.1, 1.5])
def test_a_share_out_of_range_is_refused(root, fraction, build):
    with pytest.raises(ValueError, match='max_bad_fraction'):
        build(root, max_bad_fraction=fraction)
