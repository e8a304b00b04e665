"""Why a record stands in ``retry.<group>``: a parked run, a redriven dead letter, a missed event, or an order of ours.

Key, value and headers are those of the event, byte for byte; the headers that are added are taken off again by who
reads it. Nothing else ever writes to that topic, and nobody but its pipeline reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from farandole.errors import Undecodable
from farandole.event import RawRecord, Record
from farandole.ids import digest, spread

PARKED, BEHIND, REDRIVE, RESOLVE, REEMITTED = "parked", "behind", "redrive", "resolve", "reemitted"
REPAIR = "repair"
KINDS = (PARKED, BEHIND, REDRIVE, RESOLVE, REEMITTED, REPAIR)
"""A run that waits for its next attempt; an event behind such a run of its record key; a dead letter that is to be
run again; one that is settled by a person without running; an event that the reconciler found missed; the event of a
run that is done, and whose outputs it found gone."""

RUN, WAIT, DROP, REFUSE = "run", "wait", "drop", "refuse"
"""What a delivery may do: go on, wait for who has the key in hand, nothing (it is known), or it cannot be right."""

FINISHED = frozenset({"done", "caught"})
"""States of a run whose outputs stand."""

GIVEN_UP = frozenset({"dead", "dead-hold", "uncertain"})
"""States that wait for a person; behind `dead-hold` the later events of the record key wait too."""

_NAMES = {
    "run_id": "farandole-run-id",
    "epoch": "farandole-epoch",
    "life": "farandole-redrive-count",
    "attempt": "farandole-attempt",
    "not_before": "farandole-not-before-ms",
    "redrive_id": "farandole-redrive-id",
    "edited_from": "farandole-edited-from",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the event stood before (`topic` to `timestamp`), which key and run it belongs to, and when to run it.

    `life` counts redrives, `attempt` is the next one at the step at hand, `not_before` are milliseconds from the
    broker's append time. The events of a joined run travel as parts 1 to `parts`, in the order of the set.
    """

    kind: str
    run_id: str
    key: bytes
    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp: int = -1
    epoch: int = 0
    life: int = 0
    attempt: int = 1
    not_before: int = 0
    part: int = 1
    parts: int = 1
    join_key: bytes = b""
    first_failed_at: str = ""  # RFC 3339
    redrive_id: str = ""  # the command that sent it
    edited_from: str = ""  # digest of the value that stands on the event's topic, where a person edited it; hex
    actor: str = ""
    reason: str = ""
    outputs: str = ""  # of a repair: those that are gone, as `farandole.repair.wanted` reads them

    def headers(self) -> list[tuple[str, bytes]]:
        """As they stand beside those of the event."""
        told = []
        for f in fields(self):
            value = getattr(self, f.name)
            if value not in ("", b""):
                text = value.hex() if isinstance(value, bytes) else str(value)
                told.append((_header(f.name), text.encode("utf-8", "replace")))
        return told

    def said(self, value: bytes | None) -> bytes:
        """The digest of what the event says where it stands, whatever a person made of it on its way."""
        try:
            return bytes.fromhex(self.edited_from) or digest(value)
        except ValueError:
            return digest(value)

    @classmethod
    def of(cls, told: Mapping[str, bytes | None], place: str = "") -> Delivery:
        """From the headers of a record. Raises Undecodable where they are not those of a delivery."""
        values: dict[str, object] = {}
        try:
            for f in fields(cls):
                raw = told.get(_header(f.name))
                if raw is not None:
                    text = raw.decode()
                    values[f.name] = (
                        int(text) if f.type == "int" else bytes.fromhex(text) if f.type == "bytes" else text
                    )
            found = cls(**values)  # type: ignore[arg-type]  # each value has the type of its field
        except (TypeError, ValueError) as error:
            raise Undecodable("decode.no-delivery", f"not a record of ours: {error}", place=place) from error
        if found.kind not in KINDS:
            raise Undecodable("decode.no-delivery", f"deliveries are {', '.join(KINDS)}, not {found.kind}", place=place)
        if (found.kind == REPAIR) != bool(found.outputs.split()):
            raise Undecodable("decode.no-delivery", "a repair, and nothing else, names outputs", place=place)
        return found


@dataclass(frozen=True, slots=True)
class Come:
    """How an event came by the retry topic: the delivery, and where its record stands (topic id/partition/offset)."""

    delivery: Delivery
    via: str
    appended: int  # ms since 1970, by the broker
    why: str = ""


def retry_record(topic: str, partitions: int, raw: RawRecord, delivery: Delivery) -> Record:
    """The record of ``retry.<group>`` that brings the event `raw` back to its pipeline.

    The partition follows the record key, or the run where there is none or the run was joined: all that may happen
    to one run stands in one partition, whose owner alone may start it.
    """
    decides = raw.key if raw.key and delivery.parts == 1 else delivery.run_id.encode()
    headers = [*_own(raw), *delivery.headers()]
    return Record(topic, raw.key, raw.value, headers, spread(decides, partitions))


def delivered(raw: RawRecord) -> tuple[Delivery, RawRecord]:
    """The delivery, and the event as it stood on its own topic. Raises Undecodable."""
    delivery = Delivery.of(dict(raw.headers), str(raw.position))
    event = RawRecord(
        delivery.topic,
        delivery.topic_id,
        delivery.partition,
        delivery.offset,
        delivery.timestamp,
        raw.key,
        raw.value,
        _own(raw),
    )
    return delivery, event


def admit(kind: str, life: int, known: tuple[str, int] | None) -> str:
    """What a delivery of a life may do where the key stands at a state of a life (None: nothing is known of it).

    A redrive begins the life after the one that ended in the letter, and only that one; so two clicks, two tools
    and a repeated delivery are one run. A parked run goes on within its life.
    """
    if known is None:
        return RUN
    state, stands = known
    if kind == REPAIR:
        return RUN if state in FINISHED else DROP
    if kind == REEMITTED:
        return WAIT if state == "claimed" else DROP
    if state in GIVEN_UP:
        if life > stands + 1:
            return REFUSE
        return RUN if life == stands + 1 else DROP
    if state in ("parked", "claimed"):
        return RUN if kind != RESOLVE and life >= stands else DROP
    return DROP


def _header(name: str) -> str:
    return _NAMES.get(name) or "farandole-retry-" + name.replace("_", "-")


REEMITTED_HEADER = "farandole-reemitted"
"""How often the reconciler has sent an event by now; for people and for the reconciler, no part of the delivery."""
_ADDED = frozenset(_header(f.name) for f in fields(Delivery)) | {REEMITTED_HEADER}


def _own(raw: RawRecord) -> list[tuple[str, bytes | None]]:
    return [(name, value) for name, value in raw.headers if name not in _ADDED]
