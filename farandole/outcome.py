"""From what became of an event to what is written of it: ledger entry, dead letters, rows.

Every way out travels through here, so that landed = done + filtered + waiting + dead holds by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Any

from farandole.clock import Clock, iso
from farandole.deadletter import Failure, LetterContext, letter_of
from farandole.declaration import Declaration
from farandole.delivery import BEHIND, PARKED, Come, Delivery, retry_record
from farandole.event import Event, RawRecord, Record
from farandole.ids import digest, run_id, waiting_id
from farandole.ledger.entry import LEDGER_TOPIC, Entry, Origin, reason
from farandole.match import Signal
from farandole.owned import Ended, Owned, Slot
from farandole.repair import repaired
from farandole.run import Run, RunState
from farandole.store.inbox import OutboxRow, Outcome
from farandole.store.waiting import Member

MAX_LETTER = 1_000_000
_KEY = attrgetter("key")


@dataclass(slots=True)
class Books:
    """Writes the lines. One per worker."""

    declaration: Declaration
    encode: Callable[[str, dict[str, Any]], bytes]
    clock: Clock
    ledger_partition: int
    letter_partitions: int
    retry_partitions: int
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
        state = "dead-hold" if run.holds and run.state is RunState.DEAD else run.state.value
        okey = run.okey if self.declaration.ordering == "key" and run.join_key is None else b""
        parked = run.state is RunState.PARKED
        attempt, due = (run.attempt, run.ended_at + round(run.pause * 1000)) if parked else (0, None)
        return [
            Outcome(
                s.key, run.id, state, run.life, s.digest, okey, s.event.position.offset, "", attempt, due, run.epoch
            )
            for s in run.signals
        ]

    def of_run(self, run: Run) -> Entry:
        """The entry of a run that has ended."""
        last = run.cause
        cause, failure = last.event.envelope, run.failure
        return Entry(
            "run",
            self.declaration.name,
            run.id,
            run.epoch,
            run.state.value,
            run.life,
            keys=list(map(_KEY, run.signals)),
            triggers=list(map(origin, run.signals)),
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
            via=run.via or ([last.via] if last.via else []),
            detail=run.told,
        )

    def parked(self, run: Run) -> Ended:
        """What a run that leaves its place puts into the next transaction; in the retry topic already, it stays there.

        Its events travel whole to ``retry.<group>``, the parts of a joined set together.
        """
        entry = self.of_run(run)
        entry.attempt, entry.due = run.attempt, run.ended_at + round(run.pause * 1000)
        if run.behind:
            entry.detail = {**run.told, "behind": "an earlier event of its record key"}
        records = [self.line(entry)]
        if not run.via:
            records += [self._retry(run, part) for part in range(len(run.signals))]
        joined = run.join_key is not None and not run.via
        return Ended(
            [] if run.via else run.slots,
            records + ([self.line(self._joined(run, s)) for s in run.signals[:-1]] if joined else []),
            self.outcomes(run),
            closed_joins=[run.join_key] if run.join_key is not None and joined else (),
            run=None if run.via else run,
        )

    def _retry(self, run: Run, part: int) -> Record:
        signal = run.signals[part]
        raw = signal.raw
        delivery = Delivery(
            BEHIND if run.behind else PARKED,
            run.id,
            signal.key,
            raw.topic,
            raw.topic_id,
            raw.partition,
            raw.offset,
            raw.timestamp,
            run.epoch,
            run.life,
            run.attempt,
            round(run.pause * 1000),
            part + 1,
            len(run.signals),
            run.join_key or b"",
            iso(run.first_failed_at) if run.first_failed_at else "",
        )
        return retry_record(self.declaration.retry_topic, self.retry_partitions, raw, delivery)

    def ended(self, run: Run) -> Ended:
        """What a run that has ended puts into the next transaction."""
        if run.repairs:
            return repaired(run, self.told)
        records = [*run.outputs, self.line(self.of_run(run))]
        cause = "" if (final := run.state in (RunState.DONE, RunState.CAUGHT)) else None
        if run.state is RunState.DEAD and run.failure is not None:
            records += self._letters(run, run.failure)
            cause = run.failure.fingerprint if run.failure.reason != "cancelled" else None
        if run.join_key is not None and not run.via:
            records += [self.line(self._joined(run, s)) for s in run.signals[:-1]]
        return Ended(
            run.slots,
            records,
            self.outcomes(run),
            published=[run.id] if run.decided else (),
            finished=[run.id] if final and run.checkpointed else (),
            closed_joins=[run.join_key] if run.join_key is not None else (),
            cause=cause,
            run=run,
        )

    def _letters(self, run: Run, failure: Failure) -> list[Record]:
        """One for each event of the run; those of a joined set know that they belong together."""
        of_all = replace(
            self._where,
            run_id=run.id,
            life=run.life,
            parts=len(run.signals),
            join_key=run.join_key or b"",
            epoch=run.epoch,
        )
        return [
            letter_of(s.raw, failure, replace(of_all, key=s.key, part=n, said=s.digest), MAX_LETTER)
            for n, s in enumerate(run.signals, 1)
        ]

    @property
    def _where(self) -> LetterContext:
        name = self.declaration.name
        return LetterContext(self.declaration.dead_letter_topic, self.letter_partitions, name, self.version)

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
            via=via_of(signal),
            detail={"run": run.id},
        )

    def waiting(self, owned: Owned, slot: Slot, signal: Signal, member: Member, missing: Sequence[str]) -> Ended:
        """An event that waits in a join; the entry carries its bytes, so that the table can be rebuilt from it."""
        entry = self._about(owned, signal.key, signal.event, "waiting")
        entry.id = waiting_id(self.declaration.name, owned.lane.epoch, signal.key)  # type: ignore[union-attr]
        entry.triggers = [origin(signal)]
        entry.okey = member.record_key or b""
        entry.join_key, entry.via = member.join_key.hex(), via_of(member)
        entry.payload, entry.payload_key = member.value, member.record_key
        entry.headers = [{"name": n, "value": v or b""} for n, v in member.headers]
        entry.detail = {"missing": ", ".join(missing)}
        return Ended([slot], [self.line(entry)], waits=[signal.key])

    def given_up(
        self,
        owned: Owned,
        slots: Sequence[Slot],
        raw: RawRecord,
        event: Event | None,
        key: bytes,
        failure: Failure,
        member: Member | None = None,
        come: Come | None = None,
    ) -> Ended:
        """A record that came to no run and cannot: quarantined, in conflict, or expired. Whole, with its reason.

        `member` is set where it waited in a join: its entry takes the place of the one that says so. `come` is set
        where it came by the retry topic.
        """
        entry = self._about(owned, key, event, "dead", come)
        if member is not None:
            entry.id = waiting_id(self.declaration.name, entry.epoch, key)
            entry.join_key, entry.via = member.join_key.hex(), via_of(member)
        entry.error = _reason(failure)
        entry.okey = raw.key or b""
        entry.triggers = [_origin(member.signal if member else "", raw, event)]
        said = come.delivery.said(raw.value) if come else digest(raw.value)
        where = replace(self._where, run_id=entry.id, life=entry.life, key=key, said=said, epoch=entry.epoch)
        outcome = Outcome(key, entry.id, "dead", entry.life, said, b"", raw.offset, epoch=entry.epoch)
        records = [letter_of(raw, failure, where, MAX_LETTER), self.line(entry)]
        # what expired in a join tells nothing of the records at hand
        return Ended(slots, records, [outcome], cause=failure.fingerprint if slots else None)

    def closed(self, owned: Owned, slot: Slot, state: str, raw: RawRecord, come: Come) -> Ended:
        """What came by the retry topic and is settled without a run: resolved by a person, or filtered by new code."""
        entry = self._about(owned, come.delivery.key, None, state, come)
        entry.okey, entry.triggers = raw.key or b"", [_origin("", raw, None)]
        told = {
            "actor": come.delivery.actor,
            "reason": come.delivery.reason or come.why,
            "command": come.delivery.redrive_id,
        }
        entry.detail = {name: text for name, text in told.items() if text}
        key, said, epoch = come.delivery.key, come.delivery.said(raw.value), entry.epoch
        outcome = Outcome(key, entry.id, state, entry.life, said, b"", raw.offset, epoch=epoch)
        return Ended([slot], [self.line(entry)], [outcome], finished=[entry.id])

    def _about(self, owned: Owned, key: bytes, event: Event | None, state: str, come: Come | None = None) -> Entry:
        lane, now = owned.lane, self.clock.millis()
        assert lane is not None  # noqa: S101 - only a partition that was taken over has records
        return Entry(
            "run",
            self.declaration.name,
            come.delivery.run_id if come else run_id(self.declaration.name, lane.epoch, [key]),
            come.delivery.epoch if come else lane.epoch,
            state,
            come.delivery.life if come else 0,
            keys=[key],
            version=self.version,
            instance=self.instance,
            fence=lane.fence,
            started_at=now,
            ended_at=now,
            correlation_id=event.envelope.correlation_id if event else "",
            causation_id=event.envelope.id if event else "",
            traceparent=event.envelope.traceparent if event else "",
            via=[come.via] if come else [],
        )

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
        name += f"/epoch-{lane.epoch}" if lane.epoch else ""
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

    def told(
        self, name: str, about: str, detail: dict[str, str], epoch: int = 0, *, fence: int = 0, at: int | None = None
    ) -> Record:
        """A fact about the pipeline as a whole, under one id whoever tells it; `at` is when it was, if not now."""
        identity = f"fact:{self.declaration.name}:{name}:{about}"
        entry = Entry("fact", self.declaration.name, identity, epoch, "fact", fact=name, detail=detail)
        entry.version, entry.instance, entry.fence = self.version, self.instance, fence
        entry.started_at = entry.ended_at = self.clock.millis() if at is None else at
        return self.line(entry)

    def fact(self, owned: Owned, name: str, detail: dict[str, str]) -> Record:
        """Something about the pipeline that must not pass in silence."""
        lane = owned.lane
        assert lane is not None  # noqa: S101 - as above
        about = f"{lane.topic_id}/{lane.partition}/{detail.get('at', '')}"
        return self.told(name, about, detail, lane.epoch, fence=lane.fence)


def via_of(one: Signal | Member) -> list[str]:
    """The `via` of an entry: the retry record that brought it, if one did."""
    return [one.via] if one.via else []


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
