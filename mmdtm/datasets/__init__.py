"""Data sets and transforms; importing this registers them into mmpretrain."""

from importlib.util import find_spec

from mmdtm import compat

compat.apply()

from . import transforms  # noqa: E402
from .bad_images import SkipBadImages  # noqa: E402
from .cifar import OfficialCIFAR10, OfficialCIFAR100  # noqa: E402
from .cub import OfficialCUB  # noqa: E402
from .image_folder import ImageFolder  # noqa: E402
from .inaturalist import INaturalist  # noqa: E402
from .nabirds import NABirds  # noqa: E402
from .stanford_dogs import StanfordDogs  # noqa: E402
from .unlabeled import UnlabeledImages  # noqa: E402

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
    'UnlabeledImages',
    'transforms',
]
