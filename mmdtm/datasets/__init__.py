"""Data sets and transforms; importing this registers them into mmpretrain."""

from mmdtm import compat

compat.apply()

from . import transforms  # noqa: E402
from .cifar import OfficialCIFAR10, OfficialCIFAR100  # noqa: E402
from .image_folder import ImageFolder  # noqa: E402
from .inaturalist import INaturalist  # noqa: E402
from .nabirds import NABirds  # noqa: E402
from .stanford_dogs import StanfordDogs  # noqa: E402
from .unlabeled import SkipBadImages, UnlabeledImages  # noqa: E402

__all__ = [
    'INaturalist',
    'ImageFolder',
    'NABirds',
    'OfficialCIFAR10',
    'OfficialCIFAR100',
    'SkipBadImages',
    'StanfordDogs',
    'UnlabeledImages',
    'transforms',
]
