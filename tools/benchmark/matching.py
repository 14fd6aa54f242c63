"""Time the ways of grouping tokens, side by side in one run.

    python tools/benchmark/matching.py --batch 128 --tokens 196 --channels 512

Bipartite matching on the Gram matrix, as mmdtm does it, against the same
matching on merged features, which multiplies the features anew in every
iteration; K-means and density peaks beside them; and merging tokens by labels,
forward and backward, against products with the dense (B, N_m, N) matrix. The
contenders take turns, so that a machine whose speed drifts slows all of them
alike. Before timing, both matchings must give the same groups in float64.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmdtm.io import write_text
from mmdtm.morphing import (
    TokenAssignment,
    bipartite_matching,
    dpc_knn,
    effective_schedule,
    kmeans,
    merge_schedule,
)


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--batch', type=int, default=64, help='images')
    parser.add_argument('--tokens', type=int, default=196, help='N, tokens per image')
    parser.add_argument('--channels', type=int, default=512, help='C of a token')
    parser.add_argument(
        '--num-morphed', type=int, help='N_m, groups per image (default: N / 2)'
    )
    parser.add_argument(
        '--num-iters', type=int, nargs='+', default=[1, 7, 14], help='values of k'
    )
    parser.add_argument(
        '--kmeans-iters', type=int, default=10, help="of Lloyd's algorithm"
    )
    parser.add_argument('--threads', type=int, help='CPU threads (default: all)')
    parser.add_argument('--repeats', type=int, default=20, help='timed rounds')
    parser.add_argument('--warmup', type=int, default=3, help='untimed rounds')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    parser.add_argument('--out', type=Path, help='write the values as JSON')
    args = parser.parse_args()
    args.num_morphed = args.num_morphed or max(1, args.tokens // 2)
    return args


@torch.no_grad()
def feature_matching(tokens: Tensor, schedule: Sequence[int]) -> TokenAssignment:
    """Bipartite matching that merges features and compares them anew each time.

    Args:
        tokens: (B, N, C).
        schedule: Merges asked of each iteration.

    Returns:
        What ``bipartite_matching`` gives.
    """
    batch_size, num_tokens, channels = tokens.shape
    labels = torch.arange(num_tokens, device=tokens.device).expand(batch_size, -1)
    images = torch.arange(batch_size, device=tokens.device).unsqueeze(1)
    sums = tokens  # a cosine does not tell a group's sum from its mean
    for merged in effective_schedule(num_tokens, schedule):
        if merged == 0:
            continue
        count = sums.shape[1]
        unit = F.normalize(sums, dim=2)
        best, partner = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(2)
        order = best.sort(dim=1, descending=True, stable=True).indices
        kept = order.shape[1] - merged
        # New positions: the unmerged by similarity, then the second set.
        place = torch.arange(-merged, kept, device=tokens.device)
        place = torch.where(place < 0, kept + partner.gather(1, order), place)
        moves = torch.empty(batch_size, count, dtype=torch.int64, device=tokens.device)
        moves[:, ::2] = torch.empty_like(order).scatter_(1, order, place)
        moves[:, 1::2] = torch.arange(kept, count - merged, device=tokens.device)
        labels = moves.gather(1, labels)
        rows = (images * (count - merged) + moves).flatten()
        merged_sums = sums.new_zeros(batch_size * (count - merged), channels)
        sums = merged_sums.index_add_(0, rows, sums.flatten(0, 1))
        sums = sums.view(batch_size, -1, channels)
    return TokenAssignment.trusted(labels, sums.shape[1])


def merge_by_labels(tokens: Tensor, assignment: TokenAssignment) -> None:
    """Group means and their gradient, as mmdtm computes them."""
    tokens = tokens.detach().requires_grad_()
    assignment.morph(tokens).sum().backward()


def merge_by_products(tokens: Tensor, assignment: TokenAssignment) -> None:
    """Group means and their gradient through products with the dense matrix."""
    tokens = tokens.detach().requires_grad_()
    matrix = assignment.matrix(tokens.dtype)
    matrix = matrix / matrix.sum(2, keepdim=True)
    (matrix @ tokens).sum().backward()


def median_times(
    contenders: dict[str, Callable], device: torch.device, warmup: int, repeats: int
) -> dict[str, float]:
    """Median seconds of each contender over rounds in which they take turns."""
    seconds = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, contender in contenders.items():
            wait_for(device)
            start = time.perf_counter()
            contender()
            wait_for(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def wait_for(device: torch.device) -> None:
    """Let the device finish what was asked of it."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def main() -> None:
    """Check, time and print."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    torch.manual_seed(0)
    tokens = torch.randn(args.batch, args.tokens, args.channels, device=device)
    schedules = {
        k: merge_schedule(args.tokens, args.num_morphed, k) for k in args.num_iters
    }

    pairs = []  # (what, ours, the other way, its name)
    contenders = {}
    for k, schedule in schedules.items():
        few = tokens[:8].double()
        ours = bipartite_matching(few, schedule)
        if not torch.equal(ours.labels, feature_matching(few, schedule).labels):
            raise SystemExit(f'k = {k}: the two matchings give different groups')
        gram, features = f'Gram matrix, k = {k}', f'merged features, k = {k}'
        contenders[gram] = lambda s=schedule: bipartite_matching(tokens, s)
        contenders[features] = lambda s=schedule: feature_matching(tokens, s)
        pairs.append((gram, features))
    groups = bipartite_matching(tokens, schedule)
    labels, products = 'means by labels', 'means by dense products'
    contenders[labels] = lambda: merge_by_labels(tokens, groups)
    contenders[products] = lambda: merge_by_products(tokens, groups)
    pairs.append((labels, products))
    clusters = f'K-means, {args.kmeans_iters} iterations'
    contenders[clusters] = lambda: kmeans(tokens, args.num_morphed, args.kmeans_iters)
    contenders['density peaks'] = lambda: dpc_knn(tokens, args.num_morphed)
    pairs += [(clusters, None), ('density peaks', None)]

    medians = median_times(contenders, device, args.warmup, args.repeats)
    report(args, pairs, medians)
    if args.out:
        values = dict(
            batch=args.batch,
            tokens=args.tokens,
            channels=args.channels,
            num_morphed=args.num_morphed,
            device=str(device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            median_seconds=medians,
        )
        write_text(args.out, json.dumps(values, indent=2) + '\n')


def report(
    args: argparse.Namespace,
    pairs: list[tuple[str, str | None]],
    medians: dict[str, float],
) -> None:
    """Print one line per contender; the other way's time is a ratio to ours."""
    table = Table(
        title=f'{args.batch} images of {args.tokens} x {args.channels}, '
        f'{args.num_morphed} groups, {args.device}, '
        f'{torch.get_num_threads()} threads, median of {args.repeats}'
    )
    table.add_column('way')
    table.add_column('ms', justify='right')
    table.add_column('images/s', justify='right')
    table.add_column('times as long', justify='right')
    for ours, other in pairs:
        for name in filter(None, (ours, other)):
            ratio = '' if name == ours else f'{medians[name] / medians[ours]:.2f}'
            rate = args.batch / medians[name]
            table.add_row(name, f'{medians[name] * 1e3:.2f}', f'{rate:,.0f}', ratio)
        table.add_section()
    Console().print(table)


if __name__ == '__main__':
    main()
