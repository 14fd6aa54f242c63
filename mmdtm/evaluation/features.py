"""Frozen features of a labelled data set, one vector per image."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine import dist
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmpretrain.models import BaseSelfSupervisor
from torch.utils.data import DataLoader

from mmdtm.morphing.checks import check_count


class Features(NamedTuple):
    """One vector and one label per image, in the data set's order.

    Attributes:
        vectors: (n, D) float32.
        labels: (n,) int64.
    """

    vectors: torch.Tensor
    labels: torch.Tensor


def pool(outputs: torch.Tensor | tuple, num_extra_tokens: int = 0) -> torch.Tensor:
    """One vector per image from what a backbone returns.

    The last output counts. Feature maps (B, D, h, w) and tokens (B, N, D) are
    averaged over the patches, class token excluded, and normalised as
    fine-tuning does (a layer norm without weights); vectors (B, D) are taken
    as they are.

    Args:
        outputs: A tensor, or a tuple of them.
        num_extra_tokens: Leading tokens of (B, N, D) that are not patches.

    Returns:
        (B, D) float32.

    Raises:
        ValueError: If the last output has another number of dimensions.
    """
    x = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
    if x.dim() == 2:
        return x.float()
    if x.dim() == 4:
        x = x.float().mean((2, 3))
    elif x.dim() == 3:
        x = x[:, num_extra_tokens:].float().mean(1)
    else:
        raise ValueError(
            f'The backbone returned {tuple(x.shape)}, which is not pooled. Have it '
            'return (B, D), (B, N, D) or (B, D, h, w).'
        )
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


@torch.no_grad()
def extract_features(
    model: Any, loader: DataLoader, progress: Callable[[int], None] | None = None
) -> Features:
    """Run a model's backbone, frozen, over a data set.

    Processes of a distributed run share the images, and each gets the whole
    result. The model's training mode and torch's random state are left as
    they were.

    Args:
        model: A module that has ``backbone`` and ``data_preprocessor``.
        loader: Gives ``inputs`` (B, 3, H, W) and ``data_samples`` with
            ``gt_label``, in order (no shuffling).
        progress: Called with the number of images of each batch.

    Returns:
        Vectors and labels, on the model's device.

    Raises:
        ValueError: If the data have no labels.
    """
    training = model.training
    model.eval()
    extra = getattr(model.backbone, 'num_extra_tokens', 0)
    vectors, labels = [], []
    # Masked models' backbones mask unless told otherwise.
    masked = isinstance(model, BaseSelfSupervisor)
    extract = model.extract_feat if masked else model.backbone
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):  # a loader draws a seed from it
        for batch in loader:
            samples = batch['data_samples']
            if 'gt_label' not in samples[0]:
                raise ValueError(
                    'The data have no labels (with_label=False?). Give k-NN and '
                    'linear probe a labelled set, such as train/<class>/*.'
                )
            inputs = model.data_preprocessor(
                {'inputs': batch['inputs'], 'data_samples': None}
            )['inputs']
            # Self-supervised preprocessors give several views; the first is plain.
            view = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
            vectors.append(pool(extract(view), extra))
            labels.append(torch.cat([sample.gt_label for sample in samples]))
            if progress is not None:
                progress(len(samples))
    model.train(training)
    if not vectors:
        raise ValueError(
            'The data set is empty, so that there are no features. Set its data_root '
            'to where the images are.'
        )
    vectors_here = torch.cat(vectors)
    labels_here = torch.cat(labels).to(vectors_here.device)
    dataset: Any = loader.dataset
    return Features(
        _gather(vectors_here, len(dataset)), _gather(labels_here, len(dataset))
    )


def _gather(part: torch.Tensor, total: int) -> torch.Tensor:
    """Put the processes' interleaved shares together, without the padding."""
    if dist.get_world_size() == 1:
        return part
    return torch.stack(dist.all_gather(part), dim=1).flatten(0, 1)[:total]


def build_loader(cfg: dict, images_per_class: int | None = None) -> DataLoader:
    """Build a loader of labelled images, in order.

    Args:
        cfg: A dataloader's config; its dataset is one of mmpretrain's.
        images_per_class: Keep the first so many images of each class; None
            keeps all.

    Raises:
        ValueError: If ``images_per_class`` is below 1.
    """
    dataset = DATASETS.build(cfg['dataset'])
    if images_per_class is not None:
        check_count(images_per_class, 1, None, 'images_per_class')
        seen: Counter[int] = Counter()
        kept = []
        for index, label in enumerate(dataset.get_gt_labels().tolist()):
            seen[label] += 1
            if seen[label] <= images_per_class:
                kept.append(index)
        dataset.get_subset_(kept)  # before the sampler counts
    return Runner.build_dataloader({**cfg, 'dataset': dataset}, seed=0)
