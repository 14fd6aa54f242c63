"""Dynamic Token Morphing on plain torch tensors.

Groups tokens (``bipartite_matching``, ``kmeans``, ``dpc_knn``, ``downsample``), draws
how many merge (``DynamicSchedule``) and compares morphed tokens (``dtm_loss``).
Needs torch alone, so any framework can use it. Equations, sections and tables
are those of arXiv 2401.00254.
"""

from .assignment import TokenAssignment
from .bipartite import bipartite_matching
from .dpc_knn import dpc_knn
from .draw import Draw
from .kmeans import kmeans
from .loss import dtm_loss
from .pooling import downsample
from .schedule import DynamicSchedule, effective_schedule, merge_schedule

__all__ = [
    'Draw',
    'DynamicSchedule',
    'TokenAssignment',
    'bipartite_matching',
    'dpc_knn',
    'downsample',
    'dtm_loss',
    'effective_schedule',
    'kmeans',
    'merge_schedule',
]
