"""Importing this package registers its classes into mmpretrain."""

import mmdtm.prepare  # noqa: F401

from . import hooks, loops, optimizers, sharded_runner

__all__ = ['hooks', 'loops', 'optimizers', 'sharded_runner']
