from collections import Counter

import torch

from mmdtm.morphing import Draw


def test_uniform_int__reaches_both_ends_alike_often():
    seen = Counter(Draw(7, step).uniform_int(3, 6, 'x') for step in range(2000))
    assert set(seen) == {3, 4, 5, 6}
    assert min(seen.values()) > 420  # 500 expected, four sigmas are 77


def test_purposes__choose_independently():
    pairs = {
        (Draw(0, s).uniform_int(0, 3, 'a'), Draw(0, s).uniform_int(0, 3, 'b'))
        for s in range(300)
    }
    assert len(pairs) == 16


def test_generator__repeats_itself():
    first = torch.rand(4, generator=Draw(1, 2, 3, 4).generator('x'))
    again = torch.rand(4, generator=Draw(1, 2, 3, 4).generator('x'))
    other = torch.rand(4, generator=Draw(1, 2, 3, 5).generator('x'))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_numbers__are_not_run_together():
    # Seed 1 at step 12 is not seed 11 at step 2.
    assert Draw(1, 12).generator('').initial_seed() != (
        Draw(11, 2).generator('').initial_seed()
    )
