"""What a replay would do, before anybody orders it: which events, what became of them, who comes after.

Reads the topics and the ledger, so it needs no database of ours and nothing that runs. Positions are read first and the
ledger after them: what the pipeline has not settled yet is left to its live work.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from farandole.cascade import DIRECT, NONE, refused
from farandole.criteria import CriteriaError
from farandole.declaration import Declaration
from farandole.errors import FarandoleError, Undecodable
from farandole.event import Event, RawRecord, envelope_of
from farandole.fill import event_class
from farandole.kafka.registry import UnknownSchema
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.match import Match, Matcher
from farandole.orders import Order, Range
from farandole.reconciler.account import Account
from farandole.reconciler.cluster import Cluster, position_of
from farandole.reconciler.coverage import Coverage

DONE, MISSING = "done", "missing"
_BLAMED = (Undecodable, UnknownSchema, CriteriaError, KeyError, TypeError, ValueError)


@dataclass(slots=True)
class Seen:
    """One record of the ranges. `stands`: what became of it before, in any epoch. `why`: why it is no event here."""

    raw: RawRecord
    stands: str
    why: str = ""
    event: Event | None = None
    signal: str = ""
    key: bytes = b""


@dataclass(slots=True)
class Prospect:
    """What an order would come to: records by what becomes of them, and by what became of them before."""

    order: Order
    records: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    events: int = 0
    before: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    notes: list[str] = field(default_factory=list)
    downstream: list[tuple[str, int]] = field(default_factory=list)

    @property
    def reached(self) -> list[str]:
        """The pipelines that will do it again too."""
        far = {NONE: 0, DIRECT: 1}.get(self.order.cascade)
        return [name for name, distance in self.downstream if far is None or distance <= far]


class Planner:
    """Looks at one pipeline. Raises Unreachable while a server is away."""

    def __init__(self, declaration: Declaration, cluster: Cluster) -> None:
        for event_type in declaration.topics:
            event_class(event_type)  # what a key is made of is known by the classes
        self.declaration, self._cluster = declaration, cluster
        self.matcher = Matcher(declaration)
        self.notes: list[str] = []
        self._account: Account | None = None

    def ranges(self, since: int = 0, until: int = 0) -> list[Range]:
        """What the pipeline has settled between two times (milliseconds since 1970; 0: no bound), by partition.

        Raises FarandoleError where it has settled nothing yet.
        """
        admin, declaration = self._cluster.admin, self.declaration
        topics = admin.topics(declaration.topics)
        if gone := [name for name in declaration.topics if name not in topics]:
            raise FarandoleError(
                f"there is no topic {', '.join(gone)}", place=declaration.name, hint="farandole topology apply"
            )
        places = [(name, p) for name in declaration.topics for p in range(topics[name].partitions)]
        committed = admin.committed(declaration.name)
        positions = {place: position_of(committed.get(place)) for place in places}
        if all(at is None for at, _ in positions.values()):
            raise FarandoleError(
                f"{declaration.name} has settled nothing here: {next(iter(positions.values()))[1]}",
                place=f"group {declaration.name}",
                hint="its first start reads from where `since` points; there is nothing to do again",
            )
        lows = admin.starts(places)
        first = admin.offsets_at(places, since) if since else lows
        last = admin.offsets_at(places, until) if until else admin.ends(places, committed=True)
        found = []
        for place in places:
            at, note = positions[place]
            start, end = max(first[place], lows[place]), min(last[place], at or 0)
            if at is None:
                self.notes.append(f"{place[0]}[{place[1]}] is left out: {note}")
            elif (beyond := last[place]) > end and beyond > (at or 0):
                self.notes.append(
                    f"{place[0]}[{place[1]}] from {end} on is left to live work, which has not settled it"
                )
            if start < end:
                found.append(Range(place[0], topics[place[0]].topic_id, place[1], start, end))
        return found

    def seen(self, order: Order) -> Iterator[Seen]:
        """Every record that the order asks for, as the pipeline will read it."""
        account = self._read_ledger()
        by_topic: dict[str, list[Range]] = {}
        for one in order.ranges:
            by_topic.setdefault(one.topic, []).append(one)
        for topic, ranges in by_topic.items():
            covered = {one.partition: account.of(one.topic_id, one.partition) for one in ranges}
            starts, ends = {r.partition: r.start for r in ranges}, {r.partition: r.end for r in ranges}
            with self._cluster.read(topic) as reader:
                for batch in reader.read(starts, until=ends):
                    for raw in batch:
                        if not order.refuses(raw):
                            yield self._looked_at(raw, _stands(covered[raw.partition], raw.offset))

    def prospect(self, order: Order) -> Prospect:
        """What the order would come to."""
        found = Prospect(order, notes=self.notes)
        units: dict[bytes, set[str]] = {}
        for seen in self.seen(order):
            found.records += 1
            if seen.event is None:
                found.filtered.update([seen.why] if seen.why else [])
                found.unreadable += not seen.why
                continue
            found.events += 1
            found.before[seen.stands] += 1
            units.setdefault(self.unit(seen), set()).add(seen.signal)
        needed = len(self.matcher.needed) if self.declaration.join is not None else 1
        found.runs = sum(len(there) >= needed for there in units.values())
        return found

    def unit(self, seen: Seen) -> bytes:
        """What the run of an event is told by: its join key, or its idempotency key."""
        if self.declaration.join is None or seen.event is None:
            return seen.key
        return self.matcher.join_key(seen.event)

    def _looked_at(self, raw: RawRecord, stands: str) -> Seen:
        try:
            value = self._cluster.codec.decode(raw.topic, raw.value, raw.headers)
            if value is None:
                return Seen(raw, stands, "tombstone")
            at = raw.position
            event = Event(envelope_of(raw.headers, raw.topic, at), at, value, raw.key, raw.value)
            found = self.matcher.match(raw.topic, event)
            if not isinstance(found, Match):
                return Seen(raw, stands, found)
            if reason := refused(event.envelope.restatement):
                return Seen(raw, stands, reason)
            return Seen(raw, stands, "", event, found.signal, self.matcher.key(event))
        except _BLAMED:
            return Seen(raw, stands)

    def _read_ledger(self) -> Account:
        if self._account is None:
            self._account = Account(self.declaration.name)
            name = self.declaration.name.encode()
            at = ledger_partition(self.declaration.name, self._cluster.admin.partitions([LEDGER_TOPIC])[LEDGER_TOPIC])
            with self._cluster.read(LEDGER_TOPIC) as reader:
                starts, ends = reader.starts(), reader.undecided_ends()
                for batch in reader.read({at: starts[at]}, until={at: ends[at]}):
                    for raw in batch:
                        if raw.value is not None and name in raw.value:
                            told = self._cluster.codec.decode(LEDGER_TOPIC, raw.value, raw.headers) or {}
                            self._account.take(_any_epoch(told))
        return self._account


def _any_epoch(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a replay ran counts as live work does; what it filtered says nothing of the event."""
    return {**entry, "epoch": 0} if entry["kind"] == "run" else entry


def _stands(covered: Coverage, offset: int) -> str:
    if offset in covered.open:
        return covered.open[offset][1]
    return DONE if covered.covers(offset) else MISSING


def downstream(declaration: Declaration, others: Iterable[Declaration]) -> list[tuple[str, int]]:
    """The pipelines that what this one emits reaches, each with how many steps away it is, the nearest first."""
    others = [other for other in others if other.name != declaration.name]
    found: dict[str, int] = {}
    waiting = deque([(declaration.emits, 1)])
    while waiting:
        emitted, distance = waiting.popleft()
        for other in others:
            if other.name not in found and set(emitted) & set(other.topics):
                found[other.name] = distance
                waiting.append((other.emits, distance + 1))
    return list(found.items())
