"""Morphings: how the target tokens are grouped; importing registers them."""

from .base import BaseMorphing
from .bipartite import BipartiteMorphing
from .downsample import DownsampleMorphing
from .dpc_knn import DPCKNNMorphing
from .identity import IdentityMorphing
from .kmeans import KMeansMorphing

__all__ = [
    'BaseMorphing',
    'BipartiteMorphing',
    'DPCKNNMorphing',
    'DownsampleMorphing',
    'IdentityMorphing',
    'KMeansMorphing',
]
