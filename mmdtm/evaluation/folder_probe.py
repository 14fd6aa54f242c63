"""k-NN and linear probe of images as they lie in class folders."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from .embedding import Embedder, list_images
from .knn import knn_predict
from .linear_probe import linear_probe_predict

# Images of a class that are taken, and every which of them is asked.
PROBED, EVERY = 250, 5
Labels = dict[str, int]  # by path


def has_splits(folder: Path) -> bool:
    """Whether a folder has ImageNet's layout, with train/ and val/."""
    return (folder / 'train').is_dir() and (folder / 'val').is_dir()


def split_images(folder: Path) -> tuple[Labels, Labels]:
    """Images that answer, and images that are asked, by the folder they lie in.

    Where there are train/ and val/, the first answers and the second is asked; else
    every fifth image of a class is asked, of classes with five or more.

    Returns:
        Labels of both; empty where there are not two classes.
    """
    if has_splits(folder):
        known, asked = (_by_class(folder / name) for name in ('train', 'val'))
    else:
        groups = _by_class(folder)
        groups = {k: v[:PROBED] for k, v in groups.items() if len(v) >= EVERY}
        asked = {k: v[EVERY - 1 :: EVERY] for k, v in groups.items()}
        known = {k: sorted({*v} - {*asked[k]}) for k, v in groups.items()}
    classes = sorted(known.keys() & asked.keys())
    if len(classes) < 2:
        return {}, {}
    most = PROBED // EVERY
    return (
        {p: i for i, k in enumerate(classes) for p in known[k][: PROBED - most]},
        {p: i for i, k in enumerate(classes) for p in asked[k][:most]},
    )


def _by_class(place: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in list_images(place):
        parent = Path(path).parent
        if parent != place:
            found.setdefault(parent.relative_to(place).as_posix(), []).append(path)
    return found


def probe_folder(
    folder: Path, embedders: Mapping[str, Embedder], workers: int = 0
) -> dict:
    """k-NN and linear probe of frozen features; images that cannot be read are skipped.

    Args:
        folder: The images, see :func:`split_images`.
        embedders: What is compared, by name.
        workers: Processes that read images.

    Returns:
        Numbers of ``classes``, ``images_known`` and ``images_asked``, and for each name
        ``knn_top1`` and ``linear_top1`` in percent; empty where there are not two
        classes.
    """
    known, asked = split_images(folder)
    if not known:
        return {}
    values: dict = dict(classes=len({*asked.values()}))
    for name, embedder in embedders.items():
        bank, bank_labels = _features(embedder, known, workers)
        queries, answers = _features(embedder, asked, workers)
        found = dict(
            knn_top1=knn_predict(bank, bank_labels, queries),
            linear_top1=linear_probe_predict(bank, bank_labels, queries),
        )
        values.update(images_known=len(bank), images_asked=len(queries))
        values[name] = {
            kind: 100 * (predicted == answers).double().mean().item()
            for kind, predicted in found.items()
        }
    return values


def _features(
    embedder: Embedder, labels: Labels, workers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    read, parts = [], []
    for paths, vectors, _ in embedder.read([*labels], workers=workers):
        if vectors is not None:
            read += paths
            parts.append(vectors)
    vectors = np.concatenate(parts)
    return torch.from_numpy(vectors), torch.tensor([labels[p] for p in read])
