"""Density-peaks clusters as morphed tokens."""

from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.morphing import Draw, TokenAssignment, dpc_knn
from mmdtm.morphing.schedule import check_range

from .base import BaseMorphing


@MODELS.register_module()
class DPCKNNMorphing(BaseMorphing):
    """Morphing by density-peaks clustering, with a random number of clusters.

    Args:
        levels: L.
        num_clusters: N_m, an int, or an inclusive range to draw it from in
            each step and level, where a highest of None is N.
        num_neighbors: of the density estimate.
        seed: see `BaseMorphing`.
        share_across_ranks: see `BaseMorphing`.
    """

    def __init__(
        self,
        levels: int = 2,
        num_clusters: int | tuple[int, int | None] = (1, None),
        num_neighbors: int = 5,
        seed: int | None = None,
        share_across_ranks: bool = False,
    ) -> None:
        super().__init__(levels, seed, share_across_ranks)
        check_range(num_clusters, 1, None, 'num_clusters')
        self.num_clusters = num_clusters
        self.num_neighbors = num_neighbors

    def assign(self, tokens: Tensor, draw: Draw) -> TokenAssignment:
        """Group the tokens (B, N, D) of one level."""
        lowest, highest = check_range(
            self.num_clusters, 1, tokens.shape[1], 'num_clusters'
        )
        num_clusters = draw.uniform_int(lowest, highest, 'num_clusters')
        return dpc_knn(tokens, num_clusters, self.num_neighbors, check_finite=False)
