"""Backbones: BEiT-v2-style Vision Transformers, and others as students."""

from .dtm_vit import DTMPretrainViT, DTMViT
from .masked import (
    MaskedBEiTViT,
    MaskedConvNeXt,
    MaskedSwinTransformer,
    MaskedSwinTransformerV2,
    MaskedVisionTransformer,
    MaskedViTEVA02,
    MaskToken,
)
from .student import Student, check_student
from .timm_vit import MaskedTimmViT, TimmViT

__all__ = [
    'DTMPretrainViT',
    'DTMViT',
    'MaskToken',
    'MaskedBEiTViT',
    'MaskedConvNeXt',
    'MaskedSwinTransformer',
    'MaskedSwinTransformerV2',
    'MaskedTimmViT',
    'MaskedViTEVA02',
    'MaskedVisionTransformer',
    'Student',
    'TimmViT',
    'check_student',
]
