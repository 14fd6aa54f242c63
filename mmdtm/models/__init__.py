"""Importing this package registers its classes into mmpretrain."""

from . import (  # noqa: F401
    backbones,
    data_preprocessor,
    heads,
    losses,
    morphing,
    selfsup,
    target_generators,
)
