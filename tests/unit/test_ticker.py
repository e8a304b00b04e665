"""The clock on a topic that is a list: several of them, killed anywhere, leave every declared tick, each one event."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable
from farandole.event import Envelope, RawRecord, Record
from farandole.ids import spread, tick_id
from farandole.sources.schedule import EVENT_SOURCE, Schedule
from farandole.ticker import Ticker, last_ticks
from farandole.topics import TICKS

START = datetime(2026, 10, 24, 20, tzinfo=UTC)
HOURLY = Schedule("hourly", "0 * * * *", "Europe/Paris", START)
NIGHTLY = Schedule("nightly", "30 2 * * *", "Europe/Paris", START)
OFTEN = Schedule("often", "*/10 * * * *", "America/New_York", START)
BOTH = (HOURLY, NIGHTLY)
NEVER = threading.Event()


class Killed(BaseException):
    """SIGKILL: nothing after it is executed."""


class Topic:
    """The records of a topic, as a reader sees them, and what stands between a clock and it."""

    def __init__(self, partitions: int = 3) -> None:
        self.partitions: list[list[RawRecord]] = [[] for _ in range(partitions)]
        self.reads: list[dict[int, int]] = []

    def append(self, record: Record) -> None:
        partition = spread(record.key or b"", len(self.partitions))
        there = self.partitions[partition]
        there.append(RawRecord(TICKS, "t", partition, len(there), 0, record.key, record.value, record.headers))

    def send(self, records):
        for record in records:
            self.append(record)

    def starts(self):
        return dict.fromkeys(range(len(self.partitions)), 0)

    def ends(self):
        return {p: len(records) for p, records in enumerate(self.partitions)}

    def read(self, offsets, *, until):
        self.reads.append(dict(offsets))
        for partition, start in offsets.items():
            yield self.partitions[partition][start : until[partition]]

    def everything(self) -> list[RawRecord]:
        return [record for partition in self.partitions for record in partition]

    def events(self) -> dict[str, set[bytes]]:
        """What stands there by id, copies of one id together."""
        found: defaultdict[str, set[bytes]] = defaultdict(set)
        for record in self.everything():
            found[header(record, "ce_id")].add(record.value)
        return found


def header(record, name: str) -> str:
    return (dict(record.headers).get(name) or b"").decode(errors="replace")


def encode(_: str, record) -> bytes:
    return repr(record).encode()


def a_clock(topic, clock, schedules=BOTH, send=None, **more) -> Ticker:
    return Ticker(schedules, topic, encode, send or topic.send, clock, lambda *_, **__: None, **more)


def declared(schedules, now) -> set[str]:
    return {t.id for s in schedules for t in s.ticks(s.since - timedelta(seconds=1), now)}


def test_a_clock_tells_what_is_due_and_another_one_only_what_the_topic_does_not_have():
    topic, clock = Topic(), ManualClock(START + timedelta(hours=6))

    a_clock(topic, clock).run(threading.Event(), until_drained=True)
    first = len(topic.everything())
    a_clock(topic, clock).run(threading.Event(), until_drained=True)

    assert len(topic.everything()) == first == len(declared(BOTH, clock.now())) == 8
    assert topic.events().keys() == declared(BOTH, clock.now())


def test_a_tick_is_an_event_whose_key_is_its_schedule_and_whose_time_is_nominal():
    topic = Topic()
    a_clock(topic, ManualClock(START), [HOURLY]).run(threading.Event(), until_drained=True)
    (record,) = topic.everything()

    assert record.key == b"hourly"
    assert header(record, "ce_id") == header(record, "ce_correlationid") == tick_id("hourly", START)
    assert (header(record, "ce_source"), header(record, "ce_type")) == ("/farandole/clock", "clock.ticked.v1")
    assert header(record, "ce_time") == "2026-10-24T20:00:00.000Z"
    assert header(record, "ce_subject") == "hourly/2026-10-24T20:00:00.000Z"


def test_what_is_caught_up_says_so_in_a_header_and_is_the_same_event():
    on_time, late = Topic(), Topic()
    a_clock(on_time, ManualClock(START), [HOURLY]).run(threading.Event(), until_drained=True)
    a_clock(late, ManualClock(START + timedelta(minutes=2)), [HOURLY]).run(threading.Event(), until_drained=True)

    assert [header(record, "ce_catchup") for record in (*on_time.everything(), *late.everything())] == ["", "true"]
    assert on_time.events() == late.events()


steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # which clock
        st.integers(0, 20),  # minutes that pass before
        st.integers(0, 12),  # records that it sends before it is killed; 12: it lives on
        st.booleans(),  # whether it has read what the others told
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_clocks_that_are_killed_anywhere_leave_every_declared_tick_and_each_as_one_event(history):
    topic, clock, schedules = Topic(), ManualClock(START), (HOURLY, NIGHTLY, OFTEN)
    alive: dict[int, tuple[Ticker, dict[int, int]]] = {}

    for which, minutes, sends, reads in history:
        clock.advance(60 * minutes)
        left = [sends if sends < 12 else 10_000]

        def send(records, left=left):
            for record in records:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                topic.append(record)

        if which not in alive:
            ends = topic.ends()
            alive[which] = (a_clock(topic, clock, schedules), ends)
            alive[which][0]._last = last_ticks(topic, {s.name for s in schedules}, ends, clock.now())
        ticker, ends = alive[which]
        ticker._send = send
        if reads:
            ticker.heard([record for batch in topic.read(ends, until=topic.ends()) for record in batch])
        try:
            ticker.tell(NEVER)
        except Killed:
            del alive[which]
        for schedule in schedules:  # whatever stands has all before it: so the newest is a position
            there = {header(r, "ce_id") for r in topic.everything() if r.key == schedule.name.encode()}
            wanted = [t.id for t in schedule.ticks(START - timedelta(seconds=1), clock.now())]
            assert there == set(wanted[: len(there)])

    a_clock(topic, clock, schedules).run(threading.Event(), until_drained=True)
    assert topic.events().keys() == declared(schedules, clock.now())
    assert all(len(values) == 1 for values in topic.events().values())


def test_of_one_schedule_no_two_ticks_are_on_their_way_at_once():
    sent = []
    topic, clock = Topic(), ManualClock(START + timedelta(hours=12))

    a_clock(topic, clock, send=lambda records: [sent.append(records), topic.send(records)]).run(
        threading.Event(), until_drained=True
    )

    assert max(map(len, sent)) == 2
    assert all(len({record.key for record in records}) == len(records) for records in sent)


def test_a_tick_that_was_not_acknowledged_is_told_again_before_the_next():
    topic, clock, said, fails = Topic(), ManualClock(START + timedelta(hours=2)), [], [False, True, True]

    def send(records):
        topic.send(records)
        if fails and fails.pop(0):
            raise BrokerUnreachable("no broker took the record within 30 s")

    waiting = threading.Event()
    waiting.wait = lambda _: False
    ticker = Ticker([HOURLY], topic, encode, send, clock, lambda event, **_: said.append(event))
    ticker.run(waiting, until_drained=True)

    assert said.count("clock.waits") == 2
    assert topic.events().keys() == declared([HOURLY], clock.now())


def test_a_clock_that_is_ahead_silences_no_other():
    topic, clock = Topic(), ManualClock(START)
    ahead = a_clock(topic, ManualClock(START + timedelta(days=30)), [HOURLY])
    ahead.run(threading.Event(), until_drained=True)
    early = len(topic.everything())

    clock.advance("3h")
    a_clock(topic, clock, [HOURLY]).run(threading.Event(), until_drained=True)
    right = a_clock(topic, clock, [HOURLY])
    right.heard(topic.everything())
    clock.advance("1h")
    right.tell(NEVER)

    assert len(topic.everything()) == early + 1  # of the three hours that are past, the newest is believed


def test_a_clock_lets_others_go_first_for_as_long_as_it_holds():
    topic, clock = Topic(), ManualClock(START - timedelta(seconds=1))
    holding = a_clock(topic, clock, [HOURLY], hold=0.5)

    clock.advance(1.2)
    assert holding.tell(NEVER) == 0
    clock.advance(0.4)
    assert holding.tell(NEVER) == 1


def test_a_clock_that_is_told_to_stop_leaves_the_rest_to_the_next():
    topic, clock, stop = Topic(), ManualClock(START + timedelta(hours=5)), threading.Event()

    def send(records):
        topic.send(records)
        stop.set()

    a_clock(topic, clock, [HOURLY], send=send).run(stop, until_drained=True)
    assert len(topic.everything()) == 1
    a_clock(topic, clock, [HOURLY]).run(threading.Event(), until_drained=True)
    assert topic.events().keys() == declared([HOURLY], clock.now())


def test_a_schedule_that_was_changed_goes_on_from_its_newest_tick():
    topic, clock = Topic(), ManualClock(START + timedelta(hours=5))
    a_clock(topic, clock, [HOURLY]).run(threading.Event(), until_drained=True)

    clock.advance("1h")
    a_clock(topic, clock, [replace(HOURLY, cron="*/30 * * * *")]).run(threading.Event(), until_drained=True)

    assert len(topic.everything()) == 6 + 2


def test_the_newest_ticks_are_read_from_the_end_as_far_back_as_needed():
    topic = Topic(1)
    a_clock(topic, ManualClock(START), [NIGHTLY, HOURLY]).run(threading.Event(), until_drained=True)
    nominal = START + timedelta(seconds=1)
    for _ in range(1500):
        identity = tick_id("each-second", nominal)
        headers = Envelope(identity, EVENT_SOURCE, TICKS, nominal.isoformat()).headers()
        topic.append(Record(TICKS, b"each-second", b"", [*headers]))

    def last(*names):
        topic.reads.clear()
        return last_ticks(topic, names, topic.ends(), START + timedelta(days=1))

    assert last("each-second") == {"each-second": nominal}
    assert topic.reads == [{0: 501}]
    assert last("each-second", "hourly") == {"each-second": nominal, "hourly": START}
    assert topic.reads == [{0: 501}, {0: 0}]
    assert last("nobody") == {}


@pytest.mark.parametrize("key", [None, b"\xff", b"hourly"])
def test_what_others_wrote_into_the_topic_is_passed_by(key):
    topic, clock = Topic(), ManualClock(START)
    topic.append(Record(TICKS, key, b"not avro", [("ce_id", b"\xff"), ("ce_source", None)]))

    a_clock(topic, clock, [HOURLY]).run(threading.Event(), until_drained=True)

    assert tick_id("hourly", START) in topic.events()
