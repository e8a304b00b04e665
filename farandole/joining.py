"""Joins on the way in: an event that waits for others, or completes a set. SQL first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farandole.event import Event, envelope_of
from farandole.kafka.codec import Codec
from farandole.match import Match, Matcher
from farandole.reading import Reading
from farandole.run import Signal
from farandole.store import Store
from farandole.store.waiting import Joined, Member


@dataclass(slots=True)
class Joining:
    """The sets of one pipeline, by its matcher's rules."""

    matcher: Matcher
    codec: Codec
    store: Store

    def member(self, reading: Reading) -> Member:
        """What is kept of an event while it waits: all of it."""
        raw, signal, event = reading.raw, reading.signal, reading.event
        assert signal and event  # noqa: S101, PT018 - a signal of a join
        return Member(
            signal.key, signal.name, self.matcher.join_key(event), raw.topic, raw.topic_id, raw.partition, raw.offset,
            raw.timestamp, raw.key, raw.headers, raw.value, signal.digest,
        )  # fmt: skip

    def add(self, reading: Reading, member: Member) -> Joined:
        """Put it into its set. Raises DatabaseUnreachable and Fenced."""
        join, lane = self.matcher.declaration.join, reading.owned.lane
        assert join and lane  # noqa: S101, PT018 - a pipeline that joins, and a partition that was taken over
        return self.store.waiting.add(lane, member, self._complete, join.within)

    def missing(self, members: Sequence[Member]) -> list[str]:
        """The signals that a set still waits for."""
        there = {m.signal for m in members}
        return [name for name in self.matcher.needed if name not in there]

    def signals(self, members: Sequence[Member], last: Signal) -> tuple[Signal, ...]:
        """The set in order of arrival, the completing event last; a signal told again stands for its latest member."""
        before = [self._signal(m) for m in members if m.key != last.key]
        return (*before, last)

    def _complete(self, members: list[Member]) -> bool:
        latest = {m.signal: m for m in members}
        if set(latest) != set(self.matcher.needed):
            return False
        return self.matcher.holds({n: self._value(m) for n, m in latest.items()})

    def _value(self, member: Member) -> dict[str, Any]:
        return self.codec.decode(member.topic, member.value, member.headers) or {}

    def _signal(self, member: Member) -> Signal:
        raw = member.raw
        event = Event(
            envelope_of(raw.headers, raw.topic, raw.position), raw.position, self._value(member), raw.key, raw.value
        )
        found = self.matcher.match(raw.topic, event)
        fact = found.fact if isinstance(found, Match) else None
        return Signal(member.signal, event, raw, member.key, member.digest, fact)
