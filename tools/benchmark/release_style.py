"""DTM computed in four ways that the authors' release takes.

Written anew from these four facts: features are matched with a dense source matrix;
attention is materialised; two float views of an image leave the loader; the loss is
waited for in every step. All else is mmdtm's, position biases, optimizer and precision
among it: the difference is the least that the four cost.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdtm.models.backbones.dtm_vit import Attention
from mmdtm.models.morphings import BipartiteMorphing
from mmdtm.morphing import DynamicSchedule, effective_schedule
from mmdtm.morphing.draw import Draw


def in_release_style(model: nn.Module, batch: dict) -> dict:
    """Change a built ``DTM`` in place.

    Args:
        model: With a ``DTMViT`` as its student and a ``BipartiteMorphing``.
        batch: Of uint8 images.

    Returns:
        The batch, of two float views.
    """
    device = next(model.parameters()).device
    views = [v.cpu() for v in model.data_preprocessor(batch, training=True)['inputs']]
    if device.type == 'cuda':
        views = [view.pin_memory() for view in views]

    def copy(data: dict, training: bool = False) -> dict:
        views = [view.to(device, non_blocking=True) for view in data['inputs']]
        mask = data['mask'].to(device, non_blocking=True)
        return dict(inputs=views, mask=mask.bool())

    def loss(tokens: Tensor, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
        value = source_loss(model.head(tokens), target, sources)
        value.item()  # to see whether it is finite
        return value

    model.data_preprocessor.forward = copy
    for layer in model.backbone.layers:
        layer.attn.forward = partial(attend, layer.attn)
    model.morphing.prepare = lambda tokens: {}
    model.morphing.assign = partial(assign, model.morphing)
    model.head.loss = loss
    return dict(batch, inputs=views)


def attend(
    layer: Attention, x: Tensor, bias: Tensor | None, scale: Tensor | None = None
) -> Tensor:
    """``Attention.forward`` with its (B, H, 1 + N, 1 + N) logits kept."""
    qkv = layer.qkv(x)
    if layer.q_bias is not None:
        zeros = torch.zeros_like(layer.v_bias)
        qkv = qkv + torch.cat([layer.q_bias, zeros, layer.v_bias]).to(qkv.dtype)
    q, k, v = qkv.unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    logits = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    weights = logits.softmax(-1).to(v.dtype)
    x = layer.proj((weights @ v).transpose(1, 2).flatten(2))
    return x if scale is None else scale * x


def assign(morphing: BipartiteMorphing, tokens: Tensor, draw: Draw) -> Tensor:
    """One level's groups as a dense source matrix (B, N_m, N) of zeros and ones."""
    schedule = DynamicSchedule(
        tokens.shape[1], morphing.num_morphed, morphing.num_iters
    ).draw(*draw)
    return match_features(tokens, schedule)


@torch.no_grad()
def match_features(tokens: Tensor, schedule: Sequence[int]) -> Tensor:
    """Bipartite matching that merges features, and compares them anew each time.

    Args:
        tokens: (B, N, C).
        schedule: Merges asked of each iteration.

    Returns:
        Which tokens each group has: (B, N_m, N), zeros and ones.
    """
    batch_size, num_tokens, _ = tokens.shape
    source = torch.eye(num_tokens, dtype=tokens.dtype, device=tokens.device)
    source = source.expand(batch_size, -1, -1)
    for merged in effective_schedule(num_tokens, schedule):
        if merged == 0:
            continue
        # A cosine does not tell a group's sum from its mean.
        unit = F.normalize(tokens, dim=2)
        best, partner = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(2)
        order = best.argsort(dim=1, descending=True, stable=True)[..., None]
        moving, staying = order[:, :merged], order[:, merged:]
        target = partner[..., None].gather(1, moving)
        tokens, source = (_merge(x, moving, staying, target) for x in (tokens, source))
    return source


def _merge(x: Tensor, moving: Tensor, staying: Tensor, target: Tensor) -> Tensor:
    """Add the moving even rows of (B, t, C) to odd ones; the staying come first."""
    even, odd = x[:, ::2], x[:, 1::2]
    rows = [index.expand(-1, -1, x.shape[2]) for index in (moving, staying, target)]
    odd = odd.scatter_add(1, rows[2], even.gather(1, rows[0]))
    return torch.cat([even.gather(1, rows[1]), odd], dim=1)


def source_means(source: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the groups (B, N_m, C) by a dense product, and sizes (B, N_m)."""
    sizes = source.sum(2)
    return (source / sizes.unsqueeze(2)) @ tokens, sizes


def source_loss(online: Tensor, target: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """``dtm_loss`` by the cosine, of dense source matrices."""
    with torch.autocast(online.device.type, enabled=False):
        levels = []
        for source in sources:
            u_hat, sizes = source_means(source, online.to(source.dtype))
            v_hat, _ = source_means(source, target)
            distances = 1 - F.cosine_similarity(u_hat, v_hat, dim=2)
            levels.append((sizes * distances).sum())
        return torch.stack(levels).mean() / online.shape[:2].numel()
