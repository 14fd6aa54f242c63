"""Transforms of the data pipeline."""

from .block_mask import BlockMaskGenerator

__all__ = ['BlockMaskGenerator']
