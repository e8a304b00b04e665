"""From what became of an event to what is written of it: ledger entry, dead letters, rows.

Every way out travels through here, so that landed = done + filtered + waiting + dead holds by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from farandole.clock import Clock
from farandole.deadletter import Failure, LetterContext, letter_of
from farandole.declaration import Declaration
from farandole.event import Event, RawRecord, Record
from farandole.ids import digest, run_id, waiting_id
from farandole.ledger.entry import LEDGER_TOPIC, Entry, Origin, reason
from farandole.owned import Ended, Owned, Slot
from farandole.run import Run, RunState, Signal
from farandole.store.inbox import OutboxRow, Outcome
from farandole.store.waiting import Member

MAX_LETTER = 1_000_000


@dataclass(slots=True)
class Books:
    """Writes the lines. One per worker."""

    declaration: Declaration
    encode: Callable[[str, dict[str, Any]], bytes]
    clock: Clock
    ledger_partition: int
    letter_partitions: int
    version: str
    instance: str

    def line(self, entry: Entry) -> Record:
        """The ledger record of an entry."""
        return Record(LEDGER_TOPIC, entry.key, self.encode(LEDGER_TOPIC, entry.record()), [], self.ledger_partition)

    def stored(self, row: OutboxRow) -> Record:
        """The record of an outbox row, as SQL decided it."""
        to = self.ledger_partition if row.topic == LEDGER_TOPIC else -1
        return Record(row.topic, row.record_key, row.value, list(row.headers), to)

    def outbox(self, run: Run) -> list[OutboxRow]:
        """The bytes of a run that SQL is about to decide: its outputs and its ledger entry."""
        records = [*run.outputs, self.line(self.of_run(run))]
        return [OutboxRow(run.id, n, r.topic, r.key, r.headers, r.value) for n, r in enumerate(records)]  # type: ignore[arg-type]

    def outcomes(self, run: Run) -> list[Outcome]:
        """What SQL is told of a run: one row for each key of its set."""
        return [
            Outcome(s.key, run.id, run.state.value, run.life, s.digest, run.okey, s.event.position.offset)
            for s in run.signals
        ]

    def of_run(self, run: Run) -> Entry:
        """The entry of a run that has ended."""
        cause = run.cause.event.envelope
        failure = run.failure
        return Entry(
            "run",
            self.declaration.name,
            run.id,
            run.epoch,
            run.state.value,
            run.life,
            keys=[s.key for s in run.signals],
            triggers=[origin(s) for s in run.signals],
            okey=run.okey,
            interval=run.interval,
            steps=run.steps,
            outputs=run.emitted,
            error=None if failure is None else _reason(failure),
            version=self.version,
            instance=self.instance,
            fence=run.fence,
            started_at=run.started_at,
            ended_at=run.ended_at,
            correlation_id=cause.correlation_id,
            causation_id=cause.id,
            traceparent=cause.traceparent,
            join_key=run.join_key.hex() if run.join_key else None,
        )

    def ended(self, run: Run) -> Ended:
        """What a run that has ended puts into the next transaction."""
        records = [*run.outputs, self.line(self.of_run(run))]
        if run.state is RunState.DEAD and run.failure is not None:
            records += [self.letter(s.raw, run.failure, run.id, run.life) for s in run.signals]
        if run.join_key is not None:
            records += [self.line(self._joined(run, s)) for s in run.signals[:-1]]
        final = run.state in (RunState.DONE, RunState.CAUGHT)
        return Ended(
            [run.slot] if run.slot is not None else [],
            records,
            self.outcomes(run),
            published=[run.id] if run.decided else (),
            finished=[run.id] if final and run.checkpointed else (),
            closed_joins=[run.join_key] if run.join_key is not None else (),
            run=run,
        )

    def _joined(self, run: Run, signal: Signal) -> Entry:
        """A member that waited has found its run."""
        return Entry(
            "run",
            self.declaration.name,
            waiting_id(self.declaration.name, run.epoch, signal.key),
            run.epoch,
            "joined",
            keys=[signal.key],
            triggers=[origin(signal)],
            version=self.version,
            instance=self.instance,
            fence=run.fence,
            started_at=run.started_at,
            ended_at=run.ended_at,
            correlation_id=signal.event.envelope.correlation_id,
            join_key=run.join_key.hex() if run.join_key else None,
            detail={"run": run.id},
        )

    def waiting(self, owned: Owned, slot: Slot, signal: Signal, member: Member, missing: Sequence[str]) -> Ended:
        """An event that waits in a join; the entry carries its bytes, so that the table can be rebuilt from it."""
        entry = self._about(owned, signal.key, signal.event, "waiting")
        entry.id = waiting_id(self.declaration.name, owned.lane.epoch, signal.key)  # type: ignore[union-attr]
        entry.triggers = [origin(signal)]
        entry.okey = member.record_key or b""
        entry.join_key = member.join_key.hex()
        entry.payload, entry.payload_key = member.value, member.record_key
        entry.headers = [{"name": n, "value": v or b""} for n, v in member.headers]
        entry.detail = {"missing": ", ".join(missing)}
        return Ended([slot], [self.line(entry)])

    def given_up(
        self,
        owned: Owned,
        slots: Sequence[Slot],
        raw: RawRecord,
        event: Event | None,
        key: bytes,
        failure: Failure,
        member: Member | None = None,
    ) -> Ended:
        """A record that came to no run and cannot: quarantined, in conflict, or expired. Whole, with its reason.

        `member` is set where it waited in a join: its entry takes the place of the one that says so.
        """
        entry = self._about(owned, key, event, "dead")
        if member is not None:
            entry.id = waiting_id(self.declaration.name, entry.epoch, key)
            entry.join_key = member.join_key.hex()
        entry.error = _reason(failure)
        entry.okey = raw.key or b""
        entry.triggers = [_origin(member.signal if member else "", raw, event)]
        outcome = Outcome(key, entry.id, "dead", 0, digest(raw.value), raw.key or b"", raw.offset)
        return Ended(slots, [self.letter(raw, failure, entry.id, 0), self.line(entry)], [outcome])

    def _about(self, owned: Owned, key: bytes, event: Event | None, state: str) -> Entry:
        lane, now = owned.lane, self.clock.millis()
        assert lane is not None  # noqa: S101 - only a partition that was taken over has records
        return Entry(
            "run",
            self.declaration.name,
            run_id(self.declaration.name, lane.epoch, [key]),
            lane.epoch,
            state,
            keys=[key],
            version=self.version,
            instance=self.instance,
            fence=lane.fence,
            started_at=now,
            ended_at=now,
            correlation_id=event.envelope.correlation_id if event else "",
            causation_id=event.envelope.id if event else "",
            traceparent=event.envelope.traceparent if event else "",
        )

    def letter(self, raw: RawRecord, failure: Failure, run: str, life: int) -> Record:
        """The dead letter of a record."""
        name = self.declaration.name
        where = LetterContext(self.declaration.dead_letter_topic, self.letter_partitions, name, self.version, run, life)
        return letter_of(raw, failure, where, MAX_LETTER)

    def span(self, owned: Owned, start: int, end: int) -> list[Record]:
        """What became of the records of a window that came to no run: by reason, their offsets. Nothing for none."""
        filtered: dict[str, list[int]] = {}
        duplicates: list[int] = []
        for slot in owned.unwritten():
            if slot.reason == "duplicate":
                duplicates.append(slot.offset)
            elif slot.reason:
                filtered.setdefault(slot.reason, []).append(slot.offset)
        if not filtered and not duplicates:
            return []
        lane = owned.lane
        assert lane is not None  # noqa: S101 - as above
        first = min(chain(duplicates, *filtered.values()))
        name = f"range:{self.declaration.name}:{lane.topic_id}/{lane.partition}/{first}"
        entry = Entry(
            "range", self.declaration.name, name, lane.epoch, "range", version=self.version, instance=self.instance
        )
        entry.fence, entry.started_at, entry.ended_at = lane.fence, self.clock.millis(), self.clock.millis()
        entry.span = {
            "topic": lane.topic,
            "topic_id": lane.topic_id,
            "partition": lane.partition,
            "start": start,
            "end": end,
            "filtered": filtered,
            "duplicates": duplicates,
        }
        return [self.line(entry)]

    def fact(self, owned: Owned, name: str, detail: dict[str, str]) -> Record:
        """Something about the pipeline that must not pass in silence."""
        lane = owned.lane
        assert lane is not None  # noqa: S101 - as above
        identity = f"fact:{self.declaration.name}:{name}:{lane.topic_id}/{lane.partition}/{detail.get('at', '')}"
        entry = Entry("fact", self.declaration.name, identity, lane.epoch, "fact", fact=name, detail=detail)
        entry.version, entry.instance, entry.fence = self.version, self.instance, lane.fence
        entry.started_at = entry.ended_at = self.clock.millis()
        return self.line(entry)


def origin(signal: Signal) -> Origin:
    """The trigger of an entry."""
    return _origin(signal.name, signal.raw, signal.event, signal.digest)


def _origin(name: str, raw: RawRecord, event: Event | None, said: bytes | None = None) -> Origin:
    return {
        "signal": name,
        "topic": raw.topic,
        "topic_id": raw.topic_id,
        "partition": raw.partition,
        "offset": raw.offset,
        "event_id": event.envelope.id if event else "",
        "event_source": event.envelope.source if event else "",
        "event_type": event.envelope.type if event else raw.topic,
        "digest": said if said is not None else digest(raw.value),
        "derived": event.envelope.derived if event else True,
    }


def _reason(failure: Failure) -> dict[str, str]:
    return reason(failure.class_name, failure.message, failure.fingerprint, failure.stage, failure.step)
