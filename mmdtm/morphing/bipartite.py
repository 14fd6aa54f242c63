"""Iterated bipartite soft matching on the Gram matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .assignment import TokenAssignment
from .checks import check_option, check_tokens
from .draw import without_waiting
from .gram import gram_matrix, inverse_norms
from .groups import Groups
from .schedule import effective_schedule


@torch.no_grad()
def bipartite_matching(
    tokens: Tensor,
    schedule: Sequence[int],
    partition: str = 'alternate',
    generator: torch.Generator | None = None,
    class_token: bool = False,
    check_finite: bool = True,
    gram: Tensor | None = None,
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
    costs O(N^2) whatever C is. Tokens whose squares overflow float32 need
    float64.

    Similarities equal to the last bit are settled by position: the earlier
    token of the second set is chosen, the earlier token of the first set
    merges first. A zero token has similarity 0 to all. Similarities are
    computed in float32 (float64 for float64 tokens), whatever autocast says.

    Args:
        tokens: Floating point (B, N, C), the target tokens v.
        schedule: Merges asked of each iteration; see ``merge_schedule``.
        partition: 'alternate' splits into even and odd positions, 'random'
            into random halves, the same for all images of the batch. The
            first set has the odd token, if any.
        generator: Source of the random halves; torch's default one if None
            (the one that torch.compile can trace).
        class_token: Whether the first token is one apart, as Token Merging
            (ToMe, arXiv 2210.09461) has it: it never merges, and what else did
            not merge of the first set stays in order behind it. Needs
            'alternate'.
        check_finite: Whether to raise on NaN and infinity, which waits for the
            device. Never checked while torch.compile traces. Without the
            check, an image that is not finite gets some valid grouping.
        gram: what `mmdtm.morphing.gram.gram_matrix` makes of the tokens, where
            they are grouped more than once; then they are not checked here.

    Returns:
        The groups, numbered in the order after the last iteration, with
        N_m = N - sum(effective_schedule(N, schedule, class_token)): what an
        iteration cannot merge goes to the next, and is left after the last.

    Raises:
        ValueError: If the tokens' shape, dtype or values, the schedule or an
            option is wrong.
    """
    check_tokens(tokens)
    check_option(partition, ('alternate', 'random'), 'partition')
    if class_token and partition != 'alternate':
        raise ValueError(
            f'class_token=True is for the first position, got partition={partition!r}. '
            "Use 'alternate'."
        )
    batch_size, num_tokens, _ = tokens.shape
    merges = [r for r in effective_schedule(num_tokens, schedule, class_token) if r]
    if gram is None:
        gram = gram_matrix(tokens, check_finite)
    labels = TokenAssignment.identity(batch_size, num_tokens, tokens.device).labels
    positions = torch.arange(num_tokens, device=tokens.device)
    count = num_tokens
    for iteration, merged in enumerate(merges, start=1):
        first, second = _split(count, partition, generator, tokens.device)
        moves = _match(gram, first, second, merged, class_token, positions)
        labels = moves.gather(1, labels)
        count -= merged
        if iteration < len(merges):
            # Merging adds rows, and the same columns: the matrix is symmetric.
            groups = Groups([moves], [count])
            rows = groups.sum(gram).view(batch_size, count, -1)
            gram = groups.sum(rows.transpose(1, 2)).view(batch_size, count, count)
    return TokenAssignment.trusted(labels, count)


def _split(
    count: int,
    partition: str,
    generator: torch.Generator | None,
    device: torch.device,
) -> tuple[slice, slice] | tuple[Tensor, Tensor]:
    """Positions of the two sets, ceil(count / 2) and floor(count / 2) of them."""
    if partition == 'alternate':
        return slice(0, None, 2), slice(1, None, 2)
    # A generator draws on its own device: one on the CPU gives the same halves
    # whatever device the tokens are on.
    source = device if generator is None else generator.device
    positions = torch.randperm(count, generator=generator, device=source)
    positions = without_waiting(positions, device)
    half = (count + 1) // 2
    return positions[:half].sort().values, positions[half:].sort().values


def _match(
    gram: Tensor,
    first: slice | Tensor,
    second: slice | Tensor,
    merged: int,
    class_token: bool,
    positions: Tensor,
) -> Tensor:
    """Merge the best pairs; return each token's new position, int64 (B, t).

    ``positions`` counts from 0 to at least t - 1.
    """
    inverse = inverse_norms(gram)
    # A token's own length does not change which partner is the best.
    pairs = gram[:, first][:, :, second] * inverse[:, second].unsqueeze(1)
    best, partner = pairs.max(2)
    best = best * inverse[:, first]
    if class_token:
        best[:, 0] = -torch.inf
    order = best.sort(dim=1, descending=True, stable=True).indices
    if class_token:
        order[:, merged:] = order[:, merged:].sort(dim=1).values
    # The first ranks join their partners, the others lead the new order; the
    # second set follows.
    batch_size, count = gram.shape[:2]
    kept = order.shape[1] - merged
    joining = partner.gather(1, order[:, :merged]) + kept
    places = torch.cat([joining, positions[:kept].expand(batch_size, -1)], dim=1)
    moves = torch.empty(batch_size, count, dtype=torch.int64, device=gram.device)
    moves[:, first] = torch.empty_like(order).scatter_(1, order, places)
    moves[:, second] = positions[kept : count - merged]
    return moves
