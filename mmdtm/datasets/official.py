"""Data sets read from their publishers' files as they are (docs/data.md).

A missing file is named, with where it comes from; nothing is downloaded.
"""

import json
from pathlib import Path

import numpy as np
from mmpretrain.datasets import CIFAR10, CIFAR100, CUB
from mmpretrain.datasets.base_dataset import BaseDataset
from mmpretrain.datasets.utils import check_md5
from mmpretrain.registry import DATASETS
from scipy.io import loadmat

from mmdtm.morphing.checks import check_option

from .bad_images import SkipBadImages

SPLITS = ('train', 'test')
CIFAR_SOURCE = 'the python version of https://www.cs.toronto.edu/~kriz/cifar.html'
CUB_SOURCE = 'CUB_200_2011.tgz of https://www.vision.caltech.edu/datasets/cub_200_2011'
NABIRDS_SOURCE = 'nabirds.tar.gz of https://dl.allaboutbirds.org/nabirds'
DOGS = 'images.tar and lists.tar of http://vision.stanford.edu/aditya86/ImageNetDogs'
INATURALIST_SOURCE = 'https://github.com/visipedia/inat_comp'


def require(path: str | Path, what: str, source: str) -> Path:
    """Return ``path`` if it is a file, else say where the data set's come from.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'{what}: {path} is missing. Unpack the official files ({source}) so that '
            f'it is there, or set data_root in the config to where they are.'
        )
    return path


@DATASETS.register_module()
class OfficialCIFAR10(CIFAR10):
    """CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 images of 10 classes.

    A pickle can run any code when it is read, so only files whose MD5 is the
    official one are. mmpretrain checks that too, but takes a file that differs
    for one that is missing. The images are in BGR, as mmcv's loaders give them,
    so that pipelines and preprocessors are those of any other data set.

    Args:
        data_root: The folder that holds ``cifar-10-batches-py``.
        split: ``'train'`` or ``'test'``.
        **kwargs: Of mmpretrain's ``CIFAR10``.

    Raises:
        FileNotFoundError: If a batch is missing; nothing is downloaded.
        ValueError: If a file is not the official one.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        check_option(split, SPLITS, f'split of {type(self).__name__}')
        super().__init__(data_root=data_root, split=split, download=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the split's batches: ``img`` (32, 32, 3) uint8 and ``gt_label``."""
        for name, md5 in (*self.train_list, *self.test_list):
            path = Path(self.data_prefix['root'], self.base_folder, name)
            if not check_md5(require(path, type(self).__name__, CIFAR_SOURCE), md5):
                raise ValueError(
                    f'{path} is not the official file: its MD5 is not {md5}, so that '
                    f'it was not read. Unpack {CIFAR_SOURCE} again.'
                )
        samples = super().load_data_list()
        for sample in samples:
            sample['img'] = sample['img'][..., ::-1].copy()  # RGB there
        return samples


@DATASETS.register_module()
class OfficialCIFAR100(OfficialCIFAR10, CIFAR100):
    """CIFAR-100 (Krizhevsky, 2009) with its 100 fine labels.

    Takes what :class:`OfficialCIFAR10` takes; the folder is ``cifar-100-python``.
    """


@DATASETS.register_module()
class OfficialCUB(SkipBadImages, CUB):
    """mmpretrain's ``CUB``, which says what is missing and skips bad images.

    Args:
        data_root: The folder ``CUB_200_2011``, with ``images``, ``images.txt``,
            ``image_class_labels.txt`` and ``train_test_split.txt``.
        split: ``'train'`` (5,994 images) or ``'test'`` (5,794).
        **kwargs: Of :class:`SkipBadImages`, and of mmpretrain's ``CUB``.

    Raises:
        FileNotFoundError: If one of the three files is missing.
    """

    def load_data_list(self) -> list[dict]:
        """Read the three files into ``img_path`` and ``gt_label``."""
        for path in (self.image_class_labels_file, self.train_test_split_file):
            require(path, 'CUB-200-2011', CUB_SOURCE)
        require(self.ann_file, 'CUB-200-2011', CUB_SOURCE)
        return super().load_data_list()


def read_pairs(path: Path) -> dict[str, str]:
    """Read lines of ``KEY VALUE``, the value keeping its inner spaces.

    Raises:
        ValueError: If a line has no value or a key comes twice.
    """
    pairs = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(' ')
        if not value.strip() or key in pairs:
            reason = 'comes twice' if key in pairs else 'has no value'
            raise ValueError(
                f'{path}:{number}: {key!r} {reason}. Unpack the file again.'
            )
        pairs[key] = value.strip()
    return pairs


@DATASETS.register_module()
class NABirds(SkipBadImages, BaseDataset):
    """NABirds v1: 555 kinds of North American birds (Van Horn et al., 2015).

    The files are those of the official archive::

        nabirds
        ├── images/0817/0000139e21dc4d0cbfe14cae3c85c829.jpg ...
        ├── images.txt               IMAGE_ID PATH
        ├── image_class_labels.txt   IMAGE_ID CLASS_ID
        ├── train_test_split.txt     IMAGE_ID 1 (train) or 0 (test)
        └── classes.txt              CLASS_ID NAME

    ``classes.txt`` also lists the inner nodes of the taxonomy. The labels are
    the classes that some image has, in the order of their ids, counted from 0.

    Args:
        data_root: The folder ``nabirds``.
        split: ``'train'`` (23,929 images) or ``'test'`` (24,633).
        **kwargs: Of :class:`SkipBadImages`, and of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If one of the four files is missing.
        ValueError: If they do not fit together.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        check_option(split, SPLITS, f'split of {type(self).__name__}')
        self.split = split
        super().__init__(
            ann_file='images.txt', data_root=data_root, data_prefix='images', **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Read the four files into ``img_path`` and ``gt_label``."""
        paths, class_ids, in_train, names = (
            read_pairs(require(f'{self.data_root}/{name}', 'NABirds', NABIRDS_SOURCE))
            for name in (
                'images.txt',
                'image_class_labels.txt',
                'train_test_split.txt',
                'classes.txt',
            )
        )
        if not paths.keys() == class_ids.keys() == in_train.keys():
            odd = (paths.keys() ^ class_ids.keys()) | (paths.keys() ^ in_train.keys())
            raise ValueError(
                f'NABirds: images.txt, image_class_labels.txt and train_test_split.txt '
                f'under {self.data_root} list different images ({len(odd)} are not in '
                f'all three, {min(odd)} for one). Unpack the archive again.'
            )
        used = sorted(set(class_ids.values()), key=int)
        unnamed = [c for c in used if c not in names]
        if unnamed:
            raise ValueError(
                f'NABirds: class {unnamed[0]} of image_class_labels.txt is not in '
                f'{self.data_root}/classes.txt. Unpack the archive again.'
            )
        self._metainfo.setdefault('classes', tuple(names[c] for c in used))
        label = {class_id: i for i, class_id in enumerate(used)}
        wanted = '1' if self.split == 'train' else '0'
        return [
            dict(img_path=f'{self.img_prefix}/{path}', gt_label=label[class_ids[key]])
            for key, path in paths.items()
            if in_train[key] == wanted
        ]


@DATASETS.register_module()
class StanfordDogs(SkipBadImages, BaseDataset):
    """Stanford Dogs: 120 breeds of ImageNet (Khosla et al., 2011).

    The files are those of the two official archives::

        stanford_dogs
        ├── Images/n02085620-Chihuahua/n02085620_10074.jpg ...
        ├── train_list.mat   file_list (cells), labels (1 to 120)
        └── test_list.mat

    Args:
        data_root: The folder that holds ``Images`` and the lists.
        split: ``'train'`` (12,000 images) or ``'test'`` (8,580).
        **kwargs: Of :class:`SkipBadImages`, and of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the split's list is missing.
        ValueError: If the list is not such a list.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        check_option(split, SPLITS, f'split of {type(self).__name__}')
        kwargs |= dict(data_root=data_root, data_prefix='Images')
        super().__init__(ann_file=f'{split}_list.mat', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the split's list into ``img_path`` and ``gt_label``."""
        path = require(self.ann_file, 'Stanford Dogs', DOGS)
        try:
            content = loadmat(path)
            # MATLAB cells arrive as an (n, 1) array of one-element arrays.
            files = [str(np.ravel(cell)[0]) for cell in content['file_list'].ravel()]
            labels = content['labels'].ravel().astype(int) - 1
        except Exception as error:
            raise ValueError(
                f'{path} is not a list of Stanford Dogs ({error!r}). Unpack lists.tar '
                'again.'
            ) from error
        if len(files) != len(labels) or (len(labels) and labels.min() < 0):
            raise ValueError(
                f'{path}: {len(files)} files, {len(labels)} labels, the smallest of '
                f'them {labels.min() + 1 if len(labels) else None}; labels must count '
                'from 1, one for each file. Unpack lists.tar again.'
            )
        # n02085620-Chihuahua/n02085620_10074.jpg
        breeds = {
            label: file.split('/')[0].partition('-')[2]
            for file, label in zip(files, labels, strict=True)
        }
        self._metainfo.setdefault('classes', tuple(breeds[i] for i in sorted(breeds)))
        return [
            dict(img_path=f'{self.img_prefix}/{file}', gt_label=int(label))
            for file, label in zip(files, labels, strict=True)
        ]


@DATASETS.register_module()
class INaturalist(SkipBadImages, BaseDataset):
    """One split of iNaturalist 2018, 2019 or 2021 (Van Horn et al., 2018).

    The annotation file is the official one: a JSON object with the lists
    ``images`` (``id``, ``file_name``), ``annotations`` (``image_id``,
    ``category_id``) and ``categories`` (``id``, ``name``). ``file_name`` is
    relative to ``data_root``, where the image archives are unpacked. Labels
    are the categories in the order of their ids, counted from 0; every split
    of a year lists all of them.

    Args:
        data_root: The folder with the annotation files and image folders.
        ann_file: Such as ``'train2018.json'``.
        **kwargs: Of :class:`SkipBadImages`, and of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the annotation file is missing.
        ValueError: If it is not such a file, or has no labels (the test splits).
    """

    def __init__(self, data_root: str, ann_file: str, **kwargs) -> None:
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file into ``img_path`` and ``gt_label``."""
        path = require(self.ann_file, 'iNaturalist', INATURALIST_SOURCE)
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as error:
            raise ValueError(
                f'{path} is not JSON ({error}). It may be cut off: download it again.'
            ) from error
        keys = ('images', 'annotations', 'categories')
        missing = [key for key in keys if key not in content]
        if missing:
            raise ValueError(
                f'{path} has no {", ".join(missing)}. Use a training or validation '
                'split; the test splits have no labels.'
            )
        try:
            categories = sorted(content['categories'], key=lambda c: c['id'])
            label = {c['id']: i for i, c in enumerate(categories)}
            files = {image['id']: image['file_name'] for image in content['images']}
            samples = [
                dict(
                    img_path=f'{self.data_root}/{files[a["image_id"]]}',
                    gt_label=label[a['category_id']],
                )
                for a in content['annotations']
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'{path}: an annotation names an image or a category that is not in '
                f'the file, or an entry lacks a field ({error!r}). Download it again.'
            ) from error
        if len(label) != len(categories):
            raise ValueError(f'{path}: a category id comes twice. Download it again.')
        names = tuple(str(c.get('name', c['id'])) for c in categories)
        self._metainfo.setdefault('classes', names)
        return samples
