"""Batched K-means on normalised tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .assignment import TokenAssignment
from .checks import check_count, check_tokens, working_dtype
from .checks import check_finite as require_finite


@torch.no_grad()
def kmeans(
    tokens: Tensor,
    num_clusters: int,
    num_iters: int,
    generator: torch.Generator | None = None,
    init: Tensor | None = None,
    check_finite: bool = True,
) -> TokenAssignment:
    """Group tokens by Lloyd's K-means, all images at once (table 11).

    The tokens are scaled to unit length first, so that Euclidean distance
    orders them as cosine similarity does; the centres are plain means. As many
    assignments and updates are made as asked, then a last assignment to the
    final centres. No cluster comes out empty: before each update, and at the
    end, every cluster without tokens takes the token that lies farthest from
    its own centre, different ones for different clusters; the token nearest to
    each centre is never taken. Equal distances are settled by position.

    Args:
        tokens: floating point (B, N, C).
        num_clusters: N_m, in [1, N].
        num_iters: assignments followed by an update, at least 1.
        generator: chooses the first centres, distinct tokens of each image,
            unless ``init`` gives them; torch's default generator if None.
        init: (B, N_m, C), the first centres in the space of unit tokens, taken
            as they are.
        check_finite: whether to raise on NaN and infinity, which waits for the
            device. Never checked while torch.compile traces.

    Returns:
        The clusters, numbered as their first centres.

    Raises:
        ValueError: if a shape, dtype, value or number is wrong.
    """
    check_tokens(tokens)
    batch_size, num_tokens, channels = tokens.shape
    check_count(num_clusters, 1, num_tokens, 'num_clusters')
    check_count(num_iters, 1, None, 'num_iters')
    if init is not None:
        check_tokens(init, 'init')
        if init.shape != (batch_size, num_clusters, channels):
            raise ValueError(
                'init must hold the first centres, of shape '
                f'{(batch_size, num_clusters, channels)}, got {tuple(init.shape)}'
            )
    if check_finite:
        require_finite(tokens)
        if init is not None:
            require_finite(init, 'init')
    with torch.autocast(tokens.device.type, enabled=False):
        x = F.normalize(tokens.to(working_dtype(tokens.dtype)), dim=2)
        if init is None:
            centres = _random_tokens(x, num_clusters, generator)
        else:
            centres = init.to(x)
        for _ in range(num_iters):
            assignment = _assign(x, centres)
            centres = assignment.morph(x)
        return _assign(x, centres)


def _random_tokens(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Choose ``count`` distinct tokens of each image."""
    source = x.device if generator is None else generator.device
    keys = torch.rand(x.shape[:2], generator=generator, device=source)
    chosen = keys.sort(dim=1, stable=True).indices[:, :count].to(x.device)
    return x.gather(1, chosen.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _assign(x: Tensor, centres: Tensor) -> TokenAssignment:
    """Give each unit token its nearest centre, and each centre a token."""
    num_clusters = centres.shape[1]
    # |x - c|^2 = 1 - 2 (x.c - |c|^2 / 2)
    closeness = x @ centres.transpose(1, 2)
    closeness = closeness - centres.square().sum(2).unsqueeze(1) / 2
    closeness, labels = closeness.max(2)
    labels = _fill_empty(labels, closeness, num_clusters)
    return TokenAssignment.trusted(labels, num_clusters)


def _fill_empty(labels: Tensor, closeness: Tensor, num_clusters: int) -> Tensor:
    """Move the farthest tokens into the empty clusters, one into each.

    Written without asking whether there are any, so that nothing waits for
    the device.
    """
    num_tokens = labels.shape[1]
    order = closeness.sort(dim=1, descending=True, stable=True).indices
    ranks = torch.empty_like(order)
    places = torch.arange(num_tokens, device=labels.device).expand_as(order)
    ranks.scatter_(1, order, places)  # 0 is the token nearest to its centre
    nearest = labels.new_full((len(labels), num_clusters), num_tokens)
    nearest = nearest.scatter_reduce(1, labels, ranks, 'amin')
    empty = nearest == num_tokens
    # The nearest token of each cluster stays, whatever its distance.
    movable = torch.where(ranks == nearest.gather(1, labels), -1, ranks)
    farthest = movable.sort(dim=1, descending=True).indices
    turn = (empty.cumsum(1) - 1).clamp(min=0)
    moved = torch.where(empty, farthest.gather(1, turn), num_tokens)
    clusters = torch.arange(num_clusters, device=labels.device).expand_as(moved)
    # Clusters that have tokens write into a spare last place.
    return F.pad(labels, (0, 1)).scatter(1, moved, clusters)[:, :num_tokens]
