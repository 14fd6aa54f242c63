"""Importing this module makes OpenMMLab's libraries ready for mmdtm.

Every package that uses them imports it first, once for all: breaks of the
dependencies are mended, checkpoints are read as weights only, and what the
libraries print at every import is dropped.
"""

import functools
import warnings

import mmengine.logging

from mmdtm import compat
from mmdtm.io.checkpoints import guard_mmengine


def silence_imports() -> None:
    """Drop two messages that every import of the libraries repeats.

    mmcv warns that it has no deformable attention, and the forks print that
    they found no OneDL: ``print_log`` without a logger prints whatever its
    level. Nothing here uses either.
    """
    warnings.filterwarnings(
        'ignore', 'Fail to import ``MultiScaleDeformableAttention``', UserWarning
    )
    original = mmengine.logging.print_log

    @functools.wraps(original)
    def print_log(msg, logger=None, level=20):  # 20 is logging.INFO
        if logger is not None or level >= 20:
            original(msg, logger, level)

    mmengine.logging.print_log = print_log


silence_imports()
compat.apply()
guard_mmengine()
