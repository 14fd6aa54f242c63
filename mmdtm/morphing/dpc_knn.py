"""Density-peaks clustering with k nearest neighbours (DPC-kNN)."""

import torch
from torch import Tensor

from .assignment import TokenAssignment
from .checks import check_count, check_tokens
from .gram import gram_matrix, inverse_norms


@torch.no_grad()
def dpc_knn(
    tokens: Tensor,
    num_clusters: int,
    num_neighbors: int = 5,
    check_finite: bool = True,
    gram: Tensor | None = None,
) -> TokenAssignment:
    """Group tokens around density peaks, all images at once.

    A centre is a token in a dense place and far from every denser token. With
    squared distances d_ij^2 = 2 - 2 cos(v_i, v_j), those of unit tokens, the
    density of a token is rho_i = exp(-mean of d_ij^2 over its nearest
    neighbours), and its separation delta_i the distance to the nearest denser
    token. The densest token and those with the highest rho_i * delta_i become
    the N_m centres; every other token joins its nearest centre.

    Density peaks are of Rodriguez and Laio, "Clustering by fast search and
    find of density peaks", Science 344, 2014; the density from nearest
    neighbours of Du, Ding and Jia, "Study on density peaks clustering based on
    k-nearest neighbors and principal component analysis", Knowledge-Based
    Systems 99, 2016.

    Args:
        tokens: Floating point (B, N, C).
        num_clusters: N_m, in [1, N].
        num_neighbors: Neighbours of the density estimate, the token itself
            not counted, at least 1; more than N - 1 stand for all.
        check_finite: Whether to raise on NaN and infinity, which waits for the
            device. Never checked while torch.compile traces.
        gram: What `mmdtm.morphing.gram.gram_matrix` makes of the tokens, where
            they are grouped more than once; then they are not checked here.

    Returns:
        The clusters, none empty, by descending rho * delta of their centres.
        Equal values are settled by position.

    Raises:
        ValueError: If a shape, dtype, value or number is wrong.
    """
    check_tokens(tokens)
    batch_size, num_tokens, _ = tokens.shape
    check_count(num_clusters, 1, num_tokens, 'num_clusters')
    check_count(num_neighbors, 1, None, 'num_neighbors')
    if gram is None:
        gram = gram_matrix(tokens, check_finite)
    if num_clusters == num_tokens:  # also N = 1, which has no neighbours
        return TokenAssignment.identity(batch_size, num_tokens, tokens.device)
    lengths = inverse_norms(gram)
    squares = 2 - 2 * gram * (lengths.unsqueeze(1) * lengths.unsqueeze(2))
    # Mutual nearest neighbours are equally dense; rounding must not tell them
    # apart, so the distances are made symmetric to the last bit.
    squares = torch.maximum(squares, squares.transpose(1, 2)).clamp(min=0)

    # Each token is its own nearest neighbour; leave it out.
    itself = torch.eye(num_tokens, dtype=torch.bool, device=gram.device)
    others = squares.masked_fill(itself, torch.inf)
    neighbors = others.topk(min(num_neighbors, num_tokens - 1), largest=False)
    density = (-neighbors.values.mean(2)).exp()

    # Of two equally dense tokens the earlier counts as the denser.
    order = density.sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(num_tokens, device=gram.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    denser = rank.unsqueeze(1) < rank.unsqueeze(2)
    distance = squares.sqrt()
    separation = distance.masked_fill(~denser, torch.inf).amin(2)

    # Infinitely far for the densest, which is a centre by any finite number too.
    score = density * separation
    centres = score.sort(dim=1, descending=True, stable=True).indices[:, :num_clusters]
    to_centres = distance.gather(2, centres.unsqueeze(1).expand(-1, num_tokens, -1))
    labels = to_centres.argmin(2)
    # A centre belongs to itself even where another lies on the same point.
    clusters = torch.arange(num_clusters, device=gram.device).expand_as(centres)
    return TokenAssignment.trusted(labels.scatter(1, centres, clusters), num_clusters)
