"""Masks with values that no class has."""

from io import BytesIO

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS
from PIL import Image

# Pillow's modes of one value in 8 bits; mmsegmentation casts others to that.
EIGHT_BIT_MODES = ('1', 'L', 'P')
IGNORED = 255  # mmsegmentation's losses and metrics pass over it


@TRANSFORMS.register_module()
class CheckSegLabels(BaseTransform):
    """Refuse a mask whose values are not classes, naming its file.

    Unchecked, values beyond the classes are counted for no class by the
    metric, end in an unreadable indexing error in the loss, and wider than 8
    bits they are cut to something else. Follows ``LoadAnnotations``.

    Required keys: ``gt_seg_map`` (H, W) uint8, ``seg_map_path``.

    Args:
        num_classes: Values 0..num_classes - 1 are classes, as the loss sees
            them (after ``reduce_zero_label``). None: the key ``num_classes`` of
            the sample, which :class:`~mmdtm.datasets.ade20k.CheckedADE20KDataset`
            adds.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        self.num_classes = num_classes

    def transform(self, results: dict) -> dict:
        """Check the mask and pass everything on.

        Raises:
            ValueError: If the file is not an 8-bit mask, or has values that are
                neither a class nor 255.
        """
        if 'gt_seg_map' not in results:  # mmseg's inference leaves masks out
            return results
        path, labels = results['seg_map_path'], results['gt_seg_map']
        with Image.open(BytesIO(fileio.get(path))) as image:
            mode = image.mode
        if mode not in EIGHT_BIT_MODES:
            raise ValueError(
                f'{path} is not a mask of 8 bits with one value per pixel: its mode is '
                f'{mode}. Write class numbers into a PNG of mode L or P.'
            )
        num_classes = self.num_classes or results['num_classes']
        wrong = (labels >= num_classes) & (labels != IGNORED)
        if wrong.any():
            shift = int(bool(results.get('reduce_zero_label')))
            values = (np.unique(labels[wrong]) + shift).tolist()
            raise ValueError(
                f'{path} has values outside the classes: {values[:8]} in '
                f'{int(wrong.sum())} pixels. Allowed in this file are {shift} to '
                f'{num_classes - 1 + shift}'
                + (', 0 (ignored)' if shift else '')
                + f' and {IGNORED} (ignored). Correct the mask, or set '
                'num_classes of the heads, and the classes of the dataset (of '
                'CheckSegLabels, where it has them), to those of your data.'
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes})'
