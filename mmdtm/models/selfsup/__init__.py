"""Self-supervised algorithms."""

from .beitv2 import BEiTv2DTM
from .branch import DTMBranch, MaskedInput, first_view, require_mask
from .byol import BYOLDTM
from .distillation import DTMDistillation
from .dtm import DTM
from .mae import MAEDTM
from .multi_teacher import MultiTeacherDTM
from .pretrained import PretrainedBackbone
from .vqkd import VQKDGenerator

__all__ = [
    'BEiTv2DTM',
    'BYOLDTM',
    'DTM',
    'DTMBranch',
    'DTMDistillation',
    'MAEDTM',
    'MaskedInput',
    'MultiTeacherDTM',
    'PretrainedBackbone',
    'VQKDGenerator',
    'first_view',
    'require_mask',
]
