"""The loss between morphed tokens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .assignment import TokenAssignment, morph_levels
from .checks import check_option, check_tokens, working_dtype


def dtm_loss(
    online: Tensor,
    target: Tensor,
    assignments: Sequence[TokenAssignment],
    distance: str = 'cosine',
    reduction: str = 'mean',
    beta: float = 2.0,
    group_reduction: str = 'mean',
    check_finite: bool = True,
) -> Tensor:
    """Pull morphed online tokens to morphed target tokens (Eq. 3-5).

    For each level, u_hat_i and v_hat_i are the means of the online and target
    tokens in morphed token i, d_i their distance and w_i the number of tokens
    in it; the level's loss is sum_i w_i d_i. Computed in float32, or float64
    where a tensor comes in it, also under autocast.

    Args:
        online: Floating point (B, N, D), u; gets the gradient.
        target: Floating point (B, N, D), v; never gets one.
        assignments: One per level, at least one.
        distance: 'cosine' is 1 - cos(u_hat, v_hat). The others (table 10) are
            averaged over the D channels: 'l1' |x|, 'l2' the squared error x^2
            (no root, no half), 'smooth_l1' x^2 / (2 beta) below beta and
            |x| - beta / 2 above, with x = u_hat - v_hat.
        reduction: 'sum' adds morphed tokens and levels as Eq. (4-5) print it;
            'mean' divides that by N * L, so that it is an average over tokens
            and levels. Both are averaged over the batch.
        beta: Where smooth l1 turns from square to straight, above 0. The paper
            prints none; 2 is the authors' release's.
        group_reduction: What a morphed token is: 'mean' of its tokens, as in
            the release, or their 'sum', as Eq. (3) is printed. The cosine
            distance does not tell one from the other. With sums, l1 grows by
            another factor w_i and l2 by w_i^2: large groups decide the loss.
        check_finite: Whether to raise if the loss is NaN or infinite, which
            waits for the device. Never checked while torch.compile traces.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: If a shape, dtype or option is wrong, an assignment does
            not fit the tokens, or the loss is not finite.
    """
    check_tokens(online, 'online')
    check_tokens(target, 'target')
    if online.shape != target.shape:
        raise ValueError(
            f'online is {tuple(online.shape)} and target {tuple(target.shape)}. Give '
            'both one shape (B, N, D).'
        )
    check_option(distance, ('cosine', 'l1', 'l2', 'smooth_l1'), 'distance')
    check_option(reduction, ('mean', 'sum'), 'reduction')
    check_option(group_reduction, ('mean', 'sum'), 'group_reduction')
    if not beta > 0:
        raise ValueError(f'beta is {beta}. Give a number above 0.')
    if not isinstance(assignments, Sequence) or not assignments:
        raise ValueError(
            f'assignments are {assignments!r}. Give a sequence of TokenAssignment, one '
            'per level and at least one.'
        )
    batch_size, num_tokens, _ = online.shape
    for level, assignment in enumerate(assignments):
        if assignment.labels.shape != (batch_size, num_tokens):
            raise ValueError(
                f'assignments[{level}] is for {tuple(assignment.labels.shape)} tokens '
                f'(B, N), but online has {(batch_size, num_tokens)}. Make it from '
                'tokens of the same images.'
            )

    with torch.autocast(online.device.type, enabled=False):
        dtype = working_dtype(torch.promote_types(online.dtype, target.dtype))
        u, v = online.to(dtype), target.detach().to(dtype)
        (u_hat, v_hat), sizes = morph_levels(assignments, (u, v), group_reduction)
        weighted = sizes * _distance(u_hat, v_hat, distance, beta)
        counts = [batch_size * assignment.num_morphed for assignment in assignments]
        levels = [level.sum() for level in weighted.split(counts)]
        total = sum(levels[1:], levels[0])
        loss = total / batch_size
        if reduction == 'mean':
            loss = loss / (num_tokens * len(assignments))
    if check_finite and not torch.compiler.is_compiling() and not loss.isfinite():
        culprit = 'online' if v.isfinite().all() else 'target'
        raise ValueError(
            f'The loss is {loss.item()}: {culprit} holds NaN, infinity or numbers too '
            'large for its precision. Look at what made it, or compute it in float32.'
        )
    return loss


def _distance(u: Tensor, v: Tensor, distance: str, beta: float) -> Tensor:
    """Distances d_i, (G,), between morphed tokens (G, D)."""
    if distance == 'cosine':
        # As F.cosine_similarity, in fewer operations.
        u, v = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-8) for x in (u, v))
        return 1 - (u * v).sum(1)
    if distance == 'l1':
        return F.l1_loss(u, v, reduction='none').mean(1)
    if distance == 'l2':
        return F.mse_loss(u, v, reduction='none').mean(1)
    return F.smooth_l1_loss(u, v, reduction='none', beta=beta).mean(1)
