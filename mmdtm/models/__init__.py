"""Importing this package registers its classes into mmpretrain."""

from mmdtm import compat

compat.apply()

from . import (  # noqa: E402, F401
    backbones,
    data_preprocessor,
    heads,
    morphings,
    selfsup,
    target_generators,
)
