from collections import Counter

import pytest
from hypothesis import given
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


@given(st.data(), st.integers(1, 300), st.integers(1, 16))
def test_merge_schedule__reaches_what_can_be_reached(data, tokens, iters):
    morphed = data.draw(st.integers(1, tokens))
    schedule = merge_schedule(tokens, morphed, iters, reach_num_morphed=True)
    assert len(schedule) == iters
    fewest = tokens  # that iterations of at most half can leave
    for _ in range(iters):
        fewest -= fewest // 2
    assert tokens - sum(schedule) == max(morphed, fewest)
    assert effective_schedule(tokens, schedule) == schedule
    as_printed = merge_schedule(tokens, morphed, iters)
    if effective_schedule(tokens, as_printed) == as_printed:
        assert schedule == as_printed


@given(st.data(), st.integers(1, 300), st.integers(1, 16))
def test_merge_schedule__moves_what_is_too_much_one_iteration_back(data, tokens, iters):
    morphed = data.draw(st.integers(-(-tokens // 2**iters), tokens))
    schedule = list(merge_schedule(tokens, morphed, iters))
    for j in reversed(range(1, iters)):
        before = tokens - sum(schedule[:j])
        # Moving one back leaves one token fewer to halve: look again.
        while schedule[j] > before // 2:
            schedule[j] -= 1
            schedule[j - 1] += 1
            before -= 1
    reached = merge_schedule(tokens, morphed, iters, reach_num_morphed=True)
    assert reached == tuple(schedule)


def test_merge_schedule__reaching_by_hand():
    assert merge_schedule(20, 1, 5) == (3, 3, 3, 3, 7)  # 7 of 8 cannot merge
    assert merge_schedule(20, 1, 5, True) == (4, 8, 4, 2, 1)
    assert merge_schedule(20, 1, 4, True) == (4, 8, 4, 2)  # 2 are left
    assert merge_schedule(196, 98, 7, True) == (14,) * 7


def test_effective_schedule__by_hand():
    # 11 tokens can merge 5, the 6 left merge 3, the 3 left merge 1, then 1.
    assert effective_schedule(11, (10, 0, 0, 0, 0)) == (5, 3, 1, 1, 0)
    assert effective_schedule(11, (7, 1)) == (5, 3)
    assert effective_schedule(1, (1, 1)) == (0, 0)
    assert effective_schedule(5, ()) == ()
    # Of 12, 6 and 4 tokens 11, 5 and 3 can pair up.
    assert effective_schedule(12, (6, 2, 2), class_token=True) == (5, 3, 1)


def loop_schedule(num_tokens, schedule, class_token, carry):
    merges, over = [], 0
    for asked in schedule:
        pairs = (num_tokens - 1 if class_token else num_tokens) // 2
        wanted = asked + over if carry else asked
        merges.append(min(wanted, pairs))
        over = wanted - merges[-1]
        num_tokens -= merges[-1]
    return tuple(merges)


@given(st.integers(1, 300), st.lists(st.integers(0, 200), max_size=15), st.booleans())
def test_effective_schedule__carries_what_is_over(n, schedule, class_token):
    merges = effective_schedule(n, schedule, class_token)
    assert merges == loop_schedule(n, schedule, class_token, carry=True)
    # Where no iteration is asked for less than the one before, forgetting what
    # is over, as the authors' release does, comes to the same.
    schedule = sorted(schedule)
    merges = effective_schedule(n, schedule, class_token)
    assert merges == loop_schedule(n, schedule, class_token, carry=False)


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
    assert schedule.draw(3, 10) == schedule.draw(3, 10, level=0, rank=0)
    assert schedule.draw(3, 10) != schedule.draw(3, 10, level=1)


def test_dynamic_schedule__draws_stay_what_they_are():
    # A run that began with an earlier version must go on with the same draws.
    schedule = DynamicSchedule(196)
    drawn = [schedule.draw(0, step, level) for step in range(2) for level in range(2)]
    sizes = [(196 - sum(d), len(d)) for d in drawn]
    assert sizes == [(174, 10), (195, 4), (163, 6), (171, 5)]


def test_dynamic_schedule__takes_another_ranks_iterations():
    schedule = DynamicSchedule(196)
    for step in range(20):
        own, other = (schedule.draw(0, step, 1, rank) for rank in (2, 5))
        mixed = schedule.draw(0, step, 1, 2, iters_rank=5)
        assert (len(mixed), sum(mixed)) == (len(other), sum(own))


def test_dynamic_schedule__fixed_numbers():
    assert DynamicSchedule(1, 1, 3).draw(0, 0) == (0, 0, 0)
    assert DynamicSchedule(196, 98, 7).draw(5, 6, 7, 8) == (14,) * 7


def test_dynamic_schedule__reaches_every_number_it_draws():
    printed = DynamicSchedule(16, None, (2, 6))
    reaching = DynamicSchedule(16, None, (2, 6), reach_num_morphed=True)
    lengths = {}
    for step in range(3000):
        drawn = 16 - sum(printed.draw(0, step))  # asked, whether reached or not
        schedule = reaching.draw(0, step)
        assert 16 - sum(effective_schedule(16, schedule)) == drawn
        lengths.setdefault(drawn, set()).add(len(schedule))
    # One token needs four iterations, two need three, four and more need two.
    assert lengths[1] == {4, 5, 6}
    assert lengths[2] == lengths[3] == {3, 4, 5, 6}
    assert all(lengths[m] == {2, 3, 4, 5, 6} for m in range(4, 17))


@given(st.data(), st.integers(1, 300))
def test_dynamic_schedule__has_iterations_enough(data, tokens):
    morphed = data.draw(st.integers(1, tokens))
    needed, left = 1, (tokens + 1) // 2  # one iteration, at least
    while left > morphed:
        needed, left = needed + 1, (left + 1) // 2
    reaching = DynamicSchedule(tokens, None, (1, 14), reach_num_morphed=True)
    assert reaching.iters_for(morphed) == (needed, 14)
    assert DynamicSchedule(tokens).iters_for(morphed) == (1, 14)


def test_dynamic_schedule__comes_as_near_as_its_iterations_can():
    schedule = DynamicSchedule(16, 1, (1, 3), reach_num_morphed=True)
    assert {schedule.draw(0, step) for step in range(20)} == {(8, 4, 2)}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, 1, 1), 'num_tokens is 0. Give an int at least 1'),
        ((4, 5, 1), r'num_morphed is 5. Give an int in \[1, 4\]'),
        ((4, 0, 1), r'num_morphed is 0. Give an int in \[1, 4\]'),
        ((4, 2, 0), 'num_iters is 0. Give an int at least 1'),
        ((4, 2.0, 1), 'num_morphed is .* Give an int'),
        ((4, True, 1), 'num_morphed is .* Give an int'),
    ],
)
def test_merge_schedule__refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge_schedule(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((4, (1, -1)), r'schedule\[1\] is -1. Give an int at least 0'),
        ((4, (1.5,)), r'schedule\[0\] is .* Give an int'),
        ((0, ()), 'num_tokens is 0. Give an int at least 1'),
        ((4, 3), 'schedule is .* Give a sequence of ints'),
        ((4, '11'), 'schedule is .* Give a sequence of ints'),
    ],
)
def test_effective_schedule__refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        effective_schedule(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_morphed=(1, 197)), r'num_morphed is .* Give an int in \[1, 196\]'),
        (dict(num_tokens=0), 'num_tokens is 0. Give an int at least 1'),
        (dict(num_morphed=200), r'num_morphed is 200. Give an int in \[1, 196\]'),
        (dict(num_morphed=(0, 4)), r'num_morphed is .* Give an int in \[1, 196\]'),
        (dict(num_morphed=(9, 4)), r'\(9, 4\) is an empty range. Put the lower'),
        (dict(num_morphed=(9,)), r'is \(9,\). Give an int or a pair'),
        (dict(num_morphed='98'), "is '98'. Give an int"),
        (dict(num_morphed=(0.5, 98)), 'Give an int'),
        (dict(num_iters=(0, 14)), 'num_iters is .* Give an int at least 1'),
        (dict(num_iters=(3, None)), 'num_iters is .* Give an int at least 1'),
        (dict(num_iters=None), 'num_iters is .* Give an int at least 1'),
    ],
)
def test_dynamic_schedule__refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        DynamicSchedule(**(dict(num_tokens=196) | arguments))
