"""The first look at a record: decode, match, key. No SQL; what cannot be read is told, never raised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farandole.cascade import refused
from farandole.clock import Clock
from farandole.criteria import CriteriaError
from farandole.delivery import REEMITTED, RESOLVE, Come, delivered
from farandole.errors import RegistryUnreachable, Undecodable
from farandole.event import Event, RawRecord, envelope_of
from farandole.ids import digest, position_key
from farandole.kafka.codec import Codec
from farandole.kafka.registry import UnknownSchema
from farandole.ledger.entry import place_of
from farandole.match import Match, Matcher, Signal
from farandole.orders import Order
from farandole.owned import RUNNING, Owned, Slot

SCHEMA_WAIT = 60.0
"""Seconds that an unknown schema id may take to appear (a new registry replica, a late registration)."""

_OF_THE_RECORD: dict[str, tuple[type[Exception], ...]] = {
    "decode": (Undecodable,),
    "match": (CriteriaError, KeyError, TypeError, ValueError),
    "key": (KeyError, TypeError),
}
"""What a record can be to blame for, by stage."""


At = tuple[int, bytes]
"""An idempotency key in its epoch: what is known, claimed and in flight is told apart by both."""


@dataclass(slots=True)
class Reading:
    """One record as far as it was read: a signal, a reason why it is none, or an error that makes it dead.

    `raw` is the event where it stood first, `offset` the place of the record in its partition of `owned`: another
    one where it came by the retry topic, and then `come` says how.
    """

    owned: Owned
    raw: RawRecord
    offset: int
    come: Come | None = None
    key: bytes = b""
    at: At = (0, b"")  # the key in its epoch
    event: Event | None = None
    signal: Signal | None = None
    reason: str = ""
    error: BaseException | None = None
    stage: str = "decode"
    slot: Slot | None = None
    epoch: int = 0
    claimed: bool = False  # the claim of its key is for this very record
    behind: bool = False  # an earlier event of its record key is parked, or dead and holds it

    @property
    def begins(self) -> bool:
        """Whether it is as if it came for the first time: what is parked or redriven has its row already."""
        return self.come is None or self.come.delivery.kind == REEMITTED

    @property
    def record(self) -> RawRecord:
        """The record as it stands in its partition of `owned`."""
        raw, come = self.raw, self.come
        if come is None:
            return raw
        headers = [*raw.headers, *come.delivery.headers()]
        topic_id, partition, offset = place_of(come.via)
        return RawRecord(self.owned.topic, topic_id, partition, offset, come.appended, raw.key, raw.value, headers)


@dataclass(slots=True)
class Reader:
    """Reads batches. A registry that is away sends the partition back to the record, after a pause."""

    matcher: Matcher
    codec: Codec
    clock: Clock
    owners: Mapping[tuple[str, int], Owned]
    place_back: Callable[[Owned, int, str], None]
    epoch: int = 0
    order: Order | None = None  # what is asked for of the epoch's ranges; None: all
    retry_topic: str = field(init=False)
    _unknown_since: dict[tuple[str, int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.retry_topic = self.matcher.declaration.retry_topic

    def read(self, records: Sequence[RawRecord]) -> list[Reading]:
        """Each record as far as it could be read, in order; records of partitions that must wait are left out."""
        readings: list[Reading] = []
        cut: set[tuple[str, int]] = set()
        last: dict[tuple[str, int], int] = {}
        for raw in records:
            at = (raw.topic, raw.partition)
            owned = self.owners.get(at)
            if (
                owned is None
                or owned.phase != RUNNING
                or owned.back
                or at in cut
                or raw.offset < last.get(at, owned.seen)
            ):
                continue
            try:
                readings.append(self._read_one(owned, raw))
            except (RegistryUnreachable, UnknownSchema) as wait:
                cut.add(at)
                self.place_back(owned, raw.offset, str(wait))
                continue
            readings[-1].at = (readings[-1].epoch, readings[-1].key)
            last[at] = raw.offset + 1
        return readings

    def _read_one(self, owned: Owned, raw: RawRecord) -> Reading:
        reading = Reading(owned, raw, raw.offset, epoch=self.epoch)
        try:
            if raw.topic == self.retry_topic:
                self._unpack(reading, raw)
                raw = reading.raw
                if reading.come and reading.come.delivery.kind == RESOLVE:
                    return reading  # a person settles it as it is, readable or not
            elif self.order is not None and (reason := self.order.refuses(raw)):
                reading.reason = reason
                return reading
            value = self._decode(raw, owned, reading.offset)
            if value is None:
                reading.reason = "tombstone"
                return reading
            at = raw.position
            event = Event(envelope_of(raw.headers, raw.topic, at), at, value, raw.key, raw.value)
            reading.event, reading.stage = event, "match"
            found = self.matcher.match(raw.topic, event)
            if not isinstance(found, Match):
                reading.reason = found
                return reading
            if event.envelope.restatement and (reason := refused(event.envelope.restatement)):
                reading.reason = reason
                return reading
            reading.stage = "key"
            reading.key = reading.key or self.matcher.key(event)
            come = reading.come
            said, via = (come.delivery.said(raw.value), come.via) if come else (digest(raw.value), "")
            reading.signal = Signal(found.signal, event, raw, reading.key, said, found.fact, via)
        except Exception as error:
            if not isinstance(error, _OF_THE_RECORD[reading.stage]):
                raise  # not the record's fault: nothing is given up for it
            reading.error = error
            reading.key = reading.key or position_key(raw.topic_id, raw.partition, raw.offset)
        return reading

    def _unpack(self, reading: Reading, raw: RawRecord) -> None:
        """The event that a retry record brings back, as it stood on its own topic. Its key is not asked for again."""
        delivery, reading.raw = delivered(raw)
        reading.come = Come(delivery, f"{raw.topic_id}/{raw.partition}/{raw.offset}", raw.timestamp)
        reading.key, reading.epoch = delivery.key, delivery.epoch

    def _decode(self, raw: RawRecord, owned: Owned, offset: int) -> dict[str, Any] | None:
        """Decoded, or None for a tombstone; an unknown schema id is waited for, then given up."""
        at = (raw.topic, raw.partition, raw.offset)
        if offset == owned.killer:
            raise Undecodable("decode.killed-process", "the process ended whenever it had this record in hand")
        try:
            value = self.codec.decode(raw.topic, raw.value, raw.headers)
        except UnknownSchema as unknown:
            since = self._unknown_since.setdefault(at, self.clock.monotonic())
            if self.clock.monotonic() - since < SCHEMA_WAIT:
                raise
            del self._unknown_since[at]
            raise Undecodable("decode.unknown-schema", str(unknown), place=str(raw.position)) from unknown
        if self._unknown_since:
            self._unknown_since.pop(at, None)
        return value
