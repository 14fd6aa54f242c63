"""A short linear probe: multinomial logistic regression on frozen features."""

import torch
import torch.nn.functional as F
from torch import nn

# Elements of a block of logits: 256 MiB in float32.
BLOCK = 2**26


def linear_probe_predict(
    vectors: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    l2: float = 1e-3,
    max_iter: int = 100,
) -> torch.Tensor:
    """Class of each query by a linear probe fitted to the vectors.

    Args:
        vectors: (n, D), floating point.
        labels: (n,) int64; any numbers, which need not be without gaps.
        queries: (m, D), like ``vectors``.
        l2: Of :func:`fit_linear_probe`.
        max_iter: Likewise.

    Returns:
        (m,) int64, of the numbers in ``labels``.
    """
    present, compact = labels.unique(return_inverse=True)
    probe = fit_linear_probe(vectors, compact, l2, max_iter)
    return present[probe(queries).argmax(1)]


def fit_linear_probe(
    vectors: torch.Tensor,
    labels: torch.Tensor,
    l2: float = 1e-3,
    max_iter: int = 100,
) -> nn.Linear:
    """Fit a linear classifier on standardised features.

    Minimises mean cross-entropy + l2 / 2 * ||W||^2 (the bias is free) by
    L-BFGS, on the features' device. The problem is convex, and there is no
    learning rate to choose. scikit-learn's ``LogisticRegression`` with
    C = 1 / (n * l2) solves the same one.

    Args:
        vectors: (n, D) float32 or float64.
        labels: (n,) int64, from 0, without gaps.
        l2: Weight of the penalty.
        max_iter: L-BFGS iterations at most.

    Returns:
        Maps vectors (m, D), as they are, to (m, num_classes) logits.

    Raises:
        ValueError: If shapes do not fit, or there are fewer than two classes.
    """
    if vectors.dim() != 2 or labels.shape != vectors.shape[:1]:
        raise ValueError(
            'vectors must be (n, D) with one label each, got '
            f'{tuple(vectors.shape)} and {tuple(labels.shape)}.'
        )
    if not len(labels) or labels.min() == labels.max():
        raise ValueError('A linear probe needs images of at least two classes.')
    n, width = vectors.shape
    classes = int(labels.max()) + 1
    mean, std = vectors.mean(0), vectors.std(0, unbiased=False)
    constant = std <= 1e-6 * mean.abs()
    std = torch.where(constant, torch.ones_like(std), std)
    linear = nn.Linear(width, classes).to(vectors)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(
        linear.parameters(),
        max_iter=max_iter,
        max_eval=2 * max_iter,  # the line search needs some
        tolerance_grad=1e-6,
        tolerance_change=0.0,
        line_search_fn='strong_wolfe',
    )
    rows = max(1, BLOCK // classes)

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        total = l2 / 2 * linear.weight.square().sum()
        total.backward()
        total = total.detach()
        for x, y in zip(vectors.split(rows), labels.split(rows), strict=True):
            part = F.cross_entropy(linear((x - mean) / std), y, reduction='sum') / n
            part.backward()
            total += part.detach()
        return total

    with torch.enable_grad():
        optimizer.step(objective)
    linear.requires_grad_(False)
    # Standardisation belongs to the classifier: put it into the layer.
    linear.weight.div_(std)
    linear.bias.sub_(linear.weight @ mean)
    return linear
