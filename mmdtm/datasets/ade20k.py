"""mmsegmentation's ADE20K that notices missing files before training."""

import os
from pathlib import Path

from mmpretrain.registry import DATASETS
from mmseg.datasets import ADE20KDataset


@DATASETS.register_module()
class CheckedADE20KDataset(ADE20KDataset):
    """mmsegmentation's ``ADE20KDataset``: every image has a mask and vice versa.

    Unchecked, a missing mask ends a run when its image is drawn, perhaps after
    hours, a mask without image is left out in silence, and an empty split ends
    in an error of numpy that names nothing.

    Args:
        **kwargs: Of mmsegmentation's ``ADE20KDataset``.

    Raises:
        FileNotFoundError: If the split is missing or empty, or images and
            masks do not pair; names files and the way out.
    """

    def load_data_list(self) -> list[dict]:
        """List the split: ``img_path``, ``seg_map_path``, ... each."""
        images = Path(self.data_prefix['img_path'])
        infos = super().load_data_list() if images.is_dir() else []
        if not infos:
            problem = (
                f'has no {self.img_suffix} file' if images.is_dir() else 'is missing'
            )
            raise FileNotFoundError(
                f'{images} {problem}. Put the images there, or set data_root (and '
                'data_prefix.img_path, img_suffix) of the dataset to theirs.'
            )
        if 'seg_map_path' in infos[0]:  # a test set may have no masks
            self._check_pairs(infos)
        num_classes = len(self.metainfo['classes'])  # for CheckSegLabels
        return [dict(info, num_classes=num_classes) for info in infos]

    def _check_pairs(self, infos: list[dict]) -> None:
        masks = {Path(info['seg_map_path']) for info in infos}
        # One listing per folder, rather than one question per file.
        there = {
            Path(entry.path)
            for folder in {mask.parent for mask in masks}
            if folder.is_dir()
            for entry in os.scandir(folder)
            if entry.name.endswith(self.seg_map_suffix) and entry.is_file()
        }
        without = [i for i in infos if Path(i['seg_map_path']) not in there]
        if without:
            first = without[0]
            raise FileNotFoundError(
                f'{len(without)} of {len(infos)} images have no mask: '
                f'{first["img_path"]} needs {first["seg_map_path"]}. Add the masks, '
                'remove the images, or set data_prefix.seg_map_path and seg_map_suffix '
                'of the dataset.'
            )
        unused = sorted(there - masks)
        if unused and not self.ann_file:  # a list of files may leave some out
            raise FileNotFoundError(
                f'{len(unused)} masks have no image: {unused[0]} has no '
                f'{self.img_suffix} file in {self.data_prefix["img_path"]}. Add the '
                "images, remove the masks, or list the wanted files in the dataset's "
                'ann_file.'
            )
