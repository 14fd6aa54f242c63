"""Transforms of the data pipeline."""

from .block_mask import BlockMaskGenerator
from .check_seg_labels import CheckSegLabels
from .jittered_crop import JitteredResizedCrop
from .loading import BadImageError, LoadWholeImage

__all__ = [
    'BadImageError',
    'BlockMaskGenerator',
    'CheckSegLabels',
    'JitteredResizedCrop',
    'LoadWholeImage',
]
