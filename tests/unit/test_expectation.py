"""The machine of one expectation: every state and everything that can come, with the time as an argument."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.event import Interval
from farandole.expectation import (
    RANKS,
    TELLING,
    Arrival,
    Expectation,
    answers,
    arrived,
    covered,
    due_telling,
    judged,
    merged,
    waived,
)
from farandole.topics import EXPECTATIONS, own_schemas

DUE = datetime(2026, 11, 24, 11, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = Interval(datetime(2026, 11, 23, 5, tzinfo=UTC), datetime(2026, 11, 24, 5, tzinfo=UTC))
AROUND = Interval(DUE - 12 * HOUR, DUE + 12 * HOUR)
ROW = Expectation("mart@24", "mart", "mart", DUE, AROUND, "2026-11-24", HOUR / 2, DAY, pipeline="mart")
ANY = replace(ROW, interval=None)


def came(at: datetime, interval: Interval | None = DAY, proof: str = "r1") -> Arrival:
    return Arrival(at, interval, proof)


def test_what_came_by_the_deadline_is_met_and_what_came_after_is_late():
    assert arrived(ROW, [came(DUE)]).state == "met"
    assert arrived(ROW, [came(DUE + HOUR / 4)]).state == "met_late"
    assert arrived(ROW, [came(DUE + HOUR)]).arrived_at == DUE + HOUR


def test_nothing_is_missed_before_deadline_and_grace_and_from_then_on_it_is():
    assert judged(ROW, DUE + HOUR / 2 - timedelta(seconds=1)) == ROW
    assert judged(ROW, DUE + HOUR / 2).state == "missed"


def test_what_was_missed_comes_late_whatever_the_clocks_say():
    assert arrived(judged(ROW, DUE + HOUR), [came(DUE - HOUR)]).state == "met_late"


@pytest.mark.parametrize("state", ["met", "met_late", "waived"])
def test_a_closed_row_is_left_for_nothing(state):
    row = replace(ROW, state=state)
    assert arrived(row, [came(DUE)]) == judged(row, DUE + 9 * HOUR) == waived(row, "me", "why") == row


def test_a_person_can_waive_what_is_pending_or_missed_with_a_reason():
    for row in (ROW, replace(ROW, state="missed")):
        gone = waived(row, "ann", "bank holiday abroad")
        assert (gone.state, gone.actor, gone.reason) == ("waived", "ann", "bank holiday abroad")


def hours(first: int, last: int) -> Interval:
    return Interval(DAY.start + first * HOUR, DAY.start + last * HOUR)


def test_a_day_is_met_when_its_hours_leave_nothing_out():
    pieces = [came(DUE - HOUR, hours(n, n + 1), f"r{n}") for n in range(24)]
    assert arrived(ROW, pieces[:-1]) == ROW
    assert arrived(ROW, pieces[:5] + pieces[6:]) == ROW
    met = arrived(ROW, [*pieces[:5], *pieces[6:], replace(pieces[5], at=DUE + HOUR)])
    assert (met.state, len(met.proof)) == ("met_late", 24)


@given(st.lists(st.tuples(st.integers(-5, 28), st.integers(1, 30)), max_size=8))
def test_covered_is_what_counting_hours_says(spans):
    pieces = [hours(first, first + length) for first, length in spans]
    counted = {hour for first, length in spans for hour in range(first, first + length)}
    assert covered(DAY, pieces) == (set(range(24)) <= counted)


def test_another_days_data_is_no_answer_and_part_of_this_days_is():
    assert not answers(ROW, came(DUE, Interval(DAY.end, DAY.end + 24 * HOUR)))
    assert answers(ROW, came(DUE, hours(3, 4)))


def test_what_has_no_interval_counts_for_the_deadline_that_it_is_nearest_to():
    for row, about in ((ROW, None), (ANY, None), (ANY, DAY)):
        assert not answers(row, came(AROUND.start, about))
        assert answers(row, came(AROUND.start + timedelta(seconds=1), about))
        assert answers(row, came(AROUND.end, about))
        assert not answers(row, came(AROUND.end + timedelta(seconds=1), about))
    assert arrived(ANY, [came(DUE, None)]).state == "met"


ROWS = [replace(ROW, state=s, telling=t, attempt=n) for s, t, n in product(RANKS, TELLING, (0, 1, 2))]


@given(st.lists(st.sampled_from(ROWS), min_size=1, max_size=6), st.data())
def test_records_read_twice_or_folded_in_parts_come_to_the_same_row(records, data):
    def fold(rows, stands=None):
        for row in rows:
            stands = merged(stands, row)
        return stands

    stands = fold(records)
    assert fold(records, stands).state == stands.state
    assert RANKS[stands.state] == max(RANKS[r.state] for r in records)
    assert TELLING.index(stands.telling) == max(TELLING.index(r.telling) for r in records)
    assert merged(stands, stands) == stands


def test_of_two_that_take_the_telling_on_the_first_in_the_topic_has_it():
    one, other = (replace(ROW, state="missed", telling="alerting", teller=name, attempt=1) for name in "ab")
    assert merged(merged(ROW, one), other).teller == "a"
    assert merged(one, replace(other, attempt=2)).teller == "b"
    assert merged(replace(one, telling="alerted"), replace(other, attempt=2)).telling == "alerted"


def test_a_state_that_was_written_without_the_telling_keeps_it():
    told = replace(ROW, state="missed", telling="alerted", teller="a", attempt=1)
    late = replace(ROW, state="met_late", arrived_at=DUE)
    assert merged(told, late) == replace(late, telling="alerted", teller="a", attempt=1)


def day(n: int, state: str, telling: str = "", row: Expectation = ROW) -> Expectation:
    return replace(row, id=f"{n}", deadline=DUE + n * 24 * HOUR, state=state, telling=telling)


def tells(*rows: Expectation) -> list[tuple[str, str]]:
    return [(row.id, kind) for row, kind in due_telling(rows)]


def test_one_silence_is_told_once_and_the_next_one_again():
    assert tells(day(1, "missed"), day(2, "missed"), day(3, "missed")) == [("1", "missed")]
    assert tells(day(1, "missed", "alerted"), day(2, "missed"), day(3, "pending")) == []
    assert tells(day(1, "missed", "alerted"), day(2, "met"), day(3, "missed")) == [("3", "missed")]
    assert tells(day(1, "missed", "alerted"), day(2, "waived"), day(3, "missed")) == []


def test_what_was_told_is_resolved_when_it_came_or_was_waived_and_what_was_not_told_is_not():
    assert tells(day(1, "met_late", "alerted"), day(2, "waived", "alerted")) == [("1", "resolved"), ("2", "resolved")]
    assert tells(day(1, "met_late"), day(2, "met_late", "resolved"), day(3, "met")) == []


def test_where_any_arrival_will_do_a_later_one_ends_the_silence():
    assert tells(day(1, "missed", "alerted", ANY), day(2, "met", "", ANY)) == [("1", "resolved")]
    assert tells(day(1, "missed", "alerted"), day(2, "met")) == []


def test_who_has_taken_it_on_goes_on_until_it_is_told():
    assert tells(day(1, "missed", "alerting")) == [("1", "missed")]
    assert tells(day(1, "met_late", "resolving")) == [("1", "resolved")]


def test_a_row_survives_the_topic():
    schema = fastavro.parse_schema(own_schemas()[EXPECTATIONS])
    row = replace(waived(ROW, "ann", "why"), proof=("a", "b"), arrived_at=DUE, telling="alerted", attempt=2)
    for one in (row, ANY):
        assert fastavro.validate(one.record(), schema)
        assert Expectation.of(one.record()) == one
    assert {f["name"] for f in own_schemas()[EXPECTATIONS]["fields"]} == set(ROW.record())


def test_a_state_of_a_newer_sentinel_counts_as_pending():
    assert Expectation.of({**ROW.record(), "state": "hoped", "more": 1}) == ROW
