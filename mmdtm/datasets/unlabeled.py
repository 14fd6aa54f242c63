"""Images without labels."""

import os
from collections.abc import Sequence

from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from ._files import IMAGE_SUFFIXES, regular_files
from .bad_images import SkipBadImages


@DATASETS.register_module()
class UnlabeledImages(SkipBadImages, CustomDataset):
    """Every image below ``data_root/data_prefix``, whatever the folders mean.

    ImageNet's ``<class>/<name>.JPEG`` and any other tree will do. ``ann_file``,
    a list of paths relative to the folder, one per line, spares the scan.

    Args:
        data_root: Folder of the data set.
        data_prefix: Folder below it to scan, such as ``'train'``.
        max_bad_fraction: See :class:`SkipBadImages`.
        extensions: Of the files that are images, in lower case.
        **kwargs: Of mmpretrain's ``CustomDataset``.

    Raises:
        FileNotFoundError: If the folder is missing or has no image.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str = '',
        extensions: Sequence[str] = IMAGE_SUFFIXES,
        **kwargs,
    ) -> None:
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            extensions=extensions,
            with_label=False,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """List the images in the order of their paths: ``img_path`` each."""
        if self.ann_file:
            return super().load_data_list()
        place = self.img_prefix
        if not os.path.isdir(place):
            problem = 'is missing'
        elif paths := regular_files(place, self.is_valid_file):
            return [dict(img_path=path) for path in paths]
        else:
            problem = f'has no image ({", ".join(sorted(self.extensions))})'
        raise FileNotFoundError(
            f'{place} {problem}. Put the images there, as <class>/<name>.JPEG or in '
            'any other folders, or set data_root (and data_prefix) of the dataset '
            'to where they are.'
        )
