"""Losses; importing this package registers them into mmpretrain."""

from .dtm_loss import DTMLoss

__all__ = ['DTMLoss']
