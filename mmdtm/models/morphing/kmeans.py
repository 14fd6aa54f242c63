"""K-means clusters as morphed tokens."""

from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.morphing import Draw, TokenAssignment, kmeans
from mmdtm.morphing.checks import check_count
from mmdtm.morphing.schedule import check_range

from .base import BaseMorphing


@MODELS.register_module()
class KMeansMorphing(BaseMorphing):
    """Morphing by K-means on normalised tokens (table 11).

    Args:
        levels: L.
        num_clusters: N_m, an int, or an inclusive range to draw it from in
            each step and level, where a highest of None is N.
        num_iters: of Lloyd's algorithm.
        seed: see `BaseMorphing`.
        share_across_ranks: see `BaseMorphing`.

    Raises:
        ValueError: if a number is out of range; at the first forward pass, if
            there are fewer tokens than clusters.
    """

    def __init__(
        self,
        levels: int = 2,
        num_clusters: int | tuple[int, int | None] = (1, None),
        num_iters: int = 10,
        seed: int | None = None,
        share_across_ranks: bool = False,
    ) -> None:
        super().__init__(levels, seed, share_across_ranks)
        check_range(num_clusters, 1, None, 'num_clusters')
        check_count(num_iters, 1, None, 'num_iters')
        self.num_clusters = num_clusters
        self.num_iters = num_iters

    def assign(self, tokens: Tensor, draw: Draw) -> TokenAssignment:
        """See `BaseMorphing.assign`."""
        span = check_range(self.num_clusters, 1, tokens.shape[1], 'num_clusters')
        return kmeans(
            tokens,
            draw.uniform_int(*span, 'num_clusters'),
            self.num_iters,
            generator=draw.generator('centres'),
            check_finite=False,
        )
