"""Joins on the way in: an event that waits for others, or completes a set. SQL first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farandole.event import Event, envelope_of
from farandole.kafka.codec import Codec
from farandole.match import Match, Matcher, Signal
from farandole.reading import Reading
from farandole.store import Store
from farandole.store.rows import STANDS, UNTOLD, Known
from farandole.store.waiting import Joined, Member


@dataclass(slots=True)
class Joining:
    """The sets of one pipeline, by its matcher's rules."""

    matcher: Matcher
    codec: Codec
    store: Store

    def member(self, reading: Reading) -> Member:
        """What is kept of an event while it waits: the record that brought it, whole."""
        raw, signal, event = reading.record, reading.signal, reading.event
        assert signal and event  # noqa: S101, PT018 - a signal of a join
        return Member(
            signal.key, signal.name, self.matcher.join_key(event), raw.topic, raw.topic_id, raw.partition, raw.offset,
            raw.timestamp, raw.key, raw.headers, raw.value, signal.digest,
        )  # fmt: skip

    def add(self, reading: Reading, member: Member, known: Known | None) -> Joined:
        """Put it into its set, unless it is `known` and told already. Raises DatabaseUnreachable and Fenced."""
        join, lane = self.matcher.declaration.join, reading.owned.lane
        assert join and lane  # noqa: S101, PT018 - a pipeline that joins, and a partition that was taken over
        if known is not None and (known.state in STANDS or (known.state == "waiting" and not _here(known, member))):
            return Joined("known", [], known)
        return self.store.waiting.add(lane, member, self._complete, join.within)

    def parted(self, readings: Sequence[Reading]) -> tuple[list[Reading], list[Reading]]:
        """Those that may be looked at again, and those whose set has others that were not told yet: by one query.

        Raises DatabaseUnreachable.
        """
        if self.matcher.declaration.join is None:
            return list(readings), []
        sets = [(r.epoch, self.matcher.join_key(r.event)) if r.event and r.begins else (r.epoch, b"") for r in readings]
        by_epoch: dict[int, set[bytes]] = {}
        for epoch, join_key in sets:
            by_epoch.setdefault(epoch, set()).add(join_key)
        look = self.store.waiting.untold
        untold = {(epoch, key) for epoch, keys in by_epoch.items() for key in look(epoch, sorted(keys))}
        ready = [r for r, its_set in zip(readings, sets, strict=True) if its_set not in untold]
        return ready, [r for r, its_set in zip(readings, sets, strict=True) if its_set in untold]

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
        raw = member.raw
        return self.codec.decode(raw.topic, raw.value, raw.headers) or {}

    def _signal(self, member: Member) -> Signal:
        raw = member.raw
        event = Event(
            envelope_of(raw.headers, raw.topic, raw.position), raw.position, self._value(member), raw.key, raw.value
        )
        found = self.matcher.match(raw.topic, event)
        fact = found.fact if isinstance(found, Match) else None
        return Signal(member.signal, event, raw, member.key, member.digest, fact, member.via)


def _here(known: Known, member: Member) -> bool:
    """Whether the record at hand is the member itself, and has yet to say that it waits."""
    at = (known.topic_id, known.partition, known.offset)
    return known.detail == UNTOLD and at == (member.topic_id, member.partition, member.offset)
