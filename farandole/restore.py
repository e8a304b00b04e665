"""Tables that have lost what was settled are filled from the ledger, before any work is taken.

Whatever was settled stands in the ledger, in the transaction that settled it. What had begun and not ended stands
nowhere: it is run again, and of a step with an effect outside that may have happened the tables say `started`, so that
its `check` is asked, or the run ends uncertain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from farandole.declaration import RETRY, Declaration
from farandole.delivery import delivered
from farandole.errors import BrokerUnreachable, TablesLost, Undecided, Undecodable
from farandole.event import RawRecord
from farandole.ids import run_id
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.ledger.entry import LEDGER_TOPIC, Entry, newer, place_of
from farandole.letters import DeclaredKeys, own_key
from farandole.outcome import Books
from farandole.rewind import mark_of
from farandole.store import Range, Store
from farandole.store.epochs import REWIND
from farandole.store.inbox import Lane, Outcome
from farandole.store.recovery import Batch
from farandole.store.rows import FINAL, SETTLED
from farandole.store.waiting import Member

SLICE = 20.0
"""Seconds after which the group is polled again; then it goes on where it was."""
BEGUN = 2000
"""Records from the committed offset on that may have begun: a partition's window."""
TOGETHER = 5000
"""Doubts that are written in one transaction."""
ALL = 50
"""A fact that names so many ranges may have left some out."""
_TRIES = 1000
_RANGE = re.compile(r"(\S+)\[(\d+)\] (\d+)\.\.(\d+)")


class Offsets(Protocol):
    """The group's own consumer; :class:`farandole.kafka.source.Source`."""

    topic_ids: dict[str, str]

    def committed(self, partitions: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], tuple[int, str]]:
        """Offset (-1: none) and metadata of each."""


@dataclass(slots=True)
class Restore:
    """Fills the tables of one pipeline. Any number of instances may do so at once; none works before it is done."""

    declaration: Declaration
    store: Store
    codec: Codec
    reader: Callable[[str], TopicReader]
    source: Offsets
    books: Books
    say: Callable[..., None]
    fills: bool = True  # no: it waits until somebody else has
    slice: float = SLICE
    _filling: str = ""
    _at: int = 0
    entries: int = 0
    doubtful: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.doubtful = tuple(s.name for s in self.declaration.steps if s.effect in ("verify", "at_most_once"))

    def ensure(self, recall: Callable[[Entry], None] = lambda _: None) -> bool:
        """Whether the tables had lost something, and were filled; no, where all stands in them.

        `recall` is told of each entry.

        Raises TablesLost where it takes longer than a slice: then once more. Raises Unreachable.
        """
        recovery = self.store.recovery
        if recovery.whole() or (self.fills and recovery.open()):
            return False
        if not self.fills:
            raise TablesLost("they are filled from the ledger", hint="it is waited for; nothing runs before")
        if self._filling != recovery.incarnation:
            self._filling, self._at, self.entries = recovery.incarnation, 0, 0
        self._fill(self.books.clock.monotonic() + self.slice, recall)
        if self.entries:
            self.say("tables.restored", entries=self.entries)
        return self.entries > 0

    def _fill(self, deadline: float, recall: Callable[[Entry], None]) -> None:
        within = self.declaration.join.within if self.declaration.join else 0.0
        with self.reader(LEDGER_TOPIC) as reader:
            end = reader.undecided_ends()[self.books.ledger_partition]
            for lines in patiently(reader, self.books.ledger_partition, min(self._at, end), end):
                if not self.store.recovery.put(self._batch(lines, recall), within):
                    return  # another instance has filled them meanwhile
                self._at = reader.positions[self.books.ledger_partition]
                if self.books.clock.monotonic() > deadline:
                    self.say("tables.filling", at=self._at, end=end)
                    raise TablesLost(
                        f"they are filled from the ledger: {self._at} of {end} so far",
                        place=f"{LEDGER_TOPIC}[{self.books.ledger_partition}]",
                        hint="it is waited for; nothing runs before",
                    )
        if self.doubtful and self.entries:
            doubts = [(run, step, tries) for run, tries in self._begun() for step in self.doubtful]
            for at in range(0, len(doubts), TOGETHER):
                self.store.recovery.put(Batch(doubts=doubts[at : at + TOGETHER]), within)
        self.store.recovery.complete(end)

    # ---- what the ledger says

    def _batch(self, lines: Iterable[RawRecord], recall: Callable[[Entry], None]) -> Batch:
        newest: dict[str, Entry] = {}
        for raw in lines:
            if raw.value is None or self.declaration.name.encode() not in raw.value:
                continue
            entry = Entry.of(self.codec.decode(LEDGER_TOPIC, raw.value, raw.headers) or {})
            if entry.pipeline != self.declaration.name:
                continue
            self.entries += 1
            recall(entry)
            standing = newest.get(entry.id)
            if standing is None or entry.kind != "run" or newer(entry, standing):
                newest[entry.id] = entry
        batch = Batch()
        for entry in newest.values():
            if entry.kind == "run":
                self._run(batch, entry)
            elif entry.kind == "fact" and "epoch" in entry.detail:
                self._epoch(batch, entry)
        return batch

    def _run(self, batch: Batch, entry: Entry) -> None:
        if entry.state == "waiting" and entry.join_key:
            member = member_of(entry)
            lane = Lane(member.topic, member.topic_id, member.partition, 0, entry.epoch)
            batch.waiting.setdefault(lane, []).append(member)
        elif entry.state == "parked" or entry.state in SETTLED:
            outcomes = outcomes_of(entry, self.declaration)
            batch.outcomes += [
                (Lane(c["topic"], c["topic_id"], c["partition"], 0, entry.epoch), one)
                for one, c in zip(outcomes, entry.triggers, strict=False)
            ]
            if entry.join_key:
                keys, joins = batch.closed.setdefault(entry.epoch, ([], []))
                keys += entry.keys
                joins.append(bytes.fromhex(entry.join_key))
            if self.doubtful and entry.state not in FINAL:
                taken = {s["name"] for s in entry.steps if s["state"] == "done"}
                known = self.doubtful if entry.state == "parked" else taken.intersection(self.doubtful)
                batch.doubts += [(entry.id, step, _tries(entry.life + 1)) for step in known]

    def _epoch(self, batch: Batch, entry: Entry) -> None:
        told, epoch = entry.detail, int(entry.detail["epoch"])
        command = f"order:{told['order']}" if "order" in told else told.get("command", REWIND)
        ranges = _RANGE.findall(told.get("ranges", ""))
        for topic, partition, start, end in ranges if len(ranges) < ALL else ():  # the order itself names them all
            if topic in self.source.topic_ids:
                span = Range(topic, self.source.topic_ids[topic], int(partition), int(start), int(end))
                batch.ranges.append((epoch, command, span))
        if entry.fact == "replay.finished":
            batch.finished.add(epoch)

    # ---- what had begun

    def _begun(self) -> Iterator[tuple[str, int]]:
        """The runs that may have begun and of which the ledger says nothing, each with its last possible try."""
        for topic in (*self.declaration.topics, self.declaration.retry_topic):
            with self.reader(topic) as reader:
                ends = reader.undecided_ends()
                committed = self.source.committed([(topic, p) for p in ends])
                at = {p: at for (_, p), (at, mark) in committed.items() if mark_of(mark) and at < ends[p]}
                for batch in reader.read(at, until={p: min(ends[p], offset + BEGUN) for p, offset in at.items()}):
                    yield from self._runs(topic, batch)

    def _runs(self, topic: str, batch: Sequence[RawRecord]) -> Iterator[tuple[str, int]]:
        if topic == self.declaration.retry_topic:
            for raw in batch:
                try:
                    delivery, _ = delivered(raw)
                except Undecodable:
                    continue
                yield delivery.run_id, _tries(delivery.life)
            return
        declared = DeclaredKeys(lambda: (self.declaration, self.codec))
        keys = [declared(raw) or own_key(raw) for raw in batch]
        known = self.store.inbox.known(0, keys)
        for key in keys:
            if key not in known:
                yield run_id(self.declaration.name, 0, [key]), _tries(0)


def _tries(life: int) -> int:
    """Up to the last try of a life."""
    return life * _TRIES + _TRIES - 1


def patiently(reader: TopicReader, partition: int, start: int, end: int) -> Iterator[list[RawRecord]]:
    """The records up to the end; who waits for a transaction that is still open says so. Raises Unreachable."""
    try:
        yield from reader.read({partition: start}, until={partition: end})
    except BrokerUnreachable as silent:
        stable = reader.ends()[partition]
        if stable >= end:
            raise
        raise Undecided(
            f"an open transaction holds {LEDGER_TOPIC}[{partition}] at {stable}, before its end {end}",
            place=f"{LEDGER_TOPIC}[{partition}]",
            hint="it is waited for; of one that hangs the line lso.stuck says who it is and how to end it",
        ) from silent


def outcomes_of(entry: Entry, declaration: Declaration) -> list[Outcome]:
    """The rows of a run's keys, as its entry tells them."""
    okey = b"" if entry.join_key or entry.okey is None else entry.okey
    holds = entry.state == "dead" and declaration.on_dead == "hold-key" and okey
    due = round(entry.due.timestamp() * 1000) if isinstance(entry.due, datetime) else entry.due
    state = "dead-hold" if holds else entry.state
    return [
        Outcome(key, entry.id, state, entry.life, c["digest"], okey, c["offset"], "", entry.attempt, due, entry.epoch)
        for key, c in zip(entry.keys, entry.triggers, strict=False)
    ]


def member_of(entry: Entry) -> Member:
    """The event that waits in a join, whole."""
    cause = entry.triggers[0]
    topic, topic_id, partition, offset = cause["topic"], cause["topic_id"], cause["partition"], cause["offset"]
    if entry.via:
        topic, (topic_id, partition, offset) = RETRY + entry.pipeline, place_of(entry.via[0])
    return Member(
        entry.keys[0],
        cause["signal"],
        bytes.fromhex(entry.join_key or ""),
        topic,
        topic_id,
        partition,
        offset,
        -1,
        entry.payload_key,
        [(h["name"], h["value"]) for h in entry.headers],
        entry.payload,
        cause["digest"],
    )
