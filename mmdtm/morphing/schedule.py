"""How many tokens merge in which iteration, and the dynamic part of DTM."""

from collections.abc import Sequence
from itertools import pairwise

from .checks import check_count, check_range
from .draw import Draw


def merge_schedule(
    num_tokens: int, num_morphed: int, num_iters: int, reach_num_morphed: bool = False
) -> tuple[int, ...]:
    """Split the N - N_m merges over k iterations (Eq. 1).

    r_j = floor((N - N_m) / k) for j < k, and the last takes the rest. (The
    last term as printed breaks the condition sum_j r_j = N - N_m that the
    paper states with it; the condition is kept.)

    Of t tokens one iteration of bipartite matching merges at most floor(t / 2),
    and the last ones of Eq. (1) may ask for more; see ``effective_schedule``.
    With ``reach_num_morphed`` what is too much for an iteration goes to the one
    before it. No iteration then asks for too much, and N_m tokens are left
    wherever k iterations can leave so few, which is where N <= 2^k N_m; else
    ceil(N / 2^k), the fewest they can leave.

    Args:
        num_tokens: N, at least 1.
        num_morphed: N_m, in [1, N].
        num_iters: k, at least 1.
        reach_num_morphed: Whether to depart from Eq. (1) to reach N_m.

    Returns:
        k ints r_1..r_k, that sum to N - N_m but for the exception above.

    Raises:
        ValueError: If a number is out of its range.
    """
    check_count(num_tokens, 1, None, 'num_tokens')
    check_count(num_morphed, 1, num_tokens, 'num_morphed')
    check_count(num_iters, 1, None, 'num_iters')
    each = (num_tokens - num_morphed) // num_iters
    counts = [num_tokens - j * each for j in range(num_iters)] + [num_morphed]
    if reach_num_morphed:
        counts[-1] = max(num_morphed, -(-num_tokens // 2**num_iters))
        # Halving at most, t tokens can only come from up to 2 t.
        for j in range(num_iters - 1, 0, -1):
            counts[j] = min(counts[j], 2 * counts[j + 1])
    return tuple(before - after for before, after in pairwise(counts))


def effective_schedule(
    num_tokens: int, schedule: Sequence[int], class_token: bool = False
) -> tuple[int, ...]:
    """Say what bipartite matching really merges for a schedule.

    Of t tokens one iteration can merge at most floor(t / 2). What a schedule
    asks beyond that is carried to the next iteration, and what is over after
    the last stays unmerged. Carrying helps where a schedule falls, as
    (N - 1, 0, ..., 0) does. One that never falls, as those of ``merge_schedule``
    without ``reach_num_morphed``, asks for too much in every iteration after
    the first that does: there is never room for what is carried.

    Args:
        num_tokens: N, at least 1.
        schedule: Merges asked of each iteration, none negative.
        class_token: Whether the first token never merges, so that an iteration
            can merge at most floor((t - 1) / 2).

    Returns:
        The merges of each iteration. N minus their sum is the number of
        morphed tokens that come out.

    Raises:
        ValueError: If an entry is not an int >= 0.
    """
    check_count(num_tokens, 1, None, 'num_tokens')
    if not isinstance(schedule, Sequence) or isinstance(schedule, str):
        raise ValueError(
            f'schedule is {schedule!r}. Give a sequence of ints, the merges of each '
            'iteration.'
        )
    merges, left, wanted = [], num_tokens, 0
    for j, asked in enumerate(schedule):
        check_count(asked, 0, None, f'schedule[{j}]')
        wanted += asked
        merged = min(wanted, (left - class_token) // 2)
        wanted -= merged
        left -= merged
        merges.append(merged)
    return tuple(merges)


class DynamicSchedule:
    """Draws N_m and k at random and splits the merges (section 4.2, Eq. 1).

    Args:
        num_tokens: N, at least 1.
        num_morphed: Inclusive range of N_m, or one int to fix it. None, and
            a highest of None, reach up to N.
        num_iters: Inclusive range of k, or one int to fix it.
        reach_num_morphed: Whether every schedule reaches the N_m that was drawn
            for it: k is then drawn from the part of its range that can, and the
            merges are split so that they do (see ``merge_schedule``). Without it
            few tokens are seldom left: by default at least 8 of 196.

    Raises:
        ValueError: If a range is empty or leaves [1, N] (N_m) or [1, inf) (k).
    """

    def __init__(
        self,
        num_tokens: int,
        num_morphed: int | tuple[int, int | None] | None = None,
        num_iters: int | tuple[int, int] = (1, 14),
        reach_num_morphed: bool = False,
    ) -> None:
        check_count(num_tokens, 1, None, 'num_tokens')
        self.num_tokens = num_tokens
        self.num_morphed = check_range(num_morphed, 1, num_tokens, 'num_morphed')
        self.num_iters = check_range(num_iters, 1, None, 'num_iters')
        self.reach_num_morphed = reach_num_morphed

    def iters_for(self, num_morphed: int) -> tuple[int, int]:
        """Range of k for a number of morphed tokens, inclusive."""
        fewest, most = self.num_iters
        if self.reach_num_morphed:
            # The least k with N <= 2^k N_m.
            needed = (-(-self.num_tokens // num_morphed) - 1).bit_length()
            fewest = min(max(fewest, needed), most)
        return fewest, most

    def draw(
        self,
        seed: int,
        step: int,
        level: int = 0,
        rank: int = 0,
        iters_rank: int | None = None,
    ) -> tuple[int, ...]:
        """Draw a schedule: a pure function of the numbers.

        Args:
            seed: see `Draw`.
            step: likewise.
            level: likewise.
            rank: likewise.
            iters_rank: whose k is taken; by default that of ``rank``.

        Returns:
            The merges asked of each iteration, for ``bipartite_matching``.
            ``effective_schedule`` says which of them will really happen.
        """
        draw = Draw(seed, step, level, rank)
        num_morphed = draw.uniform_int(*self.num_morphed, 'num_morphed')
        if iters_rank is not None:
            draw = draw._replace(rank=iters_rank)
        num_iters = draw.uniform_int(*self.iters_for(num_morphed), 'num_iters')
        return merge_schedule(
            self.num_tokens, num_morphed, num_iters, self.reach_num_morphed
        )
