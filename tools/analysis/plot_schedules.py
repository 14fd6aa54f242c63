"""Show which numbers of morphed tokens the drawn schedules reach.

    python tools/analysis/plot_schedules.py --out work_dirs/schedules.png

Every N_m of 1 to N and every k of the range is counted, none is drawn. An
iteration of bipartite matching merges at most half of the tokens, so that
Eq. (1) often leaves more of them than were asked for; with
``reach_num_morphed=True`` none of the draws does. One panel gives how often
each N_m comes out, the other the fewest tokens that k iterations leave.
"""

import argparse
from collections import Counter
from fractions import Fraction
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

from mmdtm.morphing import DynamicSchedule, effective_schedule  # noqa: E402
from mmdtm.visualization import LINE_COLORS  # noqa: E402

NAMES = {False: 'Eq. (1)', True: 'reach_num_morphed=True'}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tokens', type=int, default=196, help='N')
    parser.add_argument(
        '--num-iters', type=int, nargs=2, default=[1, 14], help='lowest and highest k'
    )
    parser.add_argument('--out', type=Path, default='schedules.png')
    return parser.parse_args(argv)


def outcomes(
    num_tokens: int, num_iters: tuple[int, int], reach: bool
) -> list[tuple[int, int, int, Fraction]]:
    """Every draw: N_m drawn, k, N_m that comes out, and the draw's probability."""
    draws = []
    for drawn in range(1, num_tokens + 1):
        span = DynamicSchedule(num_tokens, drawn, num_iters, reach).iters_for(drawn)
        for k in range(span[0], span[1] + 1):
            schedule = DynamicSchedule(num_tokens, drawn, k, reach).draw(0, 0)
            left = num_tokens - sum(effective_schedule(num_tokens, schedule))
            share = Fraction(1, num_tokens * (span[1] - span[0] + 1))
            draws.append((drawn, k, left, share))
    return draws


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure, (often, fewest) = plt.subplots(1, 2, figsize=(10, 3.6), layout='tight')
    for color, (reach, name) in zip(LINE_COLORS, NAMES.items(), strict=False):
        draws = outcomes(args.tokens, tuple(args.num_iters), reach)
        shares: Counter = Counter()
        least: dict[int, int] = {}
        for _, k, left, share in draws:
            shares[left] += share
            least[k] = min(left, least.get(k, left))
        missed = sum(share for drawn, _, left, share in draws if left != drawn)
        mean = sum(left * share for left, share in shares.items())
        print(
            f'{name}: fewest {min(shares)} of {args.tokens} tokens, mean '
            f'{float(mean):.1f}, {float(missed):.2%} of the draws miss their N_m'
        )
        counts = range(1, args.tokens + 1)
        percent = [100 * float(shares[n]) for n in counts]
        often.step(counts, percent, where='mid', color=color, label=name)
        fewest.plot(sorted(least), [least[k] for k in sorted(least)], 'o-', color=color)
    often.set(xlabel='$N_m$ that comes out', ylabel='share of the draws (%)', ylim=0)
    often.legend(frameon=False)
    fewest.set(xlabel='iterations $k$', ylabel='fewest tokens left')
    fewest.set_yscale('log', base=2)
    fewest.yaxis.set_major_formatter('{x:.0f}')
    figure.savefig(args.out, dpi=110)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
