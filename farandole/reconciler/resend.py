"""What is done about missed events: sent again to the one pipeline that missed them, or given up as a dead letter.

An event goes with its own bytes, headers and id, in the same epoch, to the pipeline's retry topic; nobody else sees it.
There a member of a join goes into its set, as if it came by its own topic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from farandole.deadletter import Failure, LetterContext, fingerprint, letter_of, size_of
from farandole.declaration import Declaration
from farandole.delivery import REEMITTED, REEMITTED_HEADER, Delivery, retry_record
from farandole.event import RawRecord, Record, envelope_of
from farandole.ids import digest, run_id
from farandole.kafka.admin import Committed, Topic
from farandole.ledger.entry import LEDGER_TOPIC, Entry, Origin, ledger_partition, reason
from farandole.letters import own_key
from farandole.reconciler.account import Account
from farandole.reconciler.cluster import Cluster, Limits, position_of
from farandole.reconciler.missed import Missed, Place, Sent, sent_before
from farandole.reconciler.report import Found
from farandole.reconciler.told import places_told

TIMES = 3
"""So often an event is sent again before it becomes a dead letter."""
LARGEST = 1_000_000
"""Bytes that a record of the retry topic may have."""
STAGE = "reconcile"


@dataclass(frozen=True, slots=True)
class Case:
    """A missed event with its key, and the run that it would start, or that its letter names where it is of a join."""

    raw: RawRecord
    key: bytes
    run_id: str

    @property
    def place(self) -> Place:
        """Where the event stands."""
        return self.raw.topic_id, self.raw.partition, self.raw.offset


@dataclass(slots=True)
class Resend:
    """The missed events of one pipeline. `declared` gives the key of an event where its fields are declared."""

    declaration: Declaration
    cluster: Cluster
    account: Account
    declared: Callable[[RawRecord], bytes | None]
    limits: Limits

    def mend(
        self,
        found: Sequence[tuple[Found, Missed]],
        topics: Mapping[str, Topic],
        committed: Mapping[tuple[str, int], Committed],
    ) -> None:
        """Do what can be done, and note it in what was found. Raises Unreachable."""
        cases = [(one, [self._case(raw) for raw in missed.records]) for one, missed in found if missed.total]
        keys = {case.key for _, many in cases for case in many}
        known = places_told(self.cluster.read, self.cluster.codec, self.declaration, keys)
        retry = topics[self.declaration.retry_topic]
        sent = sent_before(self.cluster.read, retry.name)
        standing = {p: position_of(committed.get((retry.name, p)))[0] for p in range(retry.partitions)}
        records: list[Record] = []
        asked: set[bytes] = set()
        for one, many in cases:
            left = self._without_known(one, many, known, sent, retry)
            allowed = self.limits.of(one.outcomes.total())
            if one.missed > allowed:
                one.note = (
                    f"{one.missed} records are missing here, and a sweep sends {allowed} at most: look first, then "
                    f"farandole reconcile {self.declaration.name} --once --most {one.missed}"
                )
            else:
                for case in left:
                    records += self._acted(one, case, sent.get(case.place, ()), standing, topics, asked)
        if records and not self.limits.plan:
            self.cluster.send(records)

    def _case(self, raw: RawRecord) -> Case:
        key, name = self.declared(raw) or own_key(raw), self.declaration.name
        return Case(raw, key, run_id(name, 0, [key]))

    def _without_known(
        self,
        one: Found,
        cases: Sequence[Case],
        known: Mapping[bytes, Collection[Place]],
        sent: Mapping[Place, Sequence[Sent]],
        retry: Topic,
    ) -> list[Case]:
        coverage = self.account.of(one.topic_id, one.partition)
        left = []
        for case in cases:
            # a delivery that the pipeline has settled as known: it has an outcome that the ledger does not tell
            dropped = any(
                self.account.of(retry.topic_id, s.partition).covers(s.offset) for s in sent.get(case.place, ())
            )
            told = known.get(case.key, ())
            if dropped or any(place != case.place for place in told):  # another telling of it has come to something
                coverage.settled(case.raw.offset, "duplicate")
                one.missed -= 1
            elif told:
                one.pending += 1  # it has come itself, since the ledger was read: the next sweep knows as what
            else:
                left.append(case)
        one.outcomes = coverage.outcomes()
        return left

    def _acted(
        self,
        one: Found,
        case: Case,
        sent: Sequence[Sent],
        standing: Mapping[int, int | None],
        topics: Mapping[str, Topic],
        asked: set[bytes],
    ) -> Iterator[Record]:
        under_way = any((at := standing.get(s.partition)) is None or at <= s.offset for s in sent)
        if under_way or case.key in asked:
            one.pending += 1
            return
        if self.limits.plan:
            return
        asked.add(case.key)
        number = 1 + max((s.number for s in sent), default=0)
        record = self._delivery(case, number, topics[self.declaration.retry_topic])
        if number > TIMES or size_of(record) > LARGEST:
            one.dead += 1
            yield from self._letter(case, number - 1, topics)
        else:
            one.reemitted += 1
            yield record

    def _delivery(self, case: Case, number: int, retry: Topic) -> Record:
        raw = case.raw
        delivery = Delivery(
            REEMITTED, case.run_id, case.key, raw.topic, raw.topic_id, raw.partition, raw.offset, raw.timestamp
        )
        record = retry_record(retry.name, retry.partitions, raw, delivery)
        record.headers.append((REEMITTED_HEADER, str(number).encode()))
        return record

    def _letter(self, case: Case, times: int, topics: Mapping[str, Topic]) -> Iterator[Record]:
        """The letter first, then the entry that says that the run is dead: between the two it is found again."""
        raw, name = case.raw, self.declaration.name
        why = f"sent again {times} times, and it came to nothing" if times else "too large to be sent again"
        failure = Failure(
            "NeverSettled",
            why,
            STAGE,
            fingerprint=fingerprint(name, STAGE, "NeverSettled", why, ""),
            attempts=times,
            first_failed_at=self.cluster.clock.now(),
            reason="reconcile.never-settled",
        )
        letters = topics[self.declaration.dead_letter_topic]
        where = LetterContext(letters.name, letters.partitions, name, self.cluster.version, case.run_id, key=case.key)
        yield letter_of(raw, failure, where, LARGEST)
        entry = Entry("run", name, case.run_id, state="dead", keys=[case.key], triggers=[_origin(raw)])
        entry.okey, entry.version, entry.instance = raw.key or b"", self.cluster.version, self.cluster.instance
        entry.started_at = entry.ended_at = self.cluster.clock.millis()
        entry.error = reason("NeverSettled", why, failure.fingerprint, STAGE, "")
        value = self.cluster.codec.encode(LEDGER_TOPIC, entry.record())
        yield Record(LEDGER_TOPIC, entry.key, value, [], ledger_partition(name, topics[LEDGER_TOPIC].partitions))


def _origin(raw: RawRecord) -> Origin:
    envelope = envelope_of(raw.headers, raw.topic, raw.position)
    return {
        "signal": "",
        "topic": raw.topic,
        "topic_id": raw.topic_id,
        "partition": raw.partition,
        "offset": raw.offset,
        "event_id": envelope.id,
        "event_source": envelope.source,
        "event_type": envelope.type,
        "digest": digest(raw.value),
        "derived": envelope.derived,
    }
