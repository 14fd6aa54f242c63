"""Iterated bipartite soft matching on the Gram matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .assignment import TokenAssignment
from .checks import check_finite as require_finite
from .checks import check_option, check_tokens, working_dtype
from .schedule import effective_schedule

PARTITIONS = ('alternate', 'random')


@torch.no_grad()
def bipartite_matching(
    tokens: Tensor,
    schedule: Sequence[int],
    partition: str = 'alternate',
    generator: torch.Generator | None = None,
    overflow: str = 'carry',
    check_finite: bool = True,
) -> TokenAssignment:
    """Group tokens by iterated bipartite soft matching (section 4.2).

    Each iteration splits the current t tokens into two sets. Each token of
    the first finds its most similar token of the second, by cosine
    similarity, and the r_j most similar pairs merge. A merged token is the
    mean of all the original tokens in it. The tokens are then ordered: what
    did not merge of the first set, by descending best similarity; then the
    second set in its order. An iteration that merges nothing changes nothing.

    Merged tokens being sums of original tokens up to a factor, each similarity
    follows from the Gram matrix G = V V^T of the original tokens: merging adds
    rows and columns of G. So the tokens are multiplied once, and an iteration
    costs O(N^2) whatever C is.

    Equal similarities are settled by position: the earlier token of the second
    set is chosen, the earlier token of the first set merges first. A zero token
    has similarity 0 to all. Similarities are computed in float32 (float64 for
    float64 tokens), whatever autocast says.

    Args:
        tokens: floating point (B, N, C), the target tokens v.
        schedule: merges asked of each iteration; see `merge_schedule`.
        partition: 'alternate' splits into even and odd positions, 'random'
            into random halves, the same for all images of the batch. The
            first set has the odd token, if any.
        generator: source of the random halves; torch's default one if None.
        overflow: what an iteration cannot merge (it merges at most floor(t/2))
            goes to the next one for 'carry' and is forgotten for 'drop'. See
            `effective_schedule` for what then happens; what is left after
            the last iteration stays unmerged.
        check_finite: whether to raise on NaN and infinity, which waits for the
            device. Never checked while torch.compile traces. Without the
            check, an image that is not finite gets some valid grouping.

    Returns:
        The groups, numbered in the order after the last iteration, with
        N_m = N - sum(effective_schedule(N, schedule, overflow)).

    Raises:
        ValueError: if the tokens' shape, dtype or values, the schedule or an
            option is wrong.
    """
    check_tokens(tokens)
    check_option(partition, PARTITIONS, 'partition')
    merges = effective_schedule(tokens.shape[1], schedule, overflow)
    if check_finite:
        require_finite(tokens)
    batch_size, num_tokens, _ = tokens.shape
    assignment = TokenAssignment.identity(batch_size, num_tokens, tokens.device)
    if not any(merges):
        return assignment
    labels = assignment.labels
    gram = _gram(tokens)
    for merged in merges:
        if merged == 0:
            continue
        count = gram.shape[1]
        first, second = _split(count, partition, generator, tokens.device)
        moves = _match(gram, first, second, merged)
        labels = moves.gather(1, labels)
        gram = _merge(gram, moves, count - merged)
    return TokenAssignment.trusted(labels, gram.shape[1])


def _gram(tokens: Tensor) -> Tensor:
    """V V^T, (B, N, N), of tokens scaled so that no square overflows."""
    with torch.autocast(tokens.device.type, enabled=False):
        v = tokens.to(working_dtype(tokens.dtype))
        # One factor per image leaves all cosines, of merged tokens too, as
        # they are.
        largest = v.abs().amax((1, 2), keepdim=True)
        v = v / largest.clamp(min=torch.finfo(v.dtype).tiny)
        return v @ v.transpose(1, 2)


def _split(
    count: int, partition: str, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positions of the two sets, ceil(count / 2) and floor(count / 2) of them."""
    if partition == 'alternate':
        positions = torch.arange(count, device=device)
        return positions[::2], positions[1::2]
    # A generator draws on its own device: one on the CPU gives the same halves
    # whatever device the tokens are on.
    source = device if generator is None else generator.device
    positions = torch.randperm(count, generator=generator, device=source).to(device)
    half = (count + 1) // 2
    return positions[:half].sort().values, positions[half:].sort().values


def _match(gram: Tensor, first: Tensor, second: Tensor, merged: int) -> Tensor:
    """Merge the best pairs; return each token's new position, int64 (B, t)."""
    squares = gram.diagonal(dim1=1, dim2=2)
    inverse = torch.where(squares > 0, squares, torch.inf).rsqrt()
    pairs = gram.index_select(1, first).index_select(2, second)
    pairs = pairs * inverse[:, first].unsqueeze(2) * inverse[:, second].unsqueeze(1)
    best, partner = pairs.max(2)
    order = best.sort(dim=1, descending=True, stable=True).indices
    sources, stay = order[:, :merged], order[:, merged:]
    kept = stay.shape[1]
    to_first = torch.empty_like(order)
    to_first.scatter_(1, sources, kept + partner.gather(1, sources))
    ranks = torch.arange(kept, device=gram.device).expand_as(stay)
    to_first.scatter_(1, stay, ranks)
    moves = torch.empty(gram.shape[:2], dtype=torch.int64, device=gram.device)
    moves[:, first] = to_first
    moves[:, second] = kept + torch.arange(len(second), device=gram.device)
    return moves


def _merge(gram: Tensor, moves: Tensor, count: int) -> Tensor:
    """Add the rows and columns of tokens that move to the same position."""
    batch_size, old = moves.shape
    rows = torch.arange(batch_size, device=gram.device).unsqueeze(1) * count + moves
    rows = rows.flatten()

    def add_rows(square: Tensor) -> Tensor:
        out = square.new_zeros(batch_size * count, square.shape[2])
        out = out.index_add_(0, rows, square.flatten(0, 1))
        return out.view(batch_size, count, -1)

    # The Gram matrix is symmetric: its columns are the rows of its transpose.
    return add_rows(add_rows(gram).transpose(1, 2).contiguous())
