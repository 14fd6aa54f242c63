"""Importing this package registers its classes into mmpretrain."""

import mmdtm.prepare  # noqa: F401

from . import hooks, optimizers

__all__ = ['hooks', 'optimizers']
