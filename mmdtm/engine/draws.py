"""Random numbers that depend on nothing but where they are drawn.

Python's, numpy's and torch's global generators are seeded anew for each image and
each training step, from numbers that say which one it is. So it does not matter
who loads an image, in which order, and what was drawn before.
"""

import hashlib
import random
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Sampler, get_worker_info


def seed_generators(*where: int | str, devices: bool = False) -> None:
    """Seed the global generators with what a hash makes of these numbers.

    Args:
        *where: What the next draws may depend on.
        devices: Seed those of the GPUs, too.
    """
    key = '/'.join(map(str, where)).encode()
    digest = hashlib.sha512(key).digest()
    random.seed(digest[:16])
    np.random.seed(np.frombuffer(digest[16:32], np.uint32))
    number = int.from_bytes(digest[32:40], 'big') >> 1
    # Without GPUs for the workers, who must not touch them.
    (torch.manual_seed if devices else torch.default_generator.manual_seed)(number)


class SampleIndex(int):
    """An index of a data set, and what the draws for that sample depend on."""

    where: tuple[int, ...] = ()


class SeededSampler(Sampler):
    """Wraps a sampler: its indices carry their draws, and it can start later.

    The draws depend on (seed, epoch, how often the data set was gone through
    before, index). The samples of all processes together are counted through:
    the i-th of rank r of W is number r + W * i, as mmengine's samplers share
    them out. Where an index comes several times by intention, as with repeated
    augmentation, its number takes part.

    Args:
        sampler: Config of the sampler.
        dataset: Of the loader.
        seed: Of the order and of the draws, unless the config has one.

    Attributes:
        start (int): How many samples of this process to leave out; no image of
            them is read.
    """

    def __init__(self, sampler: dict, dataset, seed: int | None = None) -> None:
        self.sampler = sampler
        self.dataset = dataset
        self.seed = seed or 0
        self.epoch = self.start = 0
        self.length = len(self._build())

    def _build(self) -> Any:
        cfg = dict(seed=self.seed, dataset=self.dataset) | self.sampler
        return DATA_SAMPLERS.build(cfg)

    def __iter__(self) -> Iterator[SampleIndex]:
        sampler = self._build()  # anew, as an InfiniteSampler has one life
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self.epoch)
        once = isinstance(sampler, (DefaultSampler, InfiniteSampler))
        numbers = count(sampler.rank, sampler.world_size)
        samples = zip(numbers, sampler, strict=False)
        for number, index in islice(samples, self.start, None):
            sample = SampleIndex(index)
            turn = number // len(self.dataset) if once else number
            sample.where = (sampler.seed, self.epoch, turn, int(index))
            yield sample

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the draws of an epoch."""
        self.epoch = epoch


class SeededDataset:
    """Wraps a data set: seeds the generators before a sample's transforms draw.

    In all else it is the data set: attributes are read from and set on it.

    Args:
        dataset: Config of the data set.
        num_workers: Of the loader.

    Attributes:
        loading (Tensor): int64 (max(1, num_workers),), in shared memory: the
            index that each worker is loading, -1 for none.
    """

    def __init__(self, dataset: dict, num_workers: int = 0) -> None:
        loading = torch.full((max(1, num_workers),), -1).share_memory_()
        self.__dict__.update(dataset=DATASETS.build(dataset), loading=loading)

    def __getattr__(self, name: str):
        if name.startswith('__') or 'dataset' not in self.__dict__:
            raise AttributeError(name)  # such as those that pickle asks for
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value) -> None:
        setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        if isinstance(index, SampleIndex):
            seed_generators(*index.where)
        worker = get_worker_info()
        slot = worker.id if worker else 0
        self.loading[slot] = index
        sample = self.dataset[int(index)]
        self.loading[slot] = -1
        return sample
