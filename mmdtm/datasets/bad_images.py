"""What a data set does about images that cannot be read."""

import math
import random

import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger

from .transforms.loading import BadImageError


class SkipBadImages(BaseDataset):
    """Mixin of a mmpretrain data set: trains on although some images are bad.

    An image that ``LoadWholeImage`` refuses is named in the log, counted, and
    replaced by another one, drawn by its index. Each rank counts by itself, all
    its worker processes together: of the images that it has read, or will have
    read after an epoch. In test mode the first bad image is an error.

    Args:
        max_bad_fraction: Share of those images; with more bad ones, and more
            than one, training stops.
    """

    # Both (len(self),) bool, in shared memory, once the list is loaded.
    _read: torch.Tensor
    _bad: torch.Tensor

    def __init__(self, *args, max_bad_fraction: float = 0.01, **kwargs) -> None:
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(
                f'max_bad_fraction is {max_bad_fraction}. Give a share of the images, '
                'from 0 to 1.'
            )
        self.max_bad_fraction = max_bad_fraction
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Load the list of images, before workers are started."""
        super().full_init()
        if not hasattr(self, '_bad'):
            self._bad, self._read = torch.zeros(2, len(self), dtype=torch.bool)
            self._bad.share_memory_()
            self._read.share_memory_()
            # Workers belong to no process group, so that they cannot ask later.
            self._per_epoch = math.ceil(len(self) / get_world_size())

    @property
    def num_bad(self) -> int:
        """How many different images of the data set were bad so far."""
        return int(self._bad.sum())

    def __getitem__(self, idx: int) -> dict:
        """The image at ``idx`` through the pipeline, or another if it is bad.

        Raises:
            OSError: If too many images are bad; names some of them.
            BadImageError: If the image is bad, in test mode.
        """
        if self.test_mode:
            return super().__getitem__(idx)
        self.full_init()
        others = random.Random(idx)
        while True:
            self._read[idx] = True
            try:
                return super().__getitem__(idx)
            except BadImageError as error:
                self._skip(idx, error)
            idx = others.randrange(len(self))

    def _skip(self, idx: int, error: BadImageError) -> None:
        size = max(self._per_epoch, int(self._read.sum()))
        if not self._bad[idx]:
            self._bad[idx] = True
            # An error, since the warnings of all ranks but the first are not shown.
            MMLogger.get_current_instance().error(
                f'Skipped {error}. Bad so far: {self.num_bad} of {size} images.'
            )
        bad = self.num_bad
        if bad == len(self) or bad > max(1, self.max_bad_fraction * size):
            some = self._bad.nonzero().flatten()[:5].tolist()
            paths = ', '.join(self.get_data_info(i)['img_path'] for i in some)
            raise OSError(
                f'{bad} of {size} images are bad, more than max_bad_fraction='
                f'{self.max_bad_fraction} allows: {paths}, ... Restore or remove '
                'them, or allow more with max_bad_fraction of the dataset.'
            )
