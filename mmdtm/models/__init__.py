"""Importing this package registers its classes into mmpretrain."""
from . import backbones  # noqa: F401
