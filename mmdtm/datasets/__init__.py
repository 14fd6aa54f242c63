"""Data sets and transforms; importing this registers them into mmpretrain."""

from . import transforms

__all__ = ['transforms']
