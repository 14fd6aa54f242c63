"""Backbones: BEiT-v2-style Vision Transformers."""

from .dtm_vit import DTMPretrainViT, DTMViT

__all__ = ['DTMPretrainViT', 'DTMViT']
