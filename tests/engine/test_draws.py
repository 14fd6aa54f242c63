"""What a sample's transforms draw, whoever loads it and whatever came before."""

import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

import mmdtm.plugin  # noqa: F401
from mmdtm.engine import draws, loops
from mmdtm.engine.draws import SeededDataset, SeededSampler, seed_generators
from mmdtm.engine.loops import ExactLoop

SIZE = 10


@DATASETS.register_module()
class DrawingDataset:
    """Samples that are nothing but what they draw."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, size: int = SIZE) -> None:
        self.size, self.pipeline = size, None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple:
        assert type(index) is int, 'as without seeds; it goes into the meta data'
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def loader(workers: int = 0, sampler: str = 'DefaultSampler', **options) -> DataLoader:
    data = SeededDataset(dict(type='DrawingDataset'), workers)
    cfg = dict(type=sampler, **options)
    return DataLoader(
        data,
        batch_size=3,
        sampler=SeededSampler(cfg, data, seed=5),
        num_workers=workers,
        collate_fn=list,
        persistent_workers=workers > 0,
    )


def read(loader: DataLoader, epoch: int = 0, start: int = 0, samples: int = SIZE):
    loader.sampler.set_epoch(epoch)
    loader.sampler.start = start
    batches = iter(loader)
    rows = []
    while len(rows) < samples:
        batch = next(batches, None)
        if batch is None:
            break
        rows += batch
    return rows[:samples]


def as_process(monkeypatch, rank: int, world_size: int) -> None:
    for module in (
        'mmengine.dataset.sampler',
        'mmpretrain.datasets.samplers.repeat_aug',
    ):
        monkeypatch.setattr(f'{module}.get_dist_info', lambda: (rank, world_size))


@pytest.mark.parametrize('workers', [2, 4])
def test_the_number_of_workers_does_not_matter(workers):
    alone, several = loader(), loader(workers)
    for epoch in (0, 1):
        assert read(several, epoch) == read(alone, epoch)
    assert read(several, 0) == read(alone, 0), 'though the workers persist'


def test_draws_are_each_samples_and_epochs_own():
    rows = read(loader(), 0) + read(loader(), 1)
    for kind in (1, 2, 3):
        assert len({row[kind] for row in rows}) == 2 * SIZE
    assert sorted(row[0] for row in rows[:SIZE]) == list(range(SIZE))


def test_what_was_drawn_before_does_not_matter():
    first = read(loader())
    random.seed(), np.random.seed(), torch.rand(99)
    assert read(loader()) == first


def test_the_seed_matters():
    other = loader()
    other.sampler.seed = 6
    assert read(other) != read(loader())
    assert read(loader(seed=6)) == read(other), "a config's own seed wins"


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('start', [3, 4, SIZE])
def test_it_can_start_later_and_reads_nothing_of_what_was_before(workers, start):
    assert read(loader(workers), 1, start) == read(loader(), 1)[start:]


def test_the_order_is_that_of_the_sampler():
    for name, own in (
        ('DefaultSampler', DefaultSampler),
        ('InfiniteSampler', InfiniteSampler),
    ):
        expected = iter(own(range(SIZE), seed=5))
        rows = read(loader(sampler=name), samples=3 * SIZE)
        assert [row[0] for row in rows] == [next(expected) for _ in rows]


def test_an_infinite_sampler_draws_anew_in_each_turn():
    stream = loader(sampler='InfiniteSampler')
    rows = read(stream, samples=3 * SIZE)
    assert len({row[1] for row in rows}) == 3 * SIZE
    assert read(stream, samples=3 * SIZE) == rows, 'a stream can be begun again'
    assert read(stream, start=17, samples=5) == rows[17:22]


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
@pytest.mark.parametrize('world_size', [2, 3])
def test_processes_share_out_the_same_samples(monkeypatch, sampler, world_size):
    together = read(loader(sampler=sampler), samples=SIZE - SIZE % world_size)
    for rank in range(world_size):
        as_process(monkeypatch, rank, world_size)
        own = read(loader(sampler=sampler), samples=SIZE // world_size)
        assert own == together[rank::world_size]


def test_what_fills_up_the_last_batch_is_drawn_anew(monkeypatch):
    rows = []
    for rank in range(4):  # 10 samples become 12
        as_process(monkeypatch, rank, 4)
        rows += read(loader())
    assert len(rows) == 12
    assert len({row[0] for row in rows}) == SIZE
    assert len({row[1] for row in rows}) == 12


def test_repeated_augmentation_repeats_the_image_and_not_the_draw(monkeypatch):
    rows = []
    for rank in range(3):
        as_process(monkeypatch, rank, 3)
        rows += read(loader(sampler='mmpretrain.RepeatAugSampler'))
    assert len({row[0] for row in rows}) < len(rows) / 2
    assert len({row[1] for row in rows}) == len(rows)


def test_a_seeded_data_set_is_the_data_set_in_all_else():
    data = SeededDataset(dict(type='DrawingDataset'))
    assert len(data) == SIZE and data.metainfo['classes'] == ('a', 'b')
    data.pipeline = 'other'  # as hooks do that switch the pipeline
    assert data.dataset.pipeline == 'other'
    assert not hasattr(data, '__getitems__')
    copy = pickle.loads(pickle.dumps(data))  # as for workers that are not forked
    assert len(copy) == SIZE and copy[1][0] == 1


def test_all_generators_are_seeded(monkeypatch):
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_generators(1, 2)
    first = draw()
    assert draw() != first
    seed_generators(1, 2)
    assert draw() == first
    seed_generators(1, 3)
    assert not set(draw()) & set(first)
    seen = []
    monkeypatch.setattr(draws.torch, 'manual_seed', seen.append)
    seed_generators(1, 2, devices=False)
    assert not seen, 'a worker leaves the GPUs alone'
    seed_generators(1, 2, devices=True)
    assert len(seen) == 1


def test_each_step_of_each_process_draws_its_own(monkeypatch):
    def draw(rank: int, **changed) -> float:
        monkeypatch.setattr(loops, 'get_rank', lambda: rank)
        ExactLoop.seed_step(SimpleNamespace(**(dict(seed=1, _iter=2) | changed)))
        return random.random()

    draws = [draw(0), draw(1), draw(0, _iter=3), draw(0, seed=2)]
    assert len(set(draws)) == 4 and draw(0) == draws[0]


def test_the_seed_is_one_for_all_processes(monkeypatch):
    """Of which mmengine makes each rank's, with diff_rank_seed."""
    monkeypatch.setattr(loops, 'get_rank', lambda: 2)
    for options, seed in ((dict(diff_rank_seed=True), 7), (dict(), 5)):
        runner = SimpleNamespace(seed=seed, _randomness_cfg=options)
        assert ExactLoop.seed.fget(SimpleNamespace(runner=runner)) == 5
