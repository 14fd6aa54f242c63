"""Importing this package registers its classes into mmpretrain."""

from mmdtm import compat

compat.apply()  # mmdtm.engine.launch is imported before any config is read

from . import hooks, optimizers  # noqa: E402

__all__ = ['hooks', 'optimizers']
