"""CIFAR from its official pickles, each known by its digest before it is read."""

from pathlib import Path

from mmpretrain.datasets import CIFAR10, CIFAR100
from mmpretrain.datasets.utils import check_md5
from mmpretrain.registry import DATASETS

from ._files import require

SOURCE = 'the python version of https://www.cs.toronto.edu/~kriz/cifar.html'


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
        if split not in ('train', 'test'):
            raise ValueError(
                f"{type(self).__name__}: split is {split!r}. Give 'train' or 'test'."
            )
        super().__init__(data_root=data_root, split=split, download=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the split's batches: ``img`` (32, 32, 3) uint8 and ``gt_label``."""
        for name, md5 in (*self.train_list, *self.test_list):
            path = Path(self.data_prefix['root'], self.base_folder, name)
            if not check_md5(require(path, type(self).__name__, SOURCE), md5):
                raise ValueError(
                    f'{path} is not the official file: its MD5 is not {md5}, so that '
                    f'it was not read. Unpack {SOURCE} again.'
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
