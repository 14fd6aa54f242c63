"""Batched K-means on normalised tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .assignment import TokenAssignment
from .checks import check_count, check_tokens, require_finite
from .draw import without_waiting
from .gram import gram_matrix, inverse_norms, squared_norms
from .groups import Groups


@torch.no_grad()
def kmeans(
    tokens: Tensor,
    num_clusters: int,
    num_iters: int,
    generator: torch.Generator | None = None,
    init: Tensor | None = None,
    check_finite: bool = True,
    gram: Tensor | None = None,
) -> TokenAssignment:
    """Group tokens by Lloyd's K-means, all images at once (table 11).

    The tokens are scaled to unit length first, so that Euclidean distance
    orders them as cosine similarity does; the centres are plain means. As many
    assignments and updates are made as asked, then a last assignment to the
    final centres. No cluster comes out empty: before each update, and at the
    end, every cluster without tokens takes the token that lies farthest from
    its own centre, different ones for different clusters; the token nearest to
    each centre is never taken. Equal distances are settled by position.

    Centres being means of tokens, their distances follow from the tokens' Gram
    matrix, as in ``bipartite_matching``: an iteration costs O(N^2), whatever C
    and N_m are.

    Args:
        tokens: Floating point (B, N, C).
        num_clusters: N_m, in [1, N].
        num_iters: Assignments followed by an update, at least 1.
        generator: Chooses the first centres, distinct tokens of each image,
            unless ``init`` gives them; torch's default generator if None.
        init: (B, N_m, C), the first centres in the space of unit tokens, taken
            as they are.
        check_finite: Whether to raise on NaN and infinity, which waits for the
            device. Never checked while torch.compile traces.
        gram: what `mmdtm.morphing.gram.gram_matrix` makes of the tokens, where
            they are grouped more than once; then they are not checked here.

    Returns:
        The clusters, numbered as their first centres.

    Raises:
        ValueError: If a shape, dtype, value or number is wrong.
    """
    check_tokens(tokens)
    batch_size, num_tokens, channels = tokens.shape
    check_count(num_clusters, 1, num_tokens, 'num_clusters')
    check_count(num_iters, 1, None, 'num_iters')
    if init is not None:
        check_tokens(init, 'init')
        if init.shape != (batch_size, num_clusters, channels):
            raise ValueError(
                f'init has shape {tuple(init.shape)}. Give the first centres, of shape '
                f'{(batch_size, num_clusters, channels)}.'
            )
        if check_finite:
            require_finite(init.square(), 'init')
    if gram is None:
        gram = gram_matrix(tokens, check_finite)
    lengths = inverse_norms(gram)
    cosines = gram * (lengths.unsqueeze(1) * lengths.unsqueeze(2))
    if init is None:
        chosen = _random_tokens(tokens, num_clusters, generator)
        products = cosines.gather(1, chosen.unsqueeze(2).expand(-1, -1, num_tokens))
        squares = squared_norms(cosines).gather(1, chosen)
    else:
        init = init.to(cosines)
        with torch.autocast(tokens.device.type, enabled=False):
            products = init @ tokens.to(cosines).transpose(1, 2)
        products = products * lengths.unsqueeze(1)
        squares = init.square().sum(2)
    labels = _assign(products, squares, cosines)
    for _ in range(num_iters):
        products, squares = _centres(labels, cosines, num_clusters)
        labels = _assign(products, squares, cosines)
    return TokenAssignment.trusted(labels, num_clusters)


def _random_tokens(
    tokens: Tensor, count: int, generator: torch.Generator | None
) -> Tensor:
    """Choose ``count`` distinct tokens of each image, int64 (B, count)."""
    source = tokens.device if generator is None else generator.device
    keys = torch.rand(tokens.shape[:2], generator=generator, device=source)
    chosen = keys.sort(dim=1, stable=True).indices[:, :count]
    return without_waiting(chosen, tokens.device)


def _centres(labels: Tensor, cosines: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Describe the means of the clusters by their products.

    Returns:
        Products of centres and unit tokens (B, N_m, N), and the centres'
        squared lengths (B, N_m).
    """
    groups = Groups([labels], [count])
    sizes = groups.sizes().unsqueeze(1)
    products = (groups.sum(cosines) / sizes).view(len(labels), count, -1)
    own = products.gather(1, labels.unsqueeze(1)).transpose(1, 2)
    return products, (groups.sum(own) / sizes).view(len(labels), count)


def _assign(products: Tensor, squares: Tensor, cosines: Tensor) -> Tensor:
    """Give each unit token its nearest centre, and each centre a token.

    Args:
        products: Of centres and tokens, (B, N_m, N).
        squares: Squared lengths of the centres, (B, N_m).
        cosines: Of tokens, (B, N, N).

    Returns:
        int64 (B, N), the cluster of each token.
    """
    # |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2)
    closeness, labels = (products - squares.unsqueeze(2) / 2).max(1)
    distances = squared_norms(cosines) - 2 * closeness
    return _fill_empty(labels, distances, products.shape[1])


def _fill_empty(labels: Tensor, distances: Tensor, num_clusters: int) -> Tensor:
    """Move the farthest tokens into the empty clusters, one into each.

    Written without asking whether there are any, so that nothing waits for
    the device.
    """
    num_tokens = labels.shape[1]
    order = distances.sort(dim=1, stable=True).indices
    places = torch.arange(num_tokens, device=labels.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)  # 0 is the nearest
    nearest = labels.new_full((len(labels), num_clusters), num_tokens)
    nearest = nearest.scatter_reduce(1, labels, ranks, 'amin')
    empty = nearest == num_tokens
    # The nearest token of each cluster stays, whatever its distance.
    movable = torch.where(ranks == nearest.gather(1, labels), -1, ranks)
    farthest = movable.sort(dim=1, descending=True, stable=True).indices
    turn = (empty.cumsum(1) - 1).clamp(min=0)
    moved = torch.where(empty, farthest.gather(1, turn), num_tokens)
    clusters = torch.arange(num_clusters, device=labels.device).expand_as(moved)
    # Clusters that have tokens write into a spare last place.
    return F.pad(labels, (0, 1)).scatter(1, moved, clusters)[:, :num_tokens]
