from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdtm.morphing import DynamicSchedule, effective_schedule, merge_schedule


@given(st.data(), st.integers(1, 400), st.integers(1, 30))
def test_merge_schedule__sums_to_the_merges(data, tokens, iters):
    morphed = data.draw(st.integers(1, tokens))
    schedule = merge_schedule(tokens, morphed, iters)
    assert len(schedule) == iters
    assert sum(schedule) == tokens - morphed
    assert set(schedule[:-1]) <= {(tokens - morphed) // iters}
    assert schedule[-1] >= (tokens - morphed) // iters


def test_merge_schedule__by_hand():
    assert merge_schedule(196, 98, 7) == (14,) * 7
    assert merge_schedule(196, 96, 7) == (14,) * 6 + (16,)
    assert merge_schedule(196, 196, 3) == (0, 0, 0)
    assert merge_schedule(196, 194, 3) == (0, 0, 2)


def test_effective_schedule__by_hand():
    # 11 tokens can merge 5, the 6 left merge 3, the 3 left merge 1, then 1.
    assert effective_schedule(11, (10, 0, 0, 0, 0)) == (5, 3, 1, 1, 0)
    assert effective_schedule(11, (10, 0, 0), 'drop') == (5, 0, 0)
    assert effective_schedule(11, (7, 1), 'carry') == (5, 3)
    assert effective_schedule(11, (7, 1), 'drop') == (5, 1)
    assert effective_schedule(1, (1, 1)) == (0, 0)
    assert effective_schedule(5, ()) == ()


@given(
    st.integers(1, 300),
    st.lists(st.integers(0, 200), max_size=15),
    st.sampled_from(['carry', 'drop']),
)
def test_effective_schedule__never_merges_more_than_there_is(n, schedule, overflow):
    merges = effective_schedule(n, schedule, overflow)
    assert len(merges) == len(schedule)
    asked = done = 0
    for j, merged in enumerate(merges):
        half = (n - done) // 2
        wanted = schedule[j] if overflow == 'drop' else asked + schedule[j] - done
        assert merged == min(half, wanted)
        asked, done = asked + schedule[j], done + merged
    assert n - done >= 1


@given(st.integers(1, 300), st.lists(st.integers(0, 200), max_size=15).map(sorted))
def test_effective_schedule__need_not_carry_what_never_falls(n, schedule):
    dropped = effective_schedule(n, schedule, 'drop')
    assert effective_schedule(n, schedule, 'carry') == dropped


def test_dynamic_schedule__draws_all_in_range_alike_often():
    schedule = DynamicSchedule(5, (2, 4), (1, 3))
    seen = Counter()
    for step in range(1800):
        merges = schedule.draw(0, step)
        seen[(5 - sum(merges), len(merges))] += 1
    assert set(seen) == {(m, k) for m in (2, 3, 4) for k in (1, 2, 3)}
    assert min(seen.values()) > 140  # 200 expected, four sigmas are 53
    assert max(seen.values()) < 260


def test_dynamic_schedule__draws_depend_on_each_number():
    schedule = DynamicSchedule(196)
    start = (3, 10, 1, 2)
    draws = {
        tuple(schedule.draw(3, 10 + i, 1, 2) for i in range(5)),
        tuple(schedule.draw(4, 10 + i, 1, 2) for i in range(5)),
        tuple(schedule.draw(3, 20 + i, 1, 2) for i in range(5)),
        tuple(schedule.draw(3, 10 + i, 0, 2) for i in range(5)),
        tuple(schedule.draw(3, 10 + i, 1, 1) for i in range(5)),
    }
    assert len(draws) == 5
    assert schedule.draw(*start) == DynamicSchedule(196).draw(*start)


def test_dynamic_schedule__draws_stay_what_they_are():
    # A run that began with an earlier version must go on with the same draws.
    schedule = DynamicSchedule(196)
    drawn = [schedule.draw(0, step, level) for step in range(2) for level in range(2)]
    sizes = [(196 - sum(d), len(d)) for d in drawn]
    assert sizes == [(174, 10), (195, 4), (163, 6), (171, 5)]


def test_dynamic_schedule__fixed_numbers():
    assert DynamicSchedule(196, 98, 7).draw(5, 6, 7, 8) == (14,) * 7


@settings(max_examples=60)
@given(st.integers(1, 50), st.integers(0, 10**6))
def test_dynamic_schedule__release_rounding(tokens, step):
    for rounding in ('ceil', 'floor'):
        schedule = DynamicSchedule(tokens, (0, None), (1, 14), rounding)
        merges = schedule.draw(1, step)
        exact = DynamicSchedule(tokens, (1, None), (1, 14)).draw(1, step)
        assert len(set(merges)) == 1
        assert len(merges) == len(exact)
        assert sum(merges) <= tokens


def test_dynamic_schedule__ceil_and_floor_by_hand():
    assert DynamicSchedule(196, 96, 7, 'ceil').draw(0, 0) == (15,) * 7
    assert DynamicSchedule(196, 96, 7, 'floor').draw(0, 0) == (14,) * 7
    assert DynamicSchedule(196, 0, 1, 'ceil').draw(0, 0) == (196,)
    # 11 times 18 would be more than 196.
    assert DynamicSchedule(196, 1, 11, 'ceil').draw(0, 0) == (17,) * 11


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, 1, 1), 'num_tokens must be at least 1, got 0'),
        ((4, 5, 1), r'num_morphed must be in \[1, 4\], got 5'),
        ((4, 0, 1), r'num_morphed must be in \[1, 4\], got 0'),
        ((4, 2, 0), 'num_iters must be at least 1, got 0'),
        ((4, 2.0, 1), 'num_morphed must be an int'),
        ((4, True, 1), 'num_morphed must be an int'),
    ],
)
def test_merge_schedule__refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge_schedule(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((4, (1, -1)), r'schedule\[1\] must be at least 0, got -1'),
        ((4, (1.5,)), r'schedule\[0\] must be an int'),
        ((4, 3), 'schedule must be a sequence of ints'),
        ((4, '11'), 'schedule must be a sequence of ints'),
        ((4, (1,), 'keep'), "overflow must be one of .* got 'keep'"),
    ],
)
def test_effective_schedule__refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        effective_schedule(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_morphed=(1, 197)), r'num_morphed must be in \[1, 196\]'),
        (dict(num_morphed=200), r'num_morphed must be in \[1, 196\], got 200'),
        (dict(num_morphed=(0, 4)), r'num_morphed must be in \[1, 196\]'),
        (dict(num_morphed=(9, 4)), r'\(9, 4\) is an empty range'),
        (dict(num_morphed=(9,)), r'pair \(lowest, highest\), got \(9,\)'),
        (dict(num_morphed='98'), "got '98'"),
        (dict(num_morphed=(0.5, 98)), 'must be an int'),
        (dict(num_iters=(0, 14)), 'num_iters must be at least 1'),
        (dict(num_iters=(3, None)), 'num_iters must be an int at least 1'),
        (dict(num_iters=None), 'num_iters must be an int at least 1'),
        (dict(rounding='round'), "got 'round'"),
    ],
)
def test_dynamic_schedule__refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        DynamicSchedule(196, **arguments)
