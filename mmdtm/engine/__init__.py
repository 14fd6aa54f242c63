"""Importing this package registers its classes into mmpretrain."""
from . import optimizers  # noqa: F401
