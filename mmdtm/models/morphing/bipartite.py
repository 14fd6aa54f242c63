"""Iterated bipartite soft matching with a random schedule: DTM's morphing."""

from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.morphing import Draw, DynamicSchedule, TokenAssignment, bipartite_matching
from mmdtm.morphing.bipartite import PARTITIONS
from mmdtm.morphing.checks import check_option
from mmdtm.morphing.schedule import OVERFLOWS, ROUNDINGS, check_num_iters, check_range

from .base import BaseMorphing


@MODELS.register_module()
class BipartiteMorphing(BaseMorphing):
    """Dynamic token morphing by bipartite matching (section 4.2).

    Each level draws a number of morphed tokens N_m and of iterations k for
    the whole batch, and matches the tokens accordingly.

    Args:
        levels: L.
        num_morphed: inclusive range of N_m; a highest of None is N, and None
            alone (1, N). An int fixes it (table 8: 98 of 196).
        num_iters: inclusive range of k, or an int to fix it.
        partition: 'alternate' or 'random', see
            `mmdtm.morphing.bipartite_matching`.
        rounding: 'exact', or 'ceil' or 'floor' as the authors' release, see
            `mmdtm.morphing.DynamicSchedule`.
        overflow: 'carry', or 'drop' as the authors' release, see
            `mmdtm.morphing.effective_schedule`.
        seed: see `BaseMorphing`.
        share_across_ranks: see `BaseMorphing`.

    Raises:
        ValueError: if an option is unknown or a range wrong; at the first
            forward pass, if N_m's range does not fit the number of tokens.
    """

    def __init__(
        self,
        levels: int = 2,
        num_morphed: int | tuple[int, int | None] | None = (1, None),
        num_iters: int | tuple[int, int] = (1, 14),
        partition: str = 'alternate',
        rounding: str = 'exact',
        overflow: str = 'carry',
        seed: int | None = None,
        share_across_ranks: bool = False,
    ) -> None:
        super().__init__(levels, seed, share_across_ranks)
        check_option(partition, PARTITIONS, 'partition')
        check_option(rounding, ROUNDINGS, 'rounding')
        check_option(overflow, OVERFLOWS, 'overflow')
        check_range(num_morphed, 1 if rounding == 'exact' else 0, None, 'num_morphed')
        check_num_iters(num_iters)
        self.num_morphed = num_morphed
        self.num_iters = num_iters
        self.partition = partition
        self.rounding = rounding
        self.overflow = overflow

    def assign(self, tokens: Tensor, draw: Draw) -> TokenAssignment:
        """See `BaseMorphing.assign`."""
        schedule = DynamicSchedule(
            tokens.shape[1], self.num_morphed, self.num_iters, self.rounding
        )
        return bipartite_matching(
            tokens,
            schedule.draw(*draw),
            self.partition,
            generator=draw.generator('partition'),
            overflow=self.overflow,
            check_finite=False,
        )
