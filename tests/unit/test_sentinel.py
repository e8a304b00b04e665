"""Sentinels on a topic that is a list: restarted, doubled and killed anywhere, they leave the same rows and one alert."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farandole import Expect
from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable, FarandoleError
from farandole.event import Interval, RawRecord
from farandole.expectation import Arrival, Expectation, waived
from farandole.kafka.expectations import Expectations
from farandole.sentinel import LEASE, Arrivals, Sentinel
from farandole.sources.deadlines import Expected

START = datetime(2026, 11, 24, 5, tzinfo=UTC)  # a Tuesday
DAILY = Expected("mart", Expect("06:30 UTC", grace="30m"), pipeline="mart")
ANY = Expected("mart", Expect("06:30 UTC", grace="30m", interval="any"), pipeline="mart")
XNYS = Expected("mart", Expect("06:30 America/New_York", each="XNYS", grace="30m"), pipeline="mart")
HOUR = timedelta(hours=1)


class Killed(BaseException):
    """SIGKILL: nothing after it is executed."""


class Codec:
    """Rows travel as they are."""

    @staticmethod
    def encode(_topic, record):
        return record

    @staticmethod
    def decode(_topic, value, _headers):
        return value


class Topic:
    """The records of a topic: what is sent stands at once, and each reader goes through it by itself."""

    def __init__(self) -> None:
        self.records: list[RawRecord] = []
        self.left: int | None = None  # records that may still be sent before the writer is killed

    def send(self, records) -> None:
        for record in records:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Killed
            self.records.append(RawRecord("t", "t", 0, len(self.records), 0, record.key, record.value))

    def tail(self):
        topic = self

        class Tail:
            at = 0

            def fresh(self):
                self.at, found = len(topic.records), topic.records[self.at :]
                return found

            def rewind(self, _milliseconds):
                self.at = 0

        return Tail()


class World:
    """A topic, a ledger of arrivals, a clock, and what was told."""

    def __init__(self, *expected: Expected) -> None:
        self.topic, self.expected, self.clock = Topic(), expected or (DAILY,), ManualClock(START)
        self.done: list[Arrival] = []
        self.told: list[tuple[str, str]] = []
        self.fails = 0
        self.away = False

    def sentinel(self, name: str = "one", *expected: Expected) -> Sentinel:
        at = 0

        def fresh():
            nonlocal at
            if self.away:
                raise BrokerUnreachable("away")
            at, found = len(self.done), self.done[at:]
            return [(lambda row: row.pipeline == "mart", one) for one in found]

        def rewind(_milliseconds):
            nonlocal at
            at = 0

        def tell(row: Expectation, kind: str) -> None:
            if self.fails:
                self.fails -= 1
                raise FarandoleError("not taken")
            self.told.append((row.day, kind))

        book = Expectations(self.topic.tail(), Codec(), self.topic.send)
        return Sentinel(
            expected or self.expected,
            book,
            [Arrivals(fresh, rewind)],
            tell,
            self.clock,
            lambda *_, **__: None,
            name=name,
        )

    def rows(self) -> dict[str, Expectation]:
        """By day, folded."""
        book = Expectations(self.topic.tail(), Codec(), self.topic.send)
        book.read()
        return {row.day: row for row in book.rows.values()}

    def states(self) -> dict[str, str]:
        return {day: row.state for day, row in sorted(self.rows().items())}

    def come(self, day: int, at: datetime | None = None) -> None:
        midnight = 5 if XNYS in self.expected else 0
        start = datetime(2026, 11, day, midnight, tzinfo=UTC)
        self.done.append(Arrival(at or self.clock.now(), Interval(start, start + 24 * HOUR), f"run-{len(self.done)}"))

    def to(self, day: int, hour: int, minute: int = 0) -> None:
        self.clock.advance((datetime(2026, 11, day, hour, minute, tzinfo=UTC) - self.clock.now()).total_seconds())


def settle(*sentinels: Sentinel) -> None:
    """Sweep in turn until none has anything left to do."""
    for _ in range(40):
        if sum(one.sweep() for one in sentinels) == 0:
            return
    raise AssertionError("they write for ever")


def test_rows_are_written_ahead_and_not_again():
    world = World()
    one = world.sentinel()
    settle(one)
    assert world.states() == {"2026-11-24": "pending", "2026-11-25": "pending"}
    settle(one, world.sentinel("two"))
    assert len(world.topic.records) == 2


def test_the_next_two_are_written_also_across_a_long_weekend():
    world = World(XNYS)
    world.to(25, 12)
    settle(world.sentinel())
    assert list(world.states()) == ["2026-11-27", "2026-11-30"]


def test_what_comes_in_time_is_met_and_nobody_is_told():
    world = World()
    one = world.sentinel()
    settle(one)
    world.come(23)
    settle(one)
    world.to(24, 8)
    settle(one)
    assert world.states()["2026-11-24"] == "met"
    assert world.rows()["2026-11-24"].proof == ("run-0",)
    assert world.told == []


def test_what_came_before_the_sentinel_first_ran_is_met():
    world = World()
    world.come(23, START - HOUR)
    settle(world.sentinel())
    assert world.states()["2026-11-24"] == "met"


def test_a_feed_that_never_sent_anything_is_missed_at_deadline_and_grace_told_once_and_resolved_when_it_comes():
    world = World()
    one = world.sentinel()
    settle(one)
    world.to(24, 6, 59)
    settle(one)
    assert (world.states()["2026-11-24"], world.told) == ("pending", [])
    world.to(24, 7, 0)
    settle(one)
    settle(one)
    assert (world.states()["2026-11-24"], world.told) == ("missed", [("2026-11-24", "missed")])
    world.to(24, 10)
    world.come(23)
    settle(one)
    settle(one)
    assert world.states()["2026-11-24"] == "met_late"
    assert world.told == [("2026-11-24", "missed"), ("2026-11-24", "resolved")]


def test_a_holiday_is_not_red():
    world = World(XNYS)
    one = world.sentinel()
    for day in range(24, 29):  # Thanksgiving is the 26th, the 28th a Saturday
        world.to(day, 11)
        world.come(day - 1)
        settle(one)
    world.to(29, 23)
    settle(one)
    assert world.states() == {
        "2026-11-24": "met", "2026-11-25": "met", "2026-11-27": "met", "2026-11-30": "met", "2026-12-01": "pending"
    }  # fmt: skip
    assert world.told == []


def test_a_silence_of_days_is_one_alert():
    world = World()
    one = world.sentinel()
    settle(one)
    for day in (24, 25, 26):
        world.to(day, 8)
        settle(one)
    assert world.told == [("2026-11-24", "missed")]
    world.come(23)
    settle(one)
    assert world.told[1:] == [("2026-11-24", "resolved"), ("2026-11-25", "missed")]


def test_a_sentinel_that_was_away_for_days_catches_up_on_what_was_due():
    world = World()
    settle(world.sentinel())
    world.to(28, 8)
    world.come(26, datetime(2026, 11, 27, 5, tzinfo=UTC))
    settle(world.sentinel("later"))
    assert world.states() == {
        "2026-11-24": "missed", "2026-11-25": "missed", "2026-11-26": "missed", "2026-11-27": "met",
        "2026-11-28": "missed", "2026-11-29": "pending", "2026-11-30": "pending",
    }  # fmt: skip


def test_of_two_sentinels_one_tells():
    world = World()
    one, two = world.sentinel("one"), world.sentinel("two")
    settle(one, two)
    world.to(24, 8)
    settle(one, two)
    settle(two, one)
    assert world.told == [("2026-11-24", "missed")]


def test_what_one_has_taken_on_and_never_told_another_tells_after_the_lease():
    world = World()
    one, two = world.sentinel("one"), world.sentinel("two")
    settle(one, two)
    world.to(24, 8)
    one.sweep()
    one.sweep()  # it says that it will tell, and dies
    settle(two)
    assert world.told == []
    world.clock.advance(LEASE)
    settle(two)
    assert world.told == [("2026-11-24", "missed")]


def test_an_alert_that_no_route_took_is_tried_again():
    world = World()
    one = world.sentinel()
    settle(one)
    world.to(24, 8)
    world.fails = 2
    for _ in range(3):
        settle(one)
        world.clock.advance(LEASE)
    assert world.told == [("2026-11-24", "missed")]


def test_a_waived_day_stays_waived_and_the_alert_is_resolved():
    world = World()
    one = world.sentinel()
    settle(one)
    world.to(24, 8)
    settle(one)
    book = Expectations(world.topic.tail(), Codec(), world.topic.send)
    book.read()
    row = next(row for row in book.rows.values() if row.state == "missed")
    book.write([waived(row, "ann", "no flights")])
    settle(one)
    world.come(23)
    settle(one)
    assert world.states()["2026-11-24"] == "waived"
    assert world.told == [("2026-11-24", "missed"), ("2026-11-24", "resolved")]


def test_what_is_not_expected_any_more_ends_and_does_not_go_red():
    world = World()
    settle(world.sentinel())
    other = Expected("mart", Expect("09:00 UTC"), pipeline="mart")
    settle(world.sentinel("newer", other))
    world.to(24, 8)
    settle(world.sentinel("newest", other))
    assert world.told == []
    assert {row.deadline.hour for row in world.rows().values()} == {9}


def test_a_grace_that_is_declared_anew_holds_for_what_still_waits():
    world = World()
    settle(world.sentinel())
    settle(world.sentinel("newer", Expected("mart", Expect("06:30 UTC", grace="2h"), pipeline="mart")))
    world.to(24, 8)
    settle(world.sentinel("newest", Expected("mart", Expect("06:30 UTC", grace="2h"), pipeline="mart")))
    assert world.states()["2026-11-24"] == "pending"


def test_where_kafka_is_away_nothing_is_judged():
    world = World()
    one = world.sentinel()
    settle(one)
    world.to(24, 8)
    world.away = True
    with pytest.raises(BrokerUnreachable):
        one.sweep()
    world.come(23, datetime(2026, 11, 24, 6, tzinfo=UTC))
    world.away = False
    settle(one)
    assert (world.states()["2026-11-24"], world.told) == ("met", [])


def test_what_is_away_is_waited_for(monkeypatch):
    monkeypatch.setattr("farandole.sentinel.BACKOFF", 0)
    world = World()
    book, stop = Expectations(world.topic.tail(), Codec(), world.topic.send), threading.Event()
    left = [BrokerUnreachable("away"), BrokerUnreachable("away")]

    def fresh():
        if left:
            raise left.pop()
        stop.set()
        return []

    lines: list[str] = []
    source = Arrivals(fresh, lambda _: None)
    Sentinel([DAILY], book, [source], print, world.clock, lambda line, **_: lines.append(line), name="one").run(stop)
    assert lines.count("sentinel.waits") == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["one", "two"])), min_size=1, max_size=8))
def test_killed_anywhere_and_started_again_they_leave_the_same_rows(kills):
    """Each kill lets so many records through; whoever is killed comes back as new, knowing nothing."""
    world, calm = World(), World()
    running = {"one": world.sentinel("one"), "two": world.sentinel("two")}
    steady = calm.sentinel()
    for step, (left, who) in enumerate(kills):
        for each in (world, calm):
            each.to(24 + step // 2, 6 if step % 2 == 0 else 8)
            if step % 3 == 0:
                each.come(23 + step // 2)
        settle(steady)
        world.topic.left = left
        try:
            settle(running[who])
        except Killed:
            world.topic.left = None
            running[who] = world.sentinel(f"{who}-{step}")
        world.topic.left = None
        settle(*running.values())
        world.clock.advance(0)
    for each in (world, calm):
        each.clock.advance(2 * LEASE)
    settle(*running.values())
    settle(steady)
    assert world.states() == calm.states()
    assert set(world.told) >= set(calm.told)


def test_what_compaction_keeps_is_all_that_stands():
    world = World()
    one, two = world.sentinel("one"), world.sentinel("two")
    settle(one, two)
    world.to(24, 8)
    for each in (one, two, one, two):
        each.sweep()
    world.come(23)
    settle(one, two)
    folded = world.rows()
    newest = {record.key: record for record in world.topic.records}
    world.topic.records = list(newest.values())
    assert {day: replace(row, teller="") for day, row in world.rows().items()} == {
        day: replace(row, teller="") for day, row in folded.items()
    }
