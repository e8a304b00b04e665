"""The two event types of the hop, as bytes: what every contender but Farandole does by hand.

Confluent wire format with fastavro; the ids come from the environment, so that no contender pays for a
look-up that another does not make. Imports neither Kafka nor Farandole: the peers have an environment of
their own.
"""

from __future__ import annotations

import io
import os
import uuid
from dataclasses import dataclass

import fastavro

ASKED = {
    "type": "record",
    "name": "Asked",
    "namespace": "bench",
    "doc": "Something is to be worked out.",
    "key": ["account"],
    "fields": [
        {"name": "seq", "type": "long", "doc": "Its number in the bench."},
        {"name": "sent_ns", "type": "long", "doc": "When it was produced, nanoseconds since 1970."},
        {"name": "account", "type": "string", "doc": "Its record key."},
        {"name": "amount", "type": "double", "doc": "What is asked about."},
        {"name": "note", "type": "string", "doc": "A hundred characters of ballast."},
    ],
}
ANSWERED = {
    "type": "record",
    "name": "Answered",
    "namespace": "bench",
    "doc": "It was worked out.",
    "key": ["account"],
    "fields": [
        {"name": "seq", "type": "long", "doc": "The number that was asked."},
        {"name": "sent_ns", "type": "long", "doc": "When the question was produced."},
        {"name": "account", "type": "string", "doc": "Its record key."},
        {"name": "total", "type": "double", "doc": "The answer."},
        {"name": "note", "type": "string", "doc": "The ballast."},
    ],
}
_ASKED, _ANSWERED = fastavro.parse_schema(dict(ASKED)), fastavro.parse_schema(dict(ANSWERED))


@dataclass(frozen=True)
class Race:
    """What the environment says about this run."""

    bootstrap: str
    group: str
    asked: str
    answered: str
    answered_id: int
    folder: str

    @classmethod
    def here(cls) -> Race:
        env = os.environ
        return cls(
            env["KAFKA_BOOTSTRAP_SERVERS"],
            env["HOP_GROUP"],
            env["HOP_ASKED"],
            env["HOP_ANSWERED"],
            int(env["HOP_ANSWERED_ID"]),
            env["HOP_FOLDER"],
        )


def framed(schema_id: int, schema: dict, record: dict) -> bytes:
    out = io.BytesIO()
    out.write(b"\x00" + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def ask(schema_id: int, record: dict) -> bytes:
    return framed(schema_id, _ASKED, record)


def read_asked(value: bytes) -> dict:
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), _ASKED)


def read_answered(value: bytes) -> dict:
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), _ANSWERED)


def answer(record: dict) -> dict:
    """The work of the one step: the same for every contender."""
    return {
        "seq": record["seq"],
        "sent_ns": record["sent_ns"],
        "account": record["account"],
        "total": record["amount"] * 1.2,
        "note": record["note"],
    }


def answered_value(race: Race, value: bytes) -> bytes:
    return framed(race.answered_id, _ANSWERED, answer(read_asked(value)))


def envelope(event_type: str, ce_id: str, cause: str = "") -> list[tuple[str, bytes]]:
    found = [
        ("ce_specversion", b"1.0"),
        ("ce_id", ce_id.encode()),
        ("ce_source", b"/bench"),
        ("ce_type", event_type.encode()),
        ("content-type", b"application/avro"),
    ]
    return [*found, ("ce_causationid", cause.encode())] if cause else found


def derived(ce_id: str) -> str:
    """The output's id, from the input's: the least that a careful hand-written service does."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, ce_id))
