"""Importing this package registers its classes into mmpretrain."""

import mmdtm.prepare  # noqa: F401

from . import hooks, loops, optimizers

__all__ = ['hooks', 'loops', 'optimizers']
