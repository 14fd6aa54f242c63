"""Data sets and transforms; importing this registers them into mmpretrain."""

from . import transforms
from .cifar import OfficialCIFAR10, OfficialCIFAR100
from .image_folder import ImageFolder
from .inaturalist import INaturalist
from .nabirds import NABirds
from .stanford_dogs import StanfordDogs

__all__ = [
    'INaturalist',
    'ImageFolder',
    'NABirds',
    'OfficialCIFAR10',
    'OfficialCIFAR100',
    'StanfordDogs',
    'transforms',
]
