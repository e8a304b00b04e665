"""From a batch of records to runs: decode, match, key, known?, claim.

Nothing enters a partition's window before the questions to registry and database were answered, so a
server that is away costs a step back to the first record, never a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from farandole.clock import Clock
from farandole.deadletter import failure_of
from farandole.delivery import DROP, REDRIVE, REFUSE, RESOLVE, WAIT, admit
from farandole.errors import FarandoleError
from farandole.event import RawRecord
from farandole.ids import position_key, run_id
from farandole.joining import Joining
from farandole.kafka.codec import Codec
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.match import Matcher
from farandole.outcome import Books
from farandole.owned import GONE, RUNNING, Ended, Owned, Slot
from farandole.parking import Parking
from farandole.points import point
from farandole.reading import Reader, Reading
from farandole.run import Run, RunState, Signal
from farandole.store import Store
from farandole.store.inbox import Claim, Known, OutboxRow, Outcome
from farandole.store.rows import GIVEN_UP, HOLDING, SETTLED

_STANDS = SETTLED | {"parked"}
"""Where a key stands so that another telling of it changes nothing."""


class BadLife(FarandoleError):
    """A redrive that begins a life that cannot be next: not sent by a tool of ours, or letters were lost."""

    reason = "redrive.bad-life"


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
    parking: Parking
    in_flight: dict[bytes, Run] = field(default_factory=dict)
    blocked: list[Reading] = field(default_factory=list)
    duplicates: int = 0
    filtered: int = 0
    _stored: dict[str, list[OutboxRow]] = field(default_factory=dict)
    _publishing: set[str] = field(default_factory=set)
    _starting: list[Run] = field(default_factory=list)
    joining: Joining = field(init=False)

    def __post_init__(self) -> None:
        self.joining = Joining(self.matcher, self.codec, self.store)

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
        self._forget_holds(readings, known)
        if self.claiming and not self.matcher.declaration.join:
            self._claim([r for r in readings if r.signal and r.come is None and self._open(r, known)], known)
        self._hold(readings, known)
        for killer in (r for r in readings if self.matcher.declaration.join and r.owned.killer == r.offset):
            assert killer.owned.lane is not None  # noqa: S101 - only a partition that was taken over is read
            self.store.waiting.give_back(killer.owned.lane, killer.offset)  # the others of its set wait on
        if unpublished := [k.run_id for k in known.values() if k.unpublished]:
            self._stored.update(self.store.inbox.unpublished(unpublished))
        return known

    def _forget_holds(self, readings: Sequence[Reading], known: dict[bytes, Known]) -> None:
        """A record whose hold was written and whose transaction was not committed comes again: as if it were new."""
        for r in readings:
            row = known.get(r.key)
            if row is not None and r.come is None and row.state == "parked" and row.detail == HOLDING:
                here = (r.raw.topic_id, r.raw.partition, r.raw.offset)
                if (row.topic_id, row.partition, row.offset) == here:
                    del known[r.key]

    def _hold(self, readings: Sequence[Reading], known: Mapping[bytes, Known]) -> None:
        """What must stand behind an earlier event of its record key, and redriven letters, which begin their life here.

        One look and one write a batch; nothing at all is written while nothing is parked.
        """
        redriven = [r for r in readings if r.come and r.signal and r.come.delivery.kind == REDRIVE]
        pairs = [self._held_at(r, r.come.delivery.life) for r in redriven if self._begins(r, known)]  # type: ignore[union-attr]
        if self.matcher.declaration.ordering == "key" and not self.matcher.declaration.join:
            fresh = [r for r in readings if r.come is None and r.signal and r.raw.key and self._open(r, known)]
            held = self.store.inbox.held(0, {r.raw.key for r in fresh if r.raw.key}) if fresh else set()
            for r in fresh:
                r.behind = r.raw.key in held
            pairs += [self._held_at(r, 0) for r in fresh if r.behind]
        for lane in self.store.inbox.park(pairs) if pairs else []:
            for owned in self.owners.values():
                if owned.lane == lane:
                    owned.phase, owned.why = GONE, "fenced in SQL: another instance took the partition over"

    def _begins(self, reading: Reading, known: Mapping[bytes, Known]) -> bool:
        row = known.get(reading.key)
        life = reading.come.delivery.life if reading.come else 0
        fresh = row is None or (row.state in GIVEN_UP and row.life + 1 == life)
        return fresh and reading.key not in self.in_flight

    def _held_at(self, reading: Reading, life: int) -> tuple[Any, Outcome]:
        signal, raw = reading.signal, reading.raw
        run = reading.come.delivery.run_id if reading.come else self._run_id([reading.key])
        okey = raw.key if raw.key and self.matcher.declaration.ordering == "key" else b""
        digest = signal.digest if signal else b""
        now = self.clock.millis()
        return reading.owned.lane, Outcome(reading.key, run, "parked", life, digest, okey, raw.offset, "", 1, now)

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
        if reading.come is not None:
            self._arrive(reading, known)
        elif self.matcher.declaration.join and reading.signal is not None:
            self._join(reading, known)
        else:
            self._enter(reading)
            self._place(reading, known)

    def _enter(self, reading: Reading) -> Slot:
        reading.slot = reading.slot or reading.owned.admit(reading.offset)
        return reading.slot

    def _place(self, reading: Reading, known: Known | None) -> None:
        """What becomes of a record in its window."""
        if reading.reason:
            self.filtered += 1
            reading.owned.end(self._enter(reading), reading.reason)
        elif known is not None and known.state in _STANDS:
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
            if reading.behind:
                run = self._starting.pop()
                run.state, run.behind, run.ended_at = RunState.PARKED, True, self.clock.millis()
                self._parked(run)

    def _start(self, reading: Reading, signals: tuple[Signal, ...], key: bytes, join_key: bytes | None = None) -> None:
        lane = reading.owned.lane
        assert lane is not None  # noqa: S101 - only a partition that was taken over is read
        identity = self._run_id([s.key for s in signals])
        run = Run(identity, key, reading.raw.key or b"", signals, reading.owned, [self._enter(reading)])
        run.on_dead = self.matcher.declaration.on_dead
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
        self._publish_or_skip(slot, reading.raw, run, rows, reading.come.via if reading.come else "")

    def known_meanwhile(self, run: Run) -> None:
        """A run that found its key settled when it claimed it: a duplicate after all."""
        self.duplicates += 1
        via = run.via[0] if run.via else ""
        self._publish_or_skip(run.slots[0], run.cause.raw, run.known.run_id, run.stored, via)
        for slot in run.slots[1:]:
            slot.owned.end(slot, "duplicate")
        self.over(run)
        self.in_flight.pop(run.key, None)

    def _publish_or_skip(self, slot: Slot, raw: RawRecord, run: str, rows: Sequence[OutboxRow], via: str) -> None:
        """Stored bytes go out with the record that made them, come again; a copy elsewhere leaves them to it."""
        if rows and run not in self._publishing and self._made(rows, raw, via):
            self._publishing.add(run)
            slot.owned.add(Ended([slot], [self.books.stored(row) for row in rows], published=[run], finished=[run]))
        else:
            slot.owned.end(slot, "duplicate")

    def _made(self, rows: Sequence[OutboxRow], raw: RawRecord, via: str) -> bool:
        line = next(row for row in rows if row.topic == LEDGER_TOPIC)
        entry = self.codec.decode(LEDGER_TOPIC, line.value, []) or {}
        if entry["via"] or via:
            return via in entry["via"]
        causes = entry["triggers"]
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
        reading.owned.add(
            self.books.given_up(
                reading.owned, [slot], reading.raw, reading.event, reading.key, failure, come=reading.come
            )
        )

    def _join(self, reading: Reading, known: Known | None) -> None:
        """SQL first: an event waits in its set, completes it, or is known."""
        raw, signal = reading.raw, reading.signal
        assert signal is not None  # noqa: S101 - a signal of a join
        here = known is not None and (known.topic_id, known.partition, known.offset) == (
            raw.topic_id, raw.partition, raw.offset,
        )  # fmt: skip
        if known is not None and (known.state in _STANDS or (known.state == "waiting" and not here)):
            self._settled_before(reading, known)
            return
        member = self.joining.member(reading)
        joined = self.joining.add(reading, member)
        slot = self._enter(reading)
        if joined.state == "complete":
            signals = self.joining.signals(joined.members, signal)
            self._start(reading, signals, b"join:" + member.join_key, member.join_key)
        elif joined.state == "held":
            self.blocked.append(reading)
        elif joined.state == "known" and joined.known is not None:
            self._settled_before(reading, joined.known)
        else:
            missing = self.joining.missing(joined.members)
            reading.owned.add(self.books.waiting(reading.owned, slot, signal, member, missing))

    # ---- by the retry topic

    def _arrive(self, reading: Reading, known: Known | None) -> None:
        """A retry record: parked until it is due, settled without a run, or one that is known already."""
        come = reading.come
        assert come is not None  # noqa: S101 - it came by the retry topic
        delivery, slot = come.delivery, self._enter(reading)
        stands = (known.state, known.life) if known is not None else None
        verdict = admit(delivery.kind, delivery.life, stands)
        if self.parking.knows(reading.key, delivery.run_id) or reading.key in self.in_flight:
            verdict = DROP
        if verdict == WAIT:
            self.blocked.append(reading)
        elif verdict == REFUSE:
            error = BadLife(
                f"a redrive into life {delivery.life} of a run that stands at {stands}", place=str(reading.raw.position)
            )
            self._give_up(reading, error, "redrive")
        elif verdict == DROP:
            self.say("delivery.dropped", kind=delivery.kind, run=delivery.run_id, life=delivery.life, stands=stands)
            self._settled_before(reading, known) if known is not None else slot.owned.end(slot, "duplicate")
        elif delivery.kind == RESOLVE:
            reading.owned.add(self.books.closed(reading.owned, slot, "resolved", reading.raw, come))
        elif reading.error is not None:
            self._give_up(reading, reading.error, reading.stage)
        elif reading.reason:
            filtered = replace(come, why=reading.reason)
            reading.owned.add(self.books.closed(reading.owned, slot, "filtered", reading.raw, filtered))
        else:
            self._park(reading, known)

    def _park(self, reading: Reading, known: Known | None) -> None:
        come = reading.come
        assert come is not None  # noqa: S101 - as above
        attempt, due = come.delivery.attempt, come.appended + come.delivery.not_before
        if known is not None and known.state == "parked":
            attempt, due = max(attempt, known.attempt), known.due if known.due is not None else due
        wait = max(0.0, (due - self.clock.millis()) / 1000)
        self.parking.add(reading, attempt, self.clock.monotonic() + wait)

    def resume(self) -> list[Run]:
        """The parked runs that are due. Raises DatabaseUnreachable."""
        for item in self.parking.due():
            readings = item.readings
            reading = readings[-1]
            come = reading.come
            assert come is not None  # noqa: S101 - as above
            delivery = come.delivery
            key = b"join:" + delivery.join_key if delivery.join_key else reading.key
            signals = tuple(r.signal for r in readings if r.signal is not None)
            self._start(reading, signals, key, delivery.join_key or None)
            run = self._starting[-1]
            run.id, run.okey, run.life, run.attempt = delivery.run_id, item.okey, delivery.life, item.attempt
            run.slots = [r.slot for r in readings]
            run.via = [r.come.via for r in readings if r.come is not None]
            first = delivery.first_failed_at
            run.first_failed_at = datetime.fromisoformat(first) if first else None
        return self._started()

    def leave(self, runs: Sequence[Run]) -> None:
        """Runs that ended their stay: held in SQL first, then told to Kafka. Raises DatabaseUnreachable, nothing done.

        A dead one that holds its record key is held the same way: what comes meanwhile must stand behind it.
        """
        pairs = [(run.home.lane, outcome) for run in runs for outcome in self.books.outcomes(run)]
        fenced = self.store.inbox.park(pairs) if pairs else []
        point("hold.written")
        for run in runs:
            if run.home.lane in fenced:
                run.home.phase, run.home.why = GONE, "fenced in SQL: another instance took the partition over"
            elif run.state is RunState.PARKED:
                self._parked(run)
            else:
                run.home.add(self.books.ended(run))
                self.over(run)

    def _parked(self, run: Run) -> None:
        """In the retry topic already it keeps its place there; from its own partition it comes back by that topic."""
        run.home.add(self.books.parked(run))
        if self.in_flight.get(run.key) is run:
            del self.in_flight[run.key]  # SQL knows it by its hold
        if run.via:
            self.parking.again(run.id, run.attempt, run.pause)

    def over(self, run: Run) -> None:
        """A run has ended: what stands behind it in the retry topic may go."""
        if run.via:
            self.parking.over(run.id)

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
            if one.run is not None and self.in_flight.get(key := one.run.key) is one.run:
                del self.in_flight[key]

    def drop(self, owned: Owned) -> None:
        """The partition is gone: nothing of it counts any more, and copies elsewhere ask again."""
        for run in self.in_flight.values():
            if run.home is owned and not run.over:
                self.blocked += [copy for copy in run.copies if copy.owned is not owned]
        self.in_flight = {key: run for key, run in self.in_flight.items() if run.home is not owned}
        self.blocked = [r for r in self.blocked if r.owned is not owned]
        self.parking.drop(owned)
        self._starting = [run for run in self._starting if run.home is not owned]
