"""From a batch of records to runs: decode, match, key, known?, claim.

Nothing enters a partition's window before the questions to registry and database were answered, so a
server that is away costs a step back to the first record, never a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from farandole.clock import Clock
from farandole.deadletter import failure_of
from farandole.delivery import DROP, GIVEN_UP, REFUSE, RESOLVE, RUN, WAIT, admit
from farandole.errors import FarandoleError
from farandole.event import RawRecord
from farandole.holding import Holding
from farandole.ids import position_key, run_id
from farandole.joining import Joining
from farandole.kafka.codec import Codec
from farandole.match import Matcher, Signal
from farandole.outcome import Books
from farandole.owned import RUNNING, Ended, Owned, Slot
from farandole.parking import Parked, Parking
from farandole.points import point
from farandole.protection import Protection
from farandole.reading import At, Reader, Reading
from farandole.repair import wanted
from farandole.run import Run, RunState
from farandole.store import Store
from farandole.store.inbox import Known
from farandole.store.rows import STANDS
from farandole.unpublished import Unpublished


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
    protection: Protection
    in_flight: dict[At, Run] = field(default_factory=dict)
    blocked: list[Reading] = field(default_factory=list)
    _starting: list[Run] = field(default_factory=list)
    joining: Joining = field(init=False)
    holding: Holding = field(init=False)
    unpublished: Unpublished = field(init=False)

    def __post_init__(self) -> None:
        self.unpublished = Unpublished(self.books, self.codec)
        self.joining = Joining(self.matcher, self.codec, self.store)
        self.holding = Holding(
            self.books, self.store.inbox, self.clock, self.owners, self.parking, self.in_flight, self.reader.epoch
        )

    def claim_keys(self) -> None:
        """From now on claim each key before its run starts: copies may reach two owners."""
        self.claiming = True

    def take(self, records: Sequence[RawRecord]) -> list[Run]:
        """The runs that a batch starts; everything else of it has entered its window with its outcome.

        Raises DatabaseUnreachable with nothing entered: the caller places the partitions back.
        """
        point("intake.polled")
        readings = self.reader.read(records)
        known = self._known(readings)
        for reading in readings:
            if reading.owned.guard.stop is None:
                self._admit(reading, known)
        return self._started()

    # ---- known? one bulk query, one bulk claim

    def _known(self, readings: Sequence[Reading]) -> dict[At, Known]:
        if not self.claiming and any(r.signal and r.raw.key is None and not r.event.envelope.derived for r in readings):  # type: ignore[union-attr]
            self.claiming = True
            self.say("keys.not-local", detail="a record without key carries an id: copies may reach two owners")
        asked: dict[int, list[bytes]] = {}
        for r in readings:
            if (r.signal or r.error or r.come) and r.at not in self.in_flight:
                asked.setdefault(r.epoch, []).append(r.key)
        look = self.store.inbox.known
        known = {(epoch, key): row for epoch, keys in asked.items() for key, row in look(epoch, keys).items()}
        self.holding.forget(readings, known)
        if self.claiming and not self.matcher.declaration.join:
            self.holding.claim(
                [r for r in readings if r.signal and r.begins and self._open(r, known)], known, self._run_id
            )
        self.holding.hold([r for r in readings if r.signal and self._begins(r, known)], self._run_id)
        for killer in (r for r in readings if self.matcher.declaration.join and r.owned.killer == r.offset):
            assert killer.owned.lane is not None  # noqa: S101 - only a partition that was taken over is read
            self.store.waiting.give_back(killer.owned.lane, killer.offset)  # the others of its set wait on
        unpublished = [k.run_id for k in known.values() if k.unpublished]
        self.unpublished.stored = self.store.inbox.unpublished(unpublished) if unpublished else {}
        return known

    def _begins(self, reading: Reading, known: Mapping[At, Known]) -> bool:
        """Whether the key has no row yet, or is a letter's whose next life is asked for."""
        row, come = known.get(reading.at), reading.come
        if reading.at in self.in_flight:
            return False
        if come is None or row is None:
            return row is None
        return row.state in GIVEN_UP and admit(come.delivery.kind, come.delivery.life, (row.state, row.life)) == RUN

    def _open(self, reading: Reading, known: Mapping[At, Known]) -> bool:
        """Whether it could start a run, now: where the line has stopped it is read again."""
        standing, stopped = known.get(reading.at), reading.owned.guard.stop is not None
        return not stopped and reading.at not in self.in_flight and (standing is None or standing.state == "claimed")

    def _run_id(self, keys: list[bytes]) -> str:
        return run_id(self.matcher.declaration.name, self.reader.epoch, keys)

    # ---- entering the window

    def _admit(self, reading: Reading, known: dict[At, Known]) -> None:
        stands = known.get(reading.at)
        if self.matcher.declaration.join and reading.signal is not None and reading.begins:
            self._join(reading, stands)
        elif reading.come is not None:
            self._arrive(reading, stands)
        elif reading.behind and stands is None and reading.signal is not None:
            known[reading.at] = self._park_behind(reading, reading.signal)
        else:
            self._place(reading, stands)

    def _park_behind(self, reading: Reading, signal: Signal) -> Known:
        """It goes to the retry topic without having begun; another telling of it in this batch is a duplicate."""
        self._start(reading, (signal,), reading.key)
        run = self._starting.pop()
        run.state, run.behind, run.ended_at = RunState.PARKED, True, self.clock.millis()
        self.holding.parked(run)
        return Known(reading.key, "parked", run.id, 0, signal.digest)

    def _enter(self, reading: Reading) -> Slot:
        reading.slot = reading.slot or reading.owned.admit(reading.offset)
        return reading.slot

    def _place(self, reading: Reading, known: Known | None) -> None:
        """What becomes of a record in its window."""
        if reading.reason:
            reading.owned.end(self._enter(reading), reading.reason)
        elif known is not None and known.state in STANDS:
            self._settled_before(reading, known)
        elif reading.error is not None:
            self._give_up(reading, reading.error, reading.stage)
        elif (running := self.in_flight.get(reading.at)) is not None:
            self._copy(reading, running)
        elif self.claiming and not reading.claimed:
            self._enter(reading)
            self.blocked.append(reading)  # somebody else is at it, or another record of ours: its outcome is ours too
        else:
            assert reading.signal is not None  # noqa: S101 - the remaining case
            self._start(reading, (reading.signal,), reading.key)

    def _start(self, reading: Reading, signals: tuple[Signal, ...], key: bytes, join_key: bytes | None = None) -> None:
        run = self._run(reading, signals, key, join_key)
        self.in_flight[run.at] = run
        self._starting.append(run)

    def _run(self, reading: Reading, signals: tuple[Signal, ...], key: bytes, join_key: bytes | None) -> Run:
        lane = reading.owned.lane
        assert lane is not None  # noqa: S101 - only a partition that was taken over is read
        identity = run_id(self.matcher.declaration.name, reading.epoch, [s.key for s in signals])
        at = (reading.epoch, key)
        run = Run(identity, key, reading.raw.key or b"", signals, at, reading.owned, [self._enter(reading)])
        run.epoch = reading.epoch
        run.fence, run.join_key = lane.fence, join_key
        run.checkpointed = self.resumable
        return run

    def _settled_before(self, reading: Reading, known: Known) -> None:
        """A duplicate; where SQL has decided and Kafka was not told, the stored bytes go out now."""
        if reading.signal is not None and known.digest != reading.signal.digest and self._conflicts(reading):
            return
        slot, run = self._enter(reading), known.run_id
        rows = self.unpublished.stored.get(run, [])  # a copy that comes first leaves them to the record that made them
        self.unpublished.publish_or_skip(slot, reading.raw, run, rows, reading.come.via if reading.come else "")

    def known_meanwhile(self, run: Run) -> None:
        """A run that found its key settled when it claimed it: a duplicate after all, and so are its copies."""
        self.unpublished.publish_with_maker(run)
        self.parking.over(run.id)
        self.in_flight.pop(run.at, None)

    def _copy(self, reading: Reading, running: Run) -> None:
        if reading.signal is not None and reading.signal.digest != running.cause.digest and self._conflicts(reading):
            return
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
        signal = reading.signal
        assert signal is not None  # noqa: S101 - a signal of a join
        member = self.joining.member(reading)
        joined = self.joining.add(reading, member, known)
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
        if self.parking.knows(reading.at, delivery.run_id) or reading.at in self.in_flight:
            verdict = DROP
        elsewhere = self.claiming and reading.begins and reading.signal is not None and not reading.claimed
        if verdict == WAIT or (verdict == RUN and elsewhere):
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
            run = self.parked(item)
            if (running := self.in_flight.get(run.at)) is not None:  # sent again, and told again by its source
                for reading in item.readings:
                    self._copy(reading, running)
                self.parking.over(run.id)
                continue
            self.in_flight[run.at] = run
            self._starting.append(run)
        return self._started()

    def parked(self, item: Parked) -> Run:
        """The run that waits in the retry topic, as it would go on now."""
        readings = item.readings
        come = readings[-1].come
        assert come is not None  # noqa: S101 - it came by the retry topic
        delivery, signals = come.delivery, tuple(r.signal for r in readings if r.signal is not None)
        key = b"join:" + delivery.join_key if delivery.join_key else readings[-1].key
        run = self._run(readings[-1], signals, key, delivery.join_key or None)
        run.id, run.okey, run.life, run.attempt = delivery.run_id, item.okey, delivery.life, item.attempt
        run.slots = [r.slot for r in readings]
        run.via = [r.come.via for r in readings if r.come is not None]
        run.repairs = wanted(delivery.outputs)
        first = delivery.first_failed_at
        run.first_failed_at = datetime.fromisoformat(first) if first else None
        return run

    # ---- what could not go on at once

    def retry_blocked(self) -> list[Run]:
        """Ask again for keys that somebody else held. Raises DatabaseUnreachable with nothing changed."""
        waiting, self.blocked = self.joining.parted([r for r in self.blocked if r.owned.phase == RUNNING])
        try:
            known = self._known(waiting)
            while waiting:
                self._admit(waiting[0], known)
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
            if one.published:
                self.unpublished.settled(one.published)
            if one.run is not None and self.in_flight.get(at := one.run.at) is one.run:
                del self.in_flight[at]

    def drop(self, owned: Owned) -> None:
        """The partition is gone: nothing of it counts any more, and copies elsewhere ask again."""
        for run in self.in_flight.values():
            if run.home is owned and not run.over:
                run.give_up()
                self.blocked += [copy for copy in run.copies if copy.owned is not owned]
        for at in [at for at, run in self.in_flight.items() if run.home is owned]:
            del self.in_flight[at]
        self.blocked = [r for r in self.blocked if r.owned is not owned]
        self.parking.drop(owned)
        self.unpublished.drop(owned)
        self._starting = [run for run in self._starting if run.home is not owned]
