"""Importing this package registers its classes into mmpretrain."""

import mmdtm.prepare  # noqa: F401

from . import (  # noqa: F401
    backbones,
    data_preprocessor,
    heads,
    morphings,
    selfsup,
    target_generators,
)
