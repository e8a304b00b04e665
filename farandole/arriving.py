"""Where what is expected arrives: runs in the ledger, events in the topics of their types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from farandole.criteria import CriteriaError, criteria
from farandole.errors import Undecodable
from farandole.event import Interval, RawRecord, envelope_of
from farandole.expectation import Arrival, Expectation
from farandole.kafka.codec import Codec
from farandole.kafka.expectations import Fresh
from farandole.kafka.registry import UnknownSchema
from farandole.ledger.entry import LEDGER_TOPIC, Entry
from farandole.sentinel import Arrivals

IsOf = Callable[[Expectation], bool]


def runs(tail: Fresh, codec: Codec) -> Arrivals:
    """The runs of the ledger that were done."""
    return Arrivals(lambda: _runs(tail, codec), tail.rewind)


def events(event_type: str, tail: Fresh, codec: Codec) -> Arrivals:
    """The events of one type."""
    return Arrivals(lambda: _events(event_type, tail, codec), tail.rewind)


def _runs(tail: Fresh, codec: Codec) -> Iterator[tuple[IsOf, Arrival]]:
    for record in tail.fresh():
        told = _decoded(codec, LEDGER_TOPIC, record)
        if told is None or told["kind"] != "run" or told["state"] != "done":
            continue
        entry = Entry.of(told)
        yield _of_pipeline(entry.pipeline), Arrival(_moment(record), entry.interval, entry.id)


def _of_pipeline(pipeline: str) -> IsOf:
    return lambda row: row.pipeline == pipeline


def _events(event_type: str, tail: Fresh, codec: Codec) -> Iterator[tuple[IsOf, Arrival]]:
    for record in tail.fresh():
        told = _decoded(codec, event_type, record)
        if told is None:
            continue
        about = told.get("interval")
        interval = Interval.of(about) if isinstance(about, dict) and {"start", "end"} <= about.keys() else None
        envelope = envelope_of(record.headers, event_type, record.position)
        yield _of_event(event_type, told), Arrival(_moment(record), interval, envelope.id)


def _of_event(event_type: str, value: dict[str, Any]) -> IsOf:
    return lambda row: row.event_type == event_type and _meets(row.where, value)


def _meets(where: str, value: dict[str, Any]) -> bool:
    try:
        return criteria(where).test(value)
    except CriteriaError:
        return False


def _decoded(codec: Codec, topic: str, record: RawRecord) -> dict[str, Any] | None:
    """What the record says; None for one that nobody can read, which arrives nowhere."""
    try:
        return codec.decode(topic, record.value, record.headers)
    except (Undecodable, UnknownSchema):
        return None


def _moment(record: RawRecord) -> datetime:
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)
