"""A fact and its envelope, to and from Kafka headers.

The envelope is CloudEvents 1.0, Kafka binding, binary mode, written by hand because it stands on the
hot path (the ``cloudevents`` library is the oracle in the tests). W3C trace headers stay unprefixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")
Headers = list[tuple[str, bytes]]

EVENT_TYPES: dict[str, type[Any]] = {}
"""Every event class that was imported, by event type. Filled by :func:`fact`, never by hand."""


def fact(event_type: str, *, key: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """Label a class as the Python face of an event type; `key` names the fields of the record key.

    Used by the generated ``schemas/events.py``. The class must offer ``of(record)`` and ``record()``.
    """

    def label(cls: type[T]) -> type[T]:
        cls.__event_type__ = event_type  # type: ignore[attr-defined]
        cls.__event_key__ = key  # type: ignore[attr-defined]
        EVENT_TYPES[event_type] = cls
        return cls

    return label


def event_type_of(cls: object) -> str | None:
    """The event type of an event class or of an event; None for anything else."""
    return getattr(cls, "__event_type__", None)


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """A half-open time range ``[start, end)``: what a run is about, not when it ran. Always UTC."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Interval:
        """From an Avro record with ``start`` and ``end``."""
        return cls(record["start"], record["end"])

    def record(self) -> dict[str, datetime]:
        """The Avro record with ``start`` and ``end``."""
        return {"start": self.start, "end": self.end}

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%dT%H:%M}Z/{self.end:%Y-%m-%dT%H:%M}Z"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands. The topic's UUID, not its name: a recreated topic is another topic."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp: int = -1  # milliseconds since the epoch, the broker's or the producer's; -1 unknown

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(slots=True)
class Envelope:
    """What travels in an event's headers. `derived` says that the producer gave no id of its own."""

    id: str
    source: str
    type: str
    time: str = ""  # RFC 3339, UTC: when it happened
    subject: str = ""
    correlation_id: str = ""  # the whole story
    causation_id: str = ""  # the direct parent
    run_id: str = ""
    epoch: int = 0
    traceparent: str = ""
    tracestate: str = ""
    derived: bool = False
    restatement: str = ""  # what a replay emits, or what comes of that: how far it reaches, and which it is

    def headers(self) -> Headers:
        """The headers of a record, in a fixed order; empty values are left out."""
        out: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", self.id.encode()),
            ("ce_source", self.source.encode()),
            ("ce_type", self.type.encode()),
            ("content-type", b"application/avro"),
        ]
        for name, value in (
            ("ce_time", self.time),
            ("ce_subject", self.subject),
            ("ce_correlationid", self.correlation_id),
            ("ce_causationid", self.causation_id),
            ("ce_runid", self.run_id),
            ("traceparent", self.traceparent),
            ("tracestate", self.tracestate),
            ("ce_restatement", self.restatement),
        ):
            if value:
                out.append((name, value.encode()))
        if self.epoch:
            out.append(("ce_epoch", b"%d" % self.epoch))
        return out


def envelope_of(headers: Iterable[tuple[str, bytes | None]] | None, event_type: str, position: Position) -> Envelope:
    """The envelope of a record as it was read; what is missing is derived from the position.

    Header values that are not UTF-8 are read with replacement characters: a foreign header must not
    stop an event.
    """
    got = {name: value.decode("utf-8", "replace") for name, value in headers or () if value is not None}
    given = bool(got.get("ce_id"))
    identity = got["ce_id"] if given else f"pos:{position.topic_id}/{position.partition}/{position.offset}"
    return Envelope(
        id=identity,
        source=got.get("ce_source") or f"/kafka/{position.topic}",
        type=got.get("ce_type") or event_type,
        time=got.get("ce_time") or _rfc3339(position.timestamp),
        subject=got.get("ce_subject", ""),
        correlation_id=got.get("ce_correlationid") or identity,
        causation_id=got.get("ce_causationid", ""),
        run_id=got.get("ce_runid", ""),
        epoch=_number(got["ce_epoch"]) if "ce_epoch" in got else 0,
        traceparent=got.get("traceparent", ""),
        tracestate=got.get("tracestate", ""),
        derived=not given,
        restatement=got.get("ce_restatement", ""),
    )


def _rfc3339(milliseconds: int) -> str:
    if milliseconds < 0:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004 - nine digits fit


@dataclass(slots=True)
class Event:
    """One decoded record: envelope, position, the value as a plain dict, and the bytes it came from."""

    envelope: Envelope
    position: Position
    value: dict[str, Any]
    key: bytes | None = None
    raw: bytes | None = None
    headers: Headers | None = None  # as read, untouched

    @property
    def type(self) -> str:
        """The event type, which is also the name of its topic."""
        return self.envelope.type


@dataclass(slots=True)
class RawRecord:
    """A record as it was read, bytes untouched: what a dead letter keeps whole."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp: int = -1  # milliseconds since the epoch; -1 unknown
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(self.topic, self.topic_id, self.partition, self.offset, self.timestamp)


@dataclass(slots=True)
class Record:
    """A record to be produced. `partition` -1 leaves the choice to the partitioner (murmur2 of the key)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    partition: int = -1


def record_key(event: object, record: Mapping[str, Any]) -> bytes | None:
    """The record key of an event: its key fields, joined by ``/``; None where the event type has no key.

    `event` is an event class, an event, or the names of the key fields. An interval counts as its start.

    >>> record_key(("table", "hour"), {"table": "flights", "hour": 7})
    b'flights/7'
    """
    fields: tuple[str, ...] = event if isinstance(event, tuple) else getattr(event, "__event_key__", ())
    if not fields:
        return None
    return "/".join(map(_key_text, map(record.__getitem__, fields))).encode()


def _key_text(value: Any) -> str:
    match value:
        case Interval():
            return _zulu(value.start)
        case {"start": datetime() as start, "end": _}:
            return _zulu(start)
        case datetime():
            return _zulu(value)
        case bytes():
            return value.hex()
        case None:
            return ""
    return str(value)


def _zulu(moment: datetime) -> str:
    text = moment.astimezone(UTC).isoformat(timespec="seconds" if not moment.microsecond else "microseconds")
    return text.replace("+00:00", "Z")
