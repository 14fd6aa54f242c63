"""Files: atomic writes, checkpoints and weights, converters.

This file imports the atomic writes alone, which need no torch.
"""

from .atomic import atomic_write, remove_leftovers, write_text

__all__ = ['atomic_write', 'remove_leftovers', 'write_text']
