"""Which runs of a span are missing, and the exact offsets that bring them about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from farandole.backfill import Unit, absent, plan_backfill
from farandole.errors import FarandoleError
from farandole.event import Envelope, Event, Interval, Position, RawRecord
from farandole.orders import Order, Range
from farandole.planning import Seen

TOPIC = "a.b.c.v1"
START, END = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 2, 1, tzinfo=UTC)
DAY = timedelta(1)


def interval(day):
    return Interval(START + (day - 1) * DAY, START + day * DAY)


class Planner:
    """A planner that has seen these: offset, day (None: no interval), signal, what became of it."""

    def __init__(self, *told, join=False):
        self.told, self.notes = told, []
        self.declaration = SimpleNamespace(join=object() if join else None)
        self.matcher = SimpleNamespace(needed=("left", "right") if join else ("one",))
        self.joined = join

    def ranges(self):
        return [Range(TOPIC, "T", 0, 0, 100)]

    def unit(self, seen):
        value = seen.event.value
        return str(value.get("interval")).encode() if self.joined else b"%d" % seen.raw.offset

    def seen(self, _order):
        for offset, day, signal, stands in self.told:
            raw = RawRecord(TOPIC, "T", 0, offset)
            value = {} if day is None else {"interval": interval(day).record()}
            event = Event(Envelope("i", "s", TOPIC), Position(TOPIC, "T", 0, offset), value)
            yield Seen(raw, stands, "", event if signal else None, signal, b"k")


def planned(planner, only="missing,failed"):
    return plan_backfill(planner, Order("o", "p", (), "backfill"), START, END, only)


def runs(found):
    return [one.only for one in found.prospect.order.stretches]


ONE_EACH = [
    (0, 1, "one", "done"),
    (1, 2, "one", "missing"),
    (3, 3, "one", "missing"),
    (4, 4, "", "missing"),
    (5, 5, "one", "dead"),
    (6, 6, "one", "parked"),
    (7, 40, "one", "missing"),
]


@pytest.mark.parametrize(
    ("only", "offsets", "count"),
    [
        ("missing,failed", ((1, 3), (5, 5)), 3),
        ("missing", ((1, 3),), 2),
        ("failed", ((5, 5),), 1),
        ("all", ((0, 3), (5, 5)), 4),
    ],
)
def test_only_what_is_wanted_is_ordered_by_exact_offsets(only, offsets, count):
    found = planned(Planner(*ONE_EACH), only)
    assert (runs(found), found.prospect.runs) == ([offsets], count)
    assert found.prospect.order.events == found.prospect.events == count


def test_a_joined_run_is_done_if_any_of_its_events_came_to_something_and_whole_or_not_at_all():
    found = planned(
        Planner(
            (0, 1, "left", "done"), (1, 1, "right", "done"), (2, 1, "left", "waiting"),
            (3, 2, "left", "missing"), (4, 2, "right", "missing"),
            (5, 3, "left", "missing"),
            (6, 4, "left", "waiting"),
            (7, 5, "left", "dead"), (8, 5, "right", "dead"),
            join=True,
        )
    )  # fmt: skip
    assert dict(found.prospect.before) == {"done": 1, "missing": 1, "incomplete": 1, "under way": 1, "failed": 1}
    assert (runs(found), found.prospect.runs) == ([((3, 4), (7, 8))], 2)


def test_events_without_an_interval_are_refused_with_a_remedy_unless_others_have_one():
    with pytest.raises(FarandoleError, match="no data interval"):
        planned(Planner((0, None, "one", "missing")))
    assert planned(Planner((0, None, "one", "missing"), (1, 2, "one", "missing"))).prospect.runs == 1


def test_a_plan_has_another_name_as_soon_as_something_has_happened():
    before, same = planned(Planner(*ONE_EACH)), planned(Planner(*ONE_EACH))
    after = planned(Planner(*ONE_EACH[:1], (1, 2, "one", "done"), *ONE_EACH[2:]))
    assert before.id == same.id != after.id


def test_intervals_without_any_event_are_named_where_all_have_one_length():
    known = [interval(day) for day in range(1, 32) if day not in (7, 9)]
    assert absent(known, START, END) == [interval(7), interval(9)]
    assert absent([*known, Interval(START, START + 2 * DAY)], START, END) == []
    assert absent([], START, END) == []
    assert absent([interval(3)], START, START + 4 * DAY) == [interval(1), interval(2), interval(4)]


def test_an_effect_in_doubt_is_a_failure():
    assert Unit(interval(1), {"uncertain", "missing"}).state == "failed"
