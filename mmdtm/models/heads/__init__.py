"""Heads: from tokens to a loss."""

from .dtm_head import DTMHead

__all__ = ['DTMHead']
