"""When a watcher counts as silent, who tells people of it, and that a service that hangs beats no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farandole.alerts import Routes
from farandole.beat import AFTER_END, Beat, Silence, teller
from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable, FarandoleError
from farandole.event import RawRecord, Record
from farandole.kafka.beats import Beats, Overheard
from farandole.pulse import HANDED_ON, Pulse
from farandole.topics import BEATS

CLOCK = Beat("clock", "a", every=10.0, at=0)
RECONCILER = Beat("reconciler", "r", every=10.0, at=0)


def test_two_beats_that_did_not_come_are_silence_and_it_is_news_once():
    silence = Silence()
    assert silence.look([CLOCK], 20_000) == []
    assert silence.look([CLOCK], 20_001) == [("watcher.silent", CLOCK)]
    assert silence.look([CLOCK], 90_000) == []


def test_one_instance_that_beats_is_enough_for_its_role():
    assert Silence().look([CLOCK, replace(CLOCK, instance="b", at=50_000)], 60_000) == []


def test_the_return_of_a_role_is_told_with_its_last_beat_from_before():
    silence = Silence()
    silence.look([CLOCK], 30_000)
    assert silence.look([CLOCK, replace(CLOCK, instance="b", at=31_000)], 32_000) == [("watcher.back", CLOCK)]


def test_one_that_was_told_to_end_is_missed_only_when_nobody_took_its_place_for_long():
    ended = replace(CLOCK, ended=True)
    assert Silence().look([ended], 60_000) == []
    assert Silence().look([ended], round(AFTER_END * 1000) + 1) == [("watcher.silent", ended)]


def test_one_that_was_told_to_end_does_not_excuse_one_that_was_killed_after_it():
    ended, killed = replace(CLOCK, ended=True), replace(CLOCK, instance="b", at=5_000)
    assert Silence().look([ended, killed], 26_000) == [("watcher.silent", killed)]


def test_who_never_beat_is_not_missed():
    assert Silence().look([], 10**9) == []


def test_of_those_at_work_that_have_routes_the_first_tells():
    sentinel, clock = Beat("sentinel", "s", tells=True, at=0), replace(CLOCK, tells=True, at=90_000)
    reconcilers = [Beat("reconciler", name, tells=True, at=90_000) for name in "ba"]
    assert teller([clock, *reconcilers, sentinel], 95_000) == reconcilers[1]
    assert teller([clock, sentinel], 5_000) == sentinel
    assert teller([replace(clock, tells=False)], 95_000) is None
    assert teller([replace(clock, ended=True)], 95_000) is None


class Codec:
    """Beats as they are, without a registry."""

    def encode(self, _topic, record):
        return record

    def decode(self, _topic, value, _headers):
        return value


class Room:
    """A topic of beats that several pulses share; the broker's time is the clock's."""

    def __init__(self):
        self.clock, self.topic, self.away, self.said, self.facts, self.sent = ManualClock(), [], False, [], [], []
        self.down = False

    def tail(self):
        room, read = self, [0]

        class Tail:
            def rewind(self, _milliseconds):
                read[0] = 0

            def fresh(self):
                if room.away:
                    raise BrokerUnreachable("away")
                new, read[0] = room.topic[read[0] :], len(room.topic)
                return new

        return Tail()

    def book(self):
        return Beats(self.tail(), Codec(), self.clock)

    def pulse(self, beat):
        room = self

        class Told(Routes):
            def send(self, alert):
                if room.down:
                    raise FarandoleError("down")
                room.sent.append((beat.role, alert.title.partition(",")[0]))

        def send(records):
            if room.away:
                raise BrokerUnreachable("away")
            for one in records:
                if not isinstance(one, Record):
                    room.facts.append((beat.role, one[0], one[1].role))
                else:
                    at = room.clock.millis()
                    room.topic.append(RawRecord(BEATS, "T", 0, len(room.topic), at, one.key, one.value))

        say = lambda name, **fields: room.said.append((beat.role, name, fields.get("role")))  # noqa: E731
        return Pulse(beat, room.book(), send, list, Told([]), self.clock, say, limit=100.0)


@pytest.fixture
def room():
    return Room()


def test_a_watcher_that_is_killed_is_noticed_by_all_and_told_by_one(room):
    sentinel, clock, gone = (
        room.pulse(Beat(role, "a", tells=True)) for role in ("sentinel", "clock", "reconciler")
    )  # fmt: skip
    for one in (sentinel, clock, gone):
        one.look()
    for _ in range(4):
        room.clock.advance(9)
        sentinel.look()
        clock.look()
    assert room.said == [(role, "watcher.silent", "reconciler") for role in ("sentinel", "clock")]
    assert room.facts == [(role, "watcher.silent", "reconciler") for role in ("sentinel", "clock")]
    assert room.sent == [("sentinel", "SILENT reconciler")]
    gone.look()
    sentinel.look()
    assert room.sent[1:] == [("sentinel", "BACK reconciler")]


def test_a_service_whose_work_hangs_beats_no_more(room):
    stuck, other = room.pulse(Beat("clock", "a")), room.pulse(Beat("projector", "a"))
    for _ in range(13):
        stuck.look()
        other.turn()
        other.look()
        room.clock.advance(10)
    other.look()
    assert ("projector", "watcher.silent", "clock") in room.said


def test_when_the_one_that_should_tell_falls_silent_too_the_next_tells_both(room):
    sentinel, clock, reconciler = (
        room.pulse(Beat(role, "a", tells=True)) for role in ("sentinel", "clock", "reconciler")
    )  # fmt: skip
    for one in (sentinel, clock, reconciler):
        one.look()
    room.clock.advance(9)
    sentinel.look()  # its last
    for _ in range(HANDED_ON):
        room.clock.advance(9)
        clock.look()
    assert sorted(room.sent) == [("clock", "SILENT reconciler"), ("clock", "SILENT sentinel")]


def test_who_told_that_a_silence_began_tells_that_it_is_over_though_the_first_is_back(room):
    sentinel, clock = (room.pulse(Beat(role, "a", tells=True)) for role in ("sentinel", "clock"))
    sentinel.look()
    clock.look()
    room.clock.advance(21)
    clock.look()
    sentinel.look()
    clock.look()
    assert room.sent == [("clock", "SILENT sentinel"), ("clock", "BACK sentinel")]


def test_who_comes_into_a_silence_tells_it_only_where_nobody_else_is_left_that_did(room):
    gone, clock, first, second = (
        room.pulse(Beat(role, name, tells=True))
        for role, name in (("projector", "a"), ("clock", "a"), ("sentinel", "a"), ("sentinel", "b"))
    )
    gone.look()
    clock.look()
    room.clock.advance(21)
    clock.look()
    first.look()
    assert room.sent == [("clock", "SILENT projector")]
    room.clock.advance(21)
    second.look()
    assert sorted(set(room.sent)) == [
        ("clock", "SILENT projector"), ("sentinel", "SILENT clock"), ("sentinel", "SILENT projector"),
    ]  # fmt: skip


def test_an_alert_that_no_route_took_is_told_at_the_next_beat(room):
    sentinel, gone = room.pulse(Beat("sentinel", "a", tells=True)), room.pulse(Beat("clock", "a"))
    gone.look()
    sentinel.look()
    room.clock.advance(30)
    room.down = True
    with pytest.raises(FarandoleError):
        sentinel.look()
    room.down = False
    sentinel.look()
    assert room.sent == [("sentinel", "SILENT clock")]
    assert len(room.facts) == 1


def test_time_goes_on_for_who_only_listens_though_nobody_beats_any_more(room):
    room.pulse(RECONCILER).look()
    listens, silence = Overheard(room.book()), Silence()
    assert silence.look(*listens.read()) == []
    room.clock.advance(21)
    assert [name for name, _ in silence.look(*listens.read())] == ["watcher.silent"]
