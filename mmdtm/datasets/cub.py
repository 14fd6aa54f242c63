"""CUB-200-2011, from its official files."""

from mmpretrain.datasets import CUB
from mmpretrain.registry import DATASETS

from ._files import require
from .bad_images import SkipBadImages

SOURCE = 'CUB_200_2011.tgz of https://www.vision.caltech.edu/datasets/cub_200_2011'


@DATASETS.register_module()
class OfficialCUB(SkipBadImages, CUB):
    """mmpretrain's ``CUB``, which says what is missing and skips bad images.

    Args:
        data_root: The folder ``CUB_200_2011``, with ``images``, ``images.txt``,
            ``image_class_labels.txt`` and ``train_test_split.txt``.
        split: ``'train'`` (5,994 images) or ``'test'`` (5,794).
        **kwargs: ``max_bad_fraction`` of
            :class:`~mmdtm.datasets.bad_images.SkipBadImages`, and those of
            mmpretrain's ``CUB``.

    Raises:
        FileNotFoundError: If one of the three files is missing.
    """

    def load_data_list(self) -> list[dict]:
        """Read the three files into ``img_path`` and ``gt_label``."""
        for path in (
            self.ann_file,
            self.image_class_labels_file,
            self.train_test_split_file,
        ):
            require(path, 'CUB-200-2011', SOURCE)
        return super().load_data_list()
