"""CIFAR from its official pickles, of which no code can run."""

import io
import pickle
from pathlib import Path

import numpy as np
from mmpretrain.datasets import CIFAR10, CIFAR100
from mmpretrain.registry import DATASETS

from ._files import require

SOURCE = 'the python version of https://www.cs.toronto.edu/~kriz/cifar.html'


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, strings, containers and numpy arrays."""

    # All that the official batches name, under numpy 1 and 2.
    ALLOWED = {
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', '_reconstruct'),
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        if name == '_reconstruct':
            return np.ndarray(0).__reduce__()[0]  # wherever this numpy has it
        return getattr(np, name)


def read_batch(path: Path) -> tuple[np.ndarray, list[int]]:
    """Read one official CIFAR batch without running anything it contains.

    A pickle can run any code when it is read. This reader knows numpy arrays
    and the built-in containers, and refuses the rest.

    Args:
        path: ``data_batch_1``, ``train``, ``test``, ...

    Returns:
        Images as uint8 of shape (n, 32, 32, 3) in RGB, and n labels.

    Raises:
        ValueError: If the file is no such batch, is cut off, or asks for
            anything beyond numpy arrays.
    """
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding='latin1').load()
        data = batch['data']
        labels = batch['labels'] if 'labels' in batch else batch['fine_labels']
        if data.dtype != np.uint8 or data.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f'data of {data.dtype} {data.shape}, {len(labels)} labels')
        # Rows are planes of red, green and blue.
        images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, [int(label) for label in labels]
    except Exception as error:
        raise ValueError(
            f'{path} is not an official CIFAR batch ({error}); nothing in it was run. '
            f'Unpack {SOURCE} again.'
        ) from error


class _OfficialBatches:
    """Replaces the loading of mmpretrain's CIFAR classes.

    Theirs downloads what is missing and compares digests before an ordinary
    unpickling. This one never downloads, names the missing file, and cannot
    run what a file contains. Images come as BGR, as from mmcv's loaders, so
    that pipelines and preprocessors are those of any other data set.
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        if split not in ('train', 'test'):
            raise ValueError(
                f"{type(self).__name__}: split is 'train' or 'test', not {split!r}."
            )
        super().__init__(data_root=data_root, split=split, download=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the split's batches into ``img`` and ``gt_label``."""
        batches = self.train_list if self.split == 'train' else self.test_list
        samples = []
        for name, _ in batches:
            path = Path(self.data_prefix['root'], self.base_folder, name)
            images, labels = read_batch(require(path, type(self).__name__, SOURCE))
            bgr = np.ascontiguousarray(images[..., ::-1])
            samples += [
                dict(img=image, gt_label=label)
                for image, label in zip(bgr, labels, strict=True)
            ]
        return samples


@DATASETS.register_module()
class OfficialCIFAR10(_OfficialBatches, CIFAR10):
    """CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 images of 10 classes.

    Args:
        data_root: The folder that holds ``cifar-10-batches-py``.
        split: ``'train'`` or ``'test'``.
        **kwargs: Of mmpretrain's ``CIFAR10``.

    Raises:
        FileNotFoundError: If a batch is missing; nothing is downloaded.
        ValueError: If a file is not an official batch.
    """


@DATASETS.register_module()
class OfficialCIFAR100(_OfficialBatches, CIFAR100):
    """CIFAR-100 (Krizhevsky, 2009) with its 100 fine labels.

    Args:
        data_root: The folder that holds ``cifar-100-python``.
        split: ``'train'`` or ``'test'``.
        **kwargs: Of mmpretrain's ``CIFAR100``.

    Raises:
        FileNotFoundError: If a batch is missing; nothing is downloaded.
        ValueError: If a file is not an official batch.
    """
