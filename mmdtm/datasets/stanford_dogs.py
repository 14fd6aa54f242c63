"""Stanford Dogs, from its official files."""

import numpy as np
from mmpretrain.datasets.base_dataset import BaseDataset
from mmpretrain.registry import DATASETS
from scipy.io import loadmat

from ._files import require
from .bad_images import SkipBadImages

SOURCE = 'images.tar and lists.tar of http://vision.stanford.edu/aditya86/ImageNetDogs'


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
        **kwargs: ``max_bad_fraction`` of
            :class:`~mmdtm.datasets.bad_images.SkipBadImages`, and those of
            mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the split's list is missing.
        ValueError: If the list is not such a list.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        if split not in ('train', 'test'):
            raise ValueError(
                f"StanfordDogs: split is {split!r}. Give 'train' or 'test'."
            )
        super().__init__(
            ann_file=f'{split}_list.mat',
            data_root=data_root,
            data_prefix='Images',
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Read the split's list into ``img_path`` and ``gt_label``."""
        path = require(self.ann_file, 'Stanford Dogs', SOURCE)
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
