"""Samples made a batch."""

from collections.abc import Sequence

import torch
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS


@FUNCTIONS.register_module()
def masked_collate(samples: Sequence[dict]) -> dict:
    """Mmengine's ``default_collate``, with the masks taken out of the data samples.

    A worker then hands over two tensors, whatever the batch's size, and both get
    into pinned memory: torch does not look into data samples for any.

    Args:
        samples: ``inputs`` (3, H, W) and a ``data_samples`` each, as ``PackInputs``
            makes them.

    Returns:
        ``inputs`` (B, 3, H, W), ``data_samples``, a list of B, and ``mask``
        (B, h, w), if the samples have masks.
    """
    batch = default_collate(samples)
    data_samples = batch.get('data_samples')
    if data_samples and 'mask' in data_samples[0]:
        batch['mask'] = torch.stack([sample.pop('mask') for sample in data_samples])
    return batch
