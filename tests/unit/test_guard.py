"""The dead-letter guard: which outcomes stop a partition, and which never do."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from farandole.guard import Guard


def fed(outcomes, **how):
    """A guard after these outcomes: a fingerprint for a dead one, "" for any other."""
    guard = Guard(**how)
    for outcome in outcomes:
        feed(guard, outcome)
    return guard


def feed(guard, outcome):
    guard.last.append(outcome)
    if outcome:
        guard.died()


def test_the_twenty_first_dead_letter_of_one_cause_in_a_row_stops_the_partition():
    assert fed("x" * 20).stop is None
    stop = fed("x" * 21).stop
    assert str(stop) == "21 of 21 outcomes were dead of x"


def test_another_outcome_or_another_cause_breaks_the_row():
    assert fed(["x"] * 20 + [""] + ["x"] * 10).stop is None
    assert fed(["x"] * 20 + ["y"] + ["x"] * 9).stop is None


def test_more_than_thirty_of_the_last_hundred_of_one_cause_stop_it():
    assert fed(["x", "", ""] * 30).stop is None
    stop = fed(["x", "", ""] * 31).stop
    assert (stop.dead, stop.of) == (31, 91)


def test_several_causes_are_counted_each_for_itself():
    assert fed(["x", "y", "z", "w"] * 500).stop is None


def test_five_poison_records_in_a_thousand_never_stop_it():
    outcomes = ["x"] * 5 + [""] * 995
    for seed in range(50):
        random.Random(seed).shuffle(outcomes)
        assert fed(outcomes).stop is None


@given(st.lists(st.sampled_from(["", "x", "y"]), max_size=20))
def test_few_records_never_stop_it(outcomes):
    assert fed(outcomes).stop is None


@given(st.lists(st.sampled_from(["", "", "x", "x", "x", "y"]), max_size=400))
def test_it_stops_where_a_count_of_all_would_stop(outcomes):
    guard = Guard()
    for n, outcome in enumerate(outcomes, 1):
        so_far = outcomes[:n]
        feed(guard, outcome)
        in_a_row = outcome and so_far[-21:] == [outcome] * 21
        many = outcome and so_far[-100:].count(outcome) > 30
        assert (guard.stop is not None) == bool(in_a_row or many)
        if guard.stop:
            return


def test_one_that_is_off_stops_nothing():
    assert fed("x" * 500, on=False).stop is None
