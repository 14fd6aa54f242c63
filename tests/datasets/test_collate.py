"""Batches of images and masks."""

import multiprocessing.reduction
from pathlib import Path

import torch
import torch.multiprocessing.reductions as reductions
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain.structures import DataSample

from mmdtm.datasets import masked_collate

CONFIG = Path(__file__).parents[2] / 'configs/dtm_vit-b_300e.py'


def made_samples(masks: bool, size: int = 5) -> list[dict]:
    samples = []
    for number in range(size):
        sample = DataSample(metainfo=dict(img_path=f'{number}.jpg'))
        if masks:
            sample.set_mask(torch.arange(16).view(4, 4) % 5 == number)
        images = torch.full((3, 8, 8), number, dtype=torch.uint8)
        samples.append(dict(inputs=images, data_samples=sample))
    return samples


def test_masks_become_one_tensor():
    batch, plain = (
        masked_collate(made_samples(True)),
        default_collate(made_samples(True)),
    )
    masks = torch.stack([sample.mask for sample in plain['data_samples']])
    assert batch['mask'].dtype == torch.bool and batch['mask'].equal(masks)
    assert batch['inputs'].equal(plain['inputs'])
    for sample, other in zip(batch['data_samples'], plain['data_samples'], strict=True):
        assert 'mask' not in sample and sample.img_path == other.img_path


def test_samples_without_masks_are_left_alone():
    batch = masked_collate(made_samples(False))
    assert list(batch) == ['inputs', 'data_samples']
    assert len(batch['data_samples']) == 5


def test_two_tensors_cross_the_border_between_processes(monkeypatch):
    """As the pickler of a data loader's worker counts them."""
    counted = []
    reduce = reductions.reduce_tensor
    pickler = multiprocessing.reduction.ForkingPickler
    monkeypatch.setitem(
        pickler._extra_reducers,
        torch.Tensor,
        lambda tensor: counted.append(tensor) or reduce(tensor),
    )
    pickler.dumps(masked_collate(made_samples(True, 128)))
    assert len(counted) == 2


def test_the_pre_training_loader_makes_such_batches():
    cfg = Config.fromfile(CONFIG)
    assert cfg.train_dataloader.collate_fn.type == 'masked_collate'
    assert cfg.train_dataloader.pin_memory
