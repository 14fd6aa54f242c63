"""Linear probes: multinomial logistic regression on frozen features.

Two ways to the same classifier: ``fit_linear_probe`` solves the convex problem, with
no learning rate to choose; ``fit_sgd_probe`` trains it for some epochs, as papers do.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Elements of a block of logits: 256 MiB in float32.
BLOCK = 2**26


def fit_linear_probe(
    vectors: Tensor, labels: Tensor, l2: float = 1e-3, max_iter: int = 100
) -> nn.Linear:
    """Fit a linear classifier on standardised features by L-BFGS.

    Minimises mean cross-entropy + l2 / 2 * ||W||^2 (the bias is free), on the
    features' device. scikit-learn's ``LogisticRegression`` with C = 1 / (n * l2)
    solves the same problem.

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
    linear, mean, std = _start(vectors, labels)
    optimizer = torch.optim.LBFGS(
        linear.parameters(),
        max_iter=max_iter,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=0.0,
        line_search_fn='strong_wolfe',
    )
    rows = max(1, BLOCK // linear.out_features)

    def objective() -> Tensor:
        optimizer.zero_grad()
        total = l2 / 2 * linear.weight.square().sum()
        total.backward()
        total = total.detach()
        for x, y in zip(vectors.split(rows), labels.split(rows), strict=True):
            logits = linear((x - mean) / std)
            part = F.cross_entropy(logits, y, reduction='sum') / len(vectors)
            part.backward()
            total += part.detach()
        return total

    with torch.enable_grad():
        optimizer.step(objective)
    return _absorb(linear, mean, std)


def fit_sgd_probe(
    vectors: Tensor,
    labels: Tensor,
    epochs: int = 25,
    lr: float = 0.1,
    batch_size: int = 1024,
    seed: int = 0,
) -> nn.Linear:
    """Train a linear classifier on standardised features by SGD.

    Table 1 prints the 25 epochs and no more. The rest is MAE's recipe (arXiv
    2111.06377, appendix A.2) without LARS, warm-up and augmentation: a rate of 0.1
    per 256 images, cosine decay to 0, momentum 0.9, no weight decay, standardisation
    for its BatchNorm without weights. The weights start at zero, so that the seed
    decides the order of the images alone.

    Args:
        vectors: (n, D) float32 or float64.
        labels: (n,) int64, from 0, without gaps.
        epochs: Passes over the vectors.
        lr: Learning rate at the start per 256 vectors of a batch.
        batch_size: Vectors a step; n if that is fewer.
        seed: Of the order of the vectors.

    Returns:
        Maps vectors (m, D), as they are, to (m, num_classes) logits.

    Raises:
        ValueError: If shapes do not fit, or there are fewer than two classes.
    """
    linear, mean, std = _start(vectors, labels)
    batch_size = min(batch_size, len(vectors))
    optimizer = torch.optim.SGD(
        linear.parameters(), lr=lr * batch_size / 256, momentum=0.9
    )
    steps = epochs * -(-len(vectors) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(vectors), generator=generator)
            for batch in order.to(vectors.device).split(batch_size):
                optimizer.zero_grad()
                logits = linear((vectors[batch] - mean) / std)
                F.cross_entropy(logits, labels[batch]).backward()
                optimizer.step()
                schedule.step()
    return _absorb(linear, mean, std)


def linear_probe_predict(
    vectors: Tensor,
    labels: Tensor,
    queries: Tensor,
    fit: Callable[..., nn.Linear] = fit_linear_probe,
    **options,
) -> Tensor:
    """Class of each query by a linear probe fitted to the vectors.

    Args:
        vectors: (n, D), floating point.
        labels: (n,) int64; any numbers, which need not be without gaps.
        queries: (m, D), like ``vectors``.
        fit: ``fit_linear_probe`` or ``fit_sgd_probe``.
        **options: Of ``fit``.

    Returns:
        (m,) int64, of the numbers in ``labels``.
    """
    present, compact = labels.unique(return_inverse=True)
    return present[fit(vectors, compact, **options)(queries).argmax(1)]


def _start(vectors: Tensor, labels: Tensor) -> tuple[nn.Linear, Tensor, Tensor]:
    """A classifier of zeros, and the features' mean and deviation, (D,) each."""
    if vectors.dim() != 2 or labels.shape != vectors.shape[:1]:
        raise ValueError(
            f'vectors are {tuple(vectors.shape)}, labels {tuple(labels.shape)}. Give '
            '(n, D) with one label each, (n,).'
        )
    if not len(labels) or labels.min() == labels.max():
        raise ValueError(
            'All images are of one class. Give a linear probe at least two classes.'
        )
    mean, std = vectors.mean(0), vectors.std(0, unbiased=False)
    constant = std <= 1e-6 * mean.abs()
    std = torch.where(constant, torch.ones_like(std), std)
    shape = vectors.shape[1], int(labels.max()) + 1
    # A random start would move torch's random state, which a run being probed shares.
    linear = nn.utils.skip_init(
        nn.Linear, *shape, device=vectors.device, dtype=vectors.dtype
    )
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear, mean, std


def _absorb(linear: nn.Linear, mean: Tensor, std: Tensor) -> nn.Linear:
    """Put the standardisation, which belongs to the classifier, into the layer."""
    linear.requires_grad_(False)
    linear.weight /= std
    linear.bias.sub_(linear.weight @ mean)
    return linear
