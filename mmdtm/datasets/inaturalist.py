"""iNaturalist's challenges, from their official COCO-style annotations."""

import json

from mmpretrain.datasets.base_dataset import BaseDataset
from mmpretrain.registry import DATASETS

from ._files import require
from .bad_images import SkipBadImages

SOURCE = 'https://github.com/visipedia/inat_comp'


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
        **kwargs: ``max_bad_fraction`` of
            :class:`~mmdtm.datasets.bad_images.SkipBadImages`, and those of
            mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If the annotation file is missing.
        ValueError: If it is not such a file, or has no labels (the test splits).
    """

    def __init__(self, data_root: str, ann_file: str, **kwargs) -> None:
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file into ``img_path`` and ``gt_label``."""
        path = require(self.ann_file, 'iNaturalist', SOURCE)
        try:
            with path.open(encoding='utf-8') as file:
                content = json.load(file)
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
