"""Importing this package registers its classes into mmpretrain."""

from . import (  # noqa: F401
    backbones,
    losses,
    morphing,
    target_generators,
)
