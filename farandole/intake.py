"""From a batch of records to runs: decode, match, key, known?, claim.

Nothing enters a partition's window before the questions to registry and database were answered, so a
server that is away costs a step back to the first record, never a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farandole.clock import Clock
from farandole.deadletter import failure_of
from farandole.errors import FarandoleError
from farandole.event import Event, RawRecord, envelope_of
from farandole.ids import position_key, run_id
from farandole.kafka.codec import Codec
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.match import Match, Matcher
from farandole.outcome import Books
from farandole.owned import RUNNING, Ended, Owned, Slot
from farandole.points import point
from farandole.reading import Reader, Reading
from farandole.run import Run, Signal
from farandole.store import Store
from farandole.store.inbox import Claim, Known, OutboxRow
from farandole.store.rows import SETTLED
from farandole.store.waiting import Member


class KeyConflict(FarandoleError):
    """An event has the idempotency key of an earlier one and says something else."""


@dataclass(slots=True)
class Intake:
    """The way in. `claiming` is on where copies of a key can reach two owners."""

    reader: Reader
    matcher: Matcher
    codec: Codec
    books: Books
    store: Store
    clock: Clock
    owners: Mapping[tuple[str, int], Owned]
    say: Callable[..., None]
    claiming: bool
    resumable: bool
    in_flight: dict[bytes, Run] = field(default_factory=dict)
    blocked: list[Reading] = field(default_factory=list)
    duplicates: int = 0
    filtered: int = 0
    _stored: dict[str, list[OutboxRow]] = field(default_factory=dict)
    _publishing: set[str] = field(default_factory=set)
    _starting: list[Run] = field(default_factory=list)

    def take(self, records: Sequence[RawRecord]) -> list[Run]:
        """The runs that a batch starts; everything else of it has entered its window with its outcome.

        Raises DatabaseUnreachable with nothing entered: the caller places the partitions back.
        """
        point("intake.polled")
        readings = self.reader.read(records)
        known = self._known(readings)
        for reading in readings:
            self._admit(reading, known.get(reading.key))
        return self._started()

    # ---- known? one bulk query, one bulk claim

    def _known(self, readings: Sequence[Reading]) -> dict[bytes, Known]:
        if not self.claiming and any(r.signal and r.raw.key is None and not r.event.envelope.derived for r in readings):  # type: ignore[union-attr]
            self.claiming = True
            self.say("keys.not-local", detail="a record without key carries an id: copies may reach two owners")
        asked = [r.key for r in readings if (r.signal or r.error) and r.key not in self.in_flight]
        known: dict[bytes, Known] = self.store.inbox.known(0, asked) if asked else {}
        if self.claiming and not self.matcher.declaration.join:
            self._claim([r for r in readings if r.signal and self._open(r, known)], known)
        for killer in (r for r in readings if self.matcher.declaration.join and r.owned.killer == r.raw.offset):
            assert killer.owned.lane is not None  # noqa: S101 - only a partition that was taken over is read
            self.store.waiting.give_back(killer.owned.lane, killer.raw.offset)  # the others of its set wait on
        if unpublished := [k.run_id for k in known.values() if k.unpublished]:
            self._stored.update(self.store.inbox.unpublished(unpublished))
        return known

    def _open(self, reading: Reading, known: Mapping[bytes, Known]) -> bool:
        standing = known.get(reading.key)
        return reading.key not in self.in_flight and (standing is None or standing.state == "claimed")

    def _claim(self, readings: Sequence[Reading], known: dict[bytes, Known]) -> None:
        """Claim the keys; `known` then says what is known of those that could not be."""
        by_owner: dict[tuple[str, int], dict[bytes, Reading]] = {}
        for reading in readings:
            by_owner.setdefault(reading.owned.key, {}).setdefault(reading.key, reading)
        taken: set[bytes] = set()
        for mine in by_owner.values():
            claims = [
                Claim(r.key, self._run_id([r.key]), r.raw.key or b"", r.signal.digest, r.raw.offset)  # type: ignore[union-attr]
                for key, r in mine.items()
                if key not in taken
            ]
            taken |= mine.keys()
            lane = next(iter(mine.values())).owned.lane
            assert lane is not None  # noqa: S101 - only a partition that was taken over is read
            lost = self.store.inbox.claim(lane, claims)
            for claim in claims:
                known.pop(claim.key, None)
            known.update(lost)
        point("claim.after")

    def _run_id(self, keys: list[bytes]) -> str:
        return run_id(self.matcher.declaration.name, 0, keys)

    # ---- entering the window

    def _admit(self, reading: Reading, known: Known | None) -> None:
        if self.matcher.declaration.join and reading.signal is not None:
            self._join(reading, known)
        else:
            self._enter(reading)
            self._place(reading, known)

    def _enter(self, reading: Reading) -> Slot:
        reading.slot = reading.slot or reading.owned.admit(reading.raw.offset)
        return reading.slot

    def _place(self, reading: Reading, known: Known | None) -> None:
        """What becomes of a record in its window."""
        if reading.reason:
            self.filtered += 1
            reading.owned.end(self._enter(reading), reading.reason)
        elif known is not None and known.state in SETTLED:
            self._settled_before(reading, known)
        elif reading.error is not None:
            self._give_up(reading, reading.error, reading.stage)
        elif (running := self.in_flight.get(reading.key)) is not None:
            self._copy(reading, running)
        elif known is not None and self.claiming:
            self.blocked.append(reading)  # somebody else is at it: its outcome is ours too
        else:
            assert reading.signal is not None  # noqa: S101 - the remaining case
            self._start(reading, (reading.signal,), reading.key)

    def _start(self, reading: Reading, signals: tuple[Signal, ...], key: bytes, join_key: bytes | None = None) -> None:
        lane = reading.owned.lane
        assert lane is not None  # noqa: S101 - only a partition that was taken over is read
        identity = self._run_id([s.key for s in signals])
        run = Run(identity, key, reading.raw.key or b"", signals, reading.owned, self._enter(reading))
        run.fence, run.join_key = lane.fence, join_key
        run.checkpointed = self.resumable
        self.in_flight[key] = run
        self._starting.append(run)

    def _settled_before(self, reading: Reading, known: Known) -> None:
        """A duplicate; where SQL has decided and Kafka was not told, the stored bytes go out now."""
        if reading.signal is not None and known.digest != reading.signal.digest and self._conflicts(reading):
            return
        self.duplicates += 1
        slot, run = self._enter(reading), known.run_id
        rows = self._stored.pop(run, [])
        self._publish_or_skip(slot, reading.raw, run, rows)

    def known_meanwhile(self, run: Run) -> None:
        """A run that found its key settled when it claimed it: a duplicate after all."""
        self.duplicates += 1
        self._publish_or_skip(run.slot, run.cause.raw, run.known.run_id, run.stored)
        self.in_flight.pop(run.key, None)

    def _publish_or_skip(self, slot: Slot, raw: RawRecord, run: str, rows: Sequence[OutboxRow]) -> None:
        """Stored bytes go out with the record that made them, come again; a copy elsewhere leaves them to it."""
        if rows and run not in self._publishing and self._made(rows, raw):
            self._publishing.add(run)
            slot.owned.add(Ended([slot], [self.books.stored(row) for row in rows], published=[run], finished=[run]))
        else:
            slot.owned.end(slot, "duplicate")

    def _made(self, rows: Sequence[OutboxRow], raw: RawRecord) -> bool:
        line = next(row for row in rows if row.topic == LEDGER_TOPIC)
        causes = (self.codec.decode(LEDGER_TOPIC, line.value, []) or {})["triggers"]
        here = (raw.topic_id, raw.partition, raw.offset)
        return any((c["topic_id"], c["partition"], c["offset"]) == here for c in causes)

    def _copy(self, reading: Reading, running: Run) -> None:
        if reading.signal is not None and reading.signal.digest != running.cause.digest and self._conflicts(reading):
            return
        self.duplicates += 1
        slot = self._enter(reading)
        if running.over:
            slot.owned.end(slot, "duplicate")
        else:
            running.copies.append(reading)

    def _conflicts(self, reading: Reading) -> bool:
        """Same key, other content: by default a dead letter, never a silent drop."""
        if self.matcher.declaration.on_conflict != "dead":
            return False
        at = reading.raw.position
        error = KeyConflict(f"{at} has the idempotency key of an earlier event and says something else", place=str(at))
        reading.key = position_key(at.topic_id, at.partition, at.offset)
        self._give_up(reading, error, "dedup")
        return True

    def _give_up(self, reading: Reading, error: BaseException, stage: str) -> None:
        slot = self._enter(reading)
        failure = failure_of(error, stage, "", self.matcher.declaration.name, first_failed_at=self.clock.now())
        self.say("event.dead", stage=stage, reason=failure.reason or failure.class_name, at=str(reading.raw.position))
        reading.owned.add(self.books.given_up(reading.owned, [slot], reading.raw, reading.event, reading.key, failure))

    # ---- joins: SQL first

    def _join(self, reading: Reading, known: Known | None) -> None:
        raw, signal, event = reading.raw, reading.signal, reading.event
        join, lane = self.matcher.declaration.join, reading.owned.lane
        assert signal and event and join and lane  # noqa: S101, PT018 - a signal of a join
        here = known is not None and (known.topic_id, known.partition, known.offset) == (
            raw.topic_id, raw.partition, raw.offset,
        )  # fmt: skip
        if known is not None and (known.state in SETTLED or (known.state == "waiting" and not here)):
            self._settled_before(reading, known)
            return
        member = Member(
            signal.key, signal.name, self.matcher.join_key(event), raw.topic, raw.topic_id, raw.partition, raw.offset,
            raw.timestamp, raw.key, raw.headers, raw.value, signal.digest,
        )  # fmt: skip
        joined = self.store.waiting.add(lane, member, self._complete, join.within)
        slot = self._enter(reading)
        if joined.state == "complete":
            signals = self._signals(joined.members, signal)
            self._start(reading, signals, b"join:" + member.join_key, member.join_key)
        elif joined.state == "held":
            self.blocked.append(reading)
        elif joined.state == "known" and joined.known is not None:
            self._settled_before(reading, joined.known)
        else:
            missing = [n for n in self.matcher.needed if n not in {m.signal for m in joined.members}]
            reading.owned.add(self.books.waiting(reading.owned, slot, signal, member, missing))

    def _complete(self, members: list[Member]) -> bool:
        latest = {m.signal: m for m in members}
        if set(latest) != set(self.matcher.needed):
            return False
        return self.matcher.holds({n: self._value(m) for n, m in latest.items()})

    def _value(self, member: Member) -> dict[str, Any]:
        return self.codec.decode(member.topic, member.value, member.headers) or {}

    def _signals(self, members: Sequence[Member], last: Signal) -> tuple[Signal, ...]:
        """The set in order of arrival, the completing event last; a signal told again stands for its latest member."""
        before = [self._signal(m) for m in members if m.key != last.key]
        return (*before, last)

    def _signal(self, member: Member) -> Signal:
        raw = member.raw
        event = Event(
            envelope_of(raw.headers, raw.topic, raw.position), raw.position, self._value(member), raw.key, raw.value
        )
        found = self.matcher.match(raw.topic, event)
        fact = found.fact if isinstance(found, Match) else None
        return Signal(member.signal, event, raw, member.key, member.digest, fact)

    # ---- what could not go on at once

    def retry_blocked(self) -> list[Run]:
        """Ask again for keys that somebody else held. Raises DatabaseUnreachable with nothing changed."""
        waiting = [r for r in self.blocked if r.owned.phase == RUNNING]
        self.blocked = []
        try:
            known = self._known(waiting)
            while waiting:
                self._admit(waiting[0], known.get(waiting[0].key))
                waiting.pop(0)
        finally:
            self.blocked += waiting
        return self._started()

    @property
    def unstarted(self) -> bool:
        """Whether runs wait for their checkpoints because the database was away."""
        return bool(self._starting)

    def _started(self) -> list[Run]:
        """The runs that may go, with what earlier attempts of them have kept: one query a batch."""
        if self.resumable and self._starting:
            kept = self.store.checkpoints.load([run.id for run in self._starting])
            for run in self._starting:
                run.checkpoints = {c.step: c for c in kept.get(run.id, [])}
        runs, self._starting = self._starting, []
        return runs

    def forget(self, ended: Sequence[Ended]) -> None:
        """Settled: from here on the table knows these keys."""
        for one in ended:
            self._publishing.difference_update(one.published)
            if one.run is not None:
                self.in_flight.pop(one.run.key, None)

    def drop(self, owned: Owned) -> None:
        """The partition is gone: nothing of it counts any more, and copies elsewhere ask again."""
        for run in self.in_flight.values():
            if run.home is owned and not run.over:
                self.blocked += [copy for copy in run.copies if copy.owned is not owned]
        self.in_flight = {key: run for key, run in self.in_flight.items() if run.home is not owned}
        self.blocked = [r for r in self.blocked if r.owned is not owned]
        self._starting = [run for run in self._starting if run.home is not owned]
