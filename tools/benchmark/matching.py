"""Time the ways of grouping tokens, side by side in one run.

    python tools/benchmark/matching.py --batch 128 --tokens 196 --channels 512

Bipartite matching on the Gram matrix, as mmdtm does it, against the same matching on
merged features, which multiplies them anew in every iteration and keeps a dense
(B, N_m, N) source matrix; K-means and density peaks beside them; and merging tokens by
labels, forward and backward, against products with that matrix. Before timing, both
matchings must give the same groups in float64.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from contenders import benchmark_parser, print_table, take_turns, write_rows
from release_style import match_features, source_means
from torch import Tensor

from mmdtm.morphing import (
    TokenAssignment,
    bipartite_matching,
    dpc_knn,
    kmeans,
    merge_schedule,
)


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add('--batch', type=int, default=64, help='images')
    add('--tokens', type=int, default=196, help='N, tokens per image')
    add('--channels', type=int, default=512, help='C of a token')
    add('--num-morphed', type=int, help='N_m, groups per image (default: N / 2)')
    add('--num-iters', type=int, nargs='+', default=[1, 7, 14], help='values of k')
    add('--kmeans-iters', type=int, default=10, help="of Lloyd's algorithm")
    add('--threads', type=int, help='CPU threads (default: all)')
    add('--repeats', type=int, default=20, help='timed rounds')
    add('--warmup', type=int, default=3, help='untimed rounds')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    args.num_morphed = args.num_morphed or max(1, args.tokens // 2)
    return args


def merge_by_labels(tokens: Tensor, assignment: TokenAssignment) -> None:
    """Group means and their gradient, as mmdtm computes them."""
    assignment.morph(tokens.detach().requires_grad_()).sum().backward()


def merge_by_products(tokens: Tensor, source: Tensor) -> None:
    """Group means and their gradient through products with the dense matrix."""
    source_means(source, tokens.detach().requires_grad_())[0].sum().backward()


def main() -> None:
    """Check, time and print."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    torch.manual_seed(0)
    tokens = torch.randn(args.batch, args.tokens, args.channels, device=device)

    pairs = []  # (our way, the other way or None)
    contenders: dict[str, Callable] = {}
    for k in args.num_iters:
        schedule = merge_schedule(args.tokens, args.num_morphed, k)
        few = tokens[:8].double()
        ours = bipartite_matching(few, schedule)
        if not torch.equal(ours.labels, match_features(few, schedule).argmax(1)):
            raise SystemExit(
                f'k = {k}: the two matchings give different groups. Mend one before '
                'their times are compared.'
            )
        gram, features = f'Gram matrix, k = {k}', f'merged features, k = {k}'
        contenders[gram] = lambda s=schedule: bipartite_matching(tokens, s)
        contenders[features] = lambda s=schedule: match_features(tokens, s)
        pairs.append((gram, features))
    groups = bipartite_matching(tokens, schedule)
    source = groups.matrix(tokens.dtype)
    labels, products = 'means by labels', 'means by dense products'
    contenders[labels] = lambda: merge_by_labels(tokens, groups)
    contenders[products] = lambda: merge_by_products(tokens, source)
    pairs.append((labels, products))
    clusters = f'K-means, {args.kmeans_iters} iterations'
    contenders[clusters] = lambda: kmeans(tokens, args.num_morphed, args.kmeans_iters)
    contenders['density peaks'] = lambda: dpc_knn(tokens, args.num_morphed)
    pairs += [(clusters, None), ('density peaks', None)]

    take_turns(contenders, device, args.warmup)
    seconds = take_turns(contenders, device, args.repeats)
    rows = []
    for pair in pairs:
        first = statistics.median(seconds[pair[0]])
        for name in filter(None, pair):
            median = statistics.median(seconds[name])
            row = dict(name=name, milliseconds=1e3 * median)
            row |= dict(images_per_second=args.batch / median, ratio=median / first)
            rows.append(row)
    print_table(
        f'{args.batch} images of {args.tokens} x {args.channels}, '
        f'{args.num_morphed} groups, {args.device}, '
        f'{torch.get_num_threads()} threads, median of {args.repeats}',
        ['way', 'ms', 'images / s', 'times as long'],
        [list(row.values()) for row in rows],
    )
    sizes = dict(batch=args.batch, tokens=args.tokens, channels=args.channels)
    sizes |= dict(num_morphed=args.num_morphed, device=str(device))
    write_rows(args.out, 'matching', rows, **sizes)


if __name__ == '__main__':
    main()
