"""How many tokens merge in which iteration, and the dynamic part of DTM."""

from collections.abc import Sequence

from .checks import check_count, check_option, check_range
from .draw import Draw

OVERFLOWS = ('carry', 'drop')
ROUNDINGS = ('exact', 'ceil', 'floor')


def merge_schedule(
    num_tokens: int, num_morphed: int, num_iters: int
) -> tuple[int, ...]:
    """Split the N - N_m merges over k iterations (Eq. 1).

    r_j = floor((N - N_m) / k) for j < k, and the last takes the rest. (The
    last term as printed breaks the condition sum_j r_j = N - N_m that the
    paper states with it; the condition is kept.)

    Args:
        num_tokens: N, at least 1.
        num_morphed: N_m, in [1, N].
        num_iters: k, at least 1.

    Returns:
        k ints r_1..r_k that sum to N - N_m.

    Raises:
        ValueError: if a number is out of its range.
    """
    check_count(num_tokens, 1, None, 'num_tokens')
    check_count(num_morphed, 1, num_tokens, 'num_morphed')
    check_count(num_iters, 1, None, 'num_iters')
    total = num_tokens - num_morphed
    each = total // num_iters
    return (each,) * (num_iters - 1) + (total - each * (num_iters - 1),)


def effective_schedule(
    num_tokens: int, schedule: Sequence[int], overflow: str = 'carry'
) -> tuple[int, ...]:
    """Say what bipartite matching really merges for a schedule.

    Of t tokens one iteration can merge at most floor(t / 2). Carrying what is
    over helps where a later iteration asks for less than an earlier one, as
    (N - 1, 0, ..., 0) does; the schedules of `merge_schedule` and
    `DynamicSchedule` never fall, and for them 'carry' and 'drop' are alike.

    Args:
        num_tokens: N, at least 1.
        schedule: merges asked of each iteration, none negative.
        overflow: what becomes of an iteration's excess: 'carry' adds it to
            the next one, 'drop' forgets it (as the authors' release does).

    Returns:
        The merges of each iteration. N minus their sum is the number of
        morphed tokens that come out.

    Raises:
        ValueError: if an entry is not an int >= 0, or ``overflow`` is unknown.
    """
    check_count(num_tokens, 1, None, 'num_tokens')
    check_option(overflow, OVERFLOWS, 'overflow')
    if not isinstance(schedule, Sequence) or isinstance(schedule, str):
        raise ValueError(
            'schedule must be a sequence of ints, the merges of each iteration, '
            f'got {schedule!r}'
        )
    merges, left, excess = [], num_tokens, 0
    for j, asked in enumerate(schedule):
        check_count(asked, 0, None, f'schedule[{j}]')
        wanted = asked + excess
        merged = min(wanted, left // 2)
        excess = wanted - merged if overflow == 'carry' else 0
        left -= merged
        merges.append(merged)
    return tuple(merges)


class DynamicSchedule:
    """Draws N_m and k at random and splits the merges (section 4.2, Eq. 1).

    Args:
        num_tokens: N, at least 1.
        num_morphed: inclusive range of N_m, or one int to fix it. None, and
            a highest of None, reach up to N.
        num_iters: inclusive range of k, or one int to fix it.
        rounding: 'exact' draws schedules that sum to N - N_m. With 'ceil' and
            'floor' every iteration asks for the rounded (N - N_m) / k; N_m may
            then be 0, which asks for all N. The authors' release is 'ceil', and
            so rounds down where rounding up would ask for more than N in all.

    Raises:
        ValueError: if a range is empty or leaves [1, N] (N_m) or [1, inf) (k).
    """

    def __init__(
        self,
        num_tokens: int,
        num_morphed: int | tuple[int, int | None] | None = None,
        num_iters: int | tuple[int, int] = (1, 14),
        rounding: str = 'exact',
    ) -> None:
        check_option(rounding, ROUNDINGS, 'rounding')
        check_count(num_tokens, 1, None, 'num_tokens')
        lowest = 1 if rounding == 'exact' else 0
        self.num_tokens = num_tokens
        self.num_morphed = check_range(num_morphed, lowest, num_tokens, 'num_morphed')
        self.num_iters = check_range(num_iters, 1, None, 'num_iters')
        self.rounding = rounding

    def draw(
        self, seed: int, step: int, level: int = 0, rank: int = 0
    ) -> tuple[int, ...]:
        """Draw a schedule: a pure function of the four numbers.

        Returns:
            The merges asked of each iteration, for `bipartite_matching`.
            `effective_schedule` says which of them will really happen.
        """
        draw = Draw(seed, step, level, rank)
        num_morphed = draw.uniform_int(*self.num_morphed, 'num_morphed')
        num_iters = draw.uniform_int(*self.num_iters, 'num_iters')
        if self.rounding == 'exact':
            return merge_schedule(self.num_tokens, num_morphed, num_iters)
        total = self.num_tokens - num_morphed
        each = total // num_iters
        rounded_up = -(-total // num_iters)
        if self.rounding == 'ceil' and rounded_up * num_iters <= self.num_tokens:
            each = rounded_up
        return (each,) * num_iters
