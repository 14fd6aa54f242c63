"""Importing this package registers its classes into mmpretrain."""

from . import backbones, losses, morphing  # noqa: F401
from . import target_generators  # noqa: F401
