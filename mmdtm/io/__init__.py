"""Files: atomic writes, checkpoints and weights, converters.

This file imports the atomic writes and JSON alone, which need no torch.
"""

from .atomic import atomic_write, remove_leftovers, write_text
from .text import parse_json, read_json

__all__ = [
    'atomic_write',
    'parse_json',
    'read_json',
    'remove_leftovers',
    'write_text',
]
