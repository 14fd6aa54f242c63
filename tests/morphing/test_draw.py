from collections import Counter

import pytest
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
    assert torch.equal(first, again)
    for other in (Draw(1, 2, 3, 5).generator('x'), Draw(1, 2, 3, 4).generator('y')):
        assert not torch.equal(first, torch.rand(4, generator=other))


def test_numbers__are_not_run_together():
    # Seed 1 at step 12 is not seed 11 at step 2.
    assert Draw(1, 12).generator('').initial_seed() != (
        Draw(11, 2).generator('').initial_seed()
    )


def test_choose__draws_from_the_range_and_names_it():
    def chosen(span, high):
        return [Draw(0, step).choose(span, high, 'count') for step in range(60)]

    assert chosen((2, 4), 9) == [
        Draw(0, step).uniform_int(2, 4, 'count') for step in range(60)
    ]
    assert set(chosen((3, None), 5)) == {3, 4, 5}
    assert set(chosen(None, 3)) == {1, 2, 3}
    assert set(chosen(7, 9)) == {7} and set(chosen((1, 2), None)) == {1, 2}
    with pytest.raises(ValueError, match=r'count is 10. Give an int in \[1, 9\]'):
        chosen((2, 10), 9)
