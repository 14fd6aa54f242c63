"""NABirds, from its official files."""

from mmpretrain.datasets.base_dataset import BaseDataset
from mmpretrain.registry import DATASETS

from ._files import read_pairs, require
from .bad_images import SkipBadImages

SOURCE = 'nabirds.tar.gz of https://dl.allaboutbirds.org/nabirds'


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
        **kwargs: ``max_bad_fraction`` of
            :class:`~mmdtm.datasets.bad_images.SkipBadImages`, and those of
            mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If one of the four files is missing.
        ValueError: If they do not fit together.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f"NABirds: split is {split!r}. Give 'train' or 'test'.")
        self.split = split
        super().__init__(
            ann_file='images.txt', data_root=data_root, data_prefix='images', **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Read the four files into ``img_path`` and ``gt_label``."""

        def pairs(name):
            return read_pairs(require(f'{self.data_root}/{name}', 'NABirds', SOURCE))

        paths = pairs('images.txt')
        class_ids = pairs('image_class_labels.txt')
        in_train = pairs('train_test_split.txt')
        names = pairs('classes.txt')
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
