"""k-NN and short linear probe of a model's frozen features, with their cost."""

import time
from collections.abc import Callable

import torch
from mmengine import dist
from torch import nn
from torch.utils.data import DataLoader

from mmdtm.datasets.checks import check_same_classes

from .features import extract_features
from .knn import knn_predict
from .linear_probe import linear_probe_predict


def probe_features(
    model: nn.Module,
    train: DataLoader,
    val: DataLoader,
    k: int = 20,
    temperature: float = 0.07,
    l2: float = 1e-3,
    max_iter: int = 100,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Top-1 of k-NN and of a short linear probe on frozen features.

    Args:
        model: Has ``backbone`` and ``data_preprocessor``.
        train: Labelled images that neighbours and probe are taken from, with
            the pipeline of testing, not shuffled.
        val: Labelled images to classify.
        k: Of :func:`~mmdtm.evaluation.knn.knn_predict`.
        temperature: Likewise.
        l2: Of :func:`~mmdtm.evaluation.linear_probe.fit_linear_probe`.
        max_iter: Likewise.
        progress: Called with the number of images of each batch.

    Returns:
        ``knn_top1`` and ``linear_top1`` in percent, and what each part took in seconds:
        ``features_s``, ``knn_s``, ``linear_s``. Other processes than the first get an
        empty one.

    Raises:
        ValueError: If both data sets' classes differ.
    """
    check_same_classes(train.dataset, val.dataset)
    watch = [time.perf_counter()]
    bank = extract_features(model, train, progress)
    queries = extract_features(model, val, progress)
    watch.append(time.perf_counter())
    if not dist.is_main_process():
        return {}
    knn = knn_predict(bank.vectors, bank.labels, queries.vectors, k, temperature)
    knn_top1 = _accuracy(knn, queries.labels)
    watch.append(time.perf_counter())
    linear = linear_probe_predict(
        bank.vectors, bank.labels, queries.vectors, l2=l2, max_iter=max_iter
    )
    linear_top1 = _accuracy(linear, queries.labels)
    watch.append(time.perf_counter())
    return {
        'knn_top1': knn_top1,
        'linear_top1': linear_top1,
        'features_s': watch[1] - watch[0],
        'knn_s': watch[2] - watch[1],
        'linear_s': watch[3] - watch[2],
    }


def _accuracy(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    return 100 * (predictions == labels).double().mean().item()
