"""Data sets and transforms; importing this registers them into mmpretrain."""

from importlib.util import find_spec

import mmdtm.prepare  # noqa: F401

from . import transforms
from .bad_images import SkipBadImages
from .collate import masked_collate
from .image_folder import ImageFolder
from .official import (
    INaturalist,
    NABirds,
    OfficialCIFAR10,
    OfficialCIFAR100,
    OfficialCUB,
    StanfordDogs,
)
from .tiny_imagenet import TinyImageNet
from .unlabeled import UnlabeledImages

if find_spec('mmseg') is not None:  # classification needs no mmsegmentation
    from .ade20k import CheckedADE20KDataset  # noqa: F401

__all__ = [
    'INaturalist',
    'ImageFolder',
    'NABirds',
    'OfficialCIFAR10',
    'OfficialCIFAR100',
    'OfficialCUB',
    'SkipBadImages',
    'StanfordDogs',
    'TinyImageNet',
    'UnlabeledImages',
    'masked_collate',
    'transforms',
]
