"""Every derived id, each formula with its reason.

Inside the dance ids are computed, never drawn by lot: whoever repeats a run computes the same ids, and
every consumer's dedup table makes the repeat harmless.
"""

from __future__ import annotations

import unicodedata
import uuid
from base64 import b32encode
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_NAMESPACE = uuid.UUID("6b2f5f3c-8d1e-5c57-9d3b-3f1b64fd9a01")


def event_key(source: str, event_id: str) -> bytes:
    """The idempotency key (16 bytes) of an event that carries an id: `ce_source` and `ce_id`."""
    return _key(b"ce", f"{source}\x00{event_id}".encode())


def position_key(topic_id: str, partition: int, offset: int) -> bytes:
    """The key (16 bytes) of a record without id. The topic's UUID: a recreated topic starts at offset 0 again."""
    return _key(b"pos", f"{topic_id}/{partition}/{offset}".encode())


def fields_key(values: Sequence[Any]) -> bytes:
    """The key (16 bytes) of declared fields, by value: an int 7 and a long 7 are the same.

    Raises TypeError for a float, which has no canonical form, and for values that are not scalar.
    """
    # a zero byte inside a value is told from the one between two: no form begins with a one byte
    return _key(b"fields", b"\x00".join(canonical(value).replace(b"\x00", b"\x00\x01") for value in values))


def _key(kind: bytes, value: bytes) -> bytes:
    return blake2b(b"farandole.key.v1" + kind + b"\x00" + value, digest_size=16).digest()


def canonical(value: Any) -> bytes:
    """One byte string per value, whatever Avro type carried it. Raises TypeError where there is none."""
    match value:
        case None:
            return b"n"
        case bool():
            return b"b1" if value else b"b0"
        case int():
            return b"i%d" % value
        case str():
            return b"s" + unicodedata.normalize("NFC", value).encode()
        case bytes():
            return b"x" + value
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            return f"d{'-' if sign else ''}{''.join(map(str, digits))}:{exponent}".encode()
        case datetime():
            return b"t%d" % ((value - _BEGINNING) // timedelta(microseconds=1))
        case date():
            return b"D" + value.isoformat().encode()
        case uuid.UUID():
            return b"s" + str(value).encode()
        case dict():
            parts = (k.encode() + b"=" + canonical(v) for k, v in sorted(value.items()))
            return b"{" + b"\x01".join(part.replace(b"\x01", b"\x01\x02") for part in parts) + b"}"
    msg = f"{type(value).__name__} cannot be part of an idempotency key"
    raise TypeError(msg)


def run_id(pipeline: str, epoch: int, keys: Sequence[bytes]) -> str:
    """The id of a run: who asked (pipeline), why (the keys of its triggers), and in which epoch."""
    return str(uuid.uuid5(_NAMESPACE, f"{pipeline}\x00{epoch}\x00" + ",".join(sorted(map(bytes.hex, keys)))))


def output_id(run: str, event_type: str, ordinal: int) -> str:
    """The id of an emitted event: its run, its type, and its place in the order of emission."""
    return str(uuid.uuid5(_NAMESPACE, f"{run}\x00{event_type}\x00{ordinal}"))


def attempt_key(run: str, step: str, branch: str = "") -> str:
    """The key a step sends outside (`Idempotency-Key`): the same for every attempt, so no attempt number in it."""
    digest = blake2b(f"{run}\x00{step}\x00{branch}".encode(), digest_size=16).digest()
    return b32encode(digest).decode().rstrip("=").lower()


def dead_letter_id(run: str, life: int, part: int = 1) -> str:
    """The id of a dead letter: one per run and life, and per event of a joined run."""
    return str(uuid.uuid5(_NAMESPACE, f"{run}\x00dead\x00{life}" + (f"\x00{part}" if part > 1 else "")))


def waiting_id(pipeline: str, epoch: int, key: bytes) -> str:
    """The ledger key of an event that waits in a join, before the run it will be part of has an id."""
    return str(uuid.uuid5(_NAMESPACE, f"{pipeline}\x00{epoch}\x00waiting\x00{key.hex()}"))


def tick_id(schedule: str, nominal: datetime) -> str:
    """The id of a tick: its schedule and its nominal time, so whoever tells it tells the same event."""
    return str(uuid.uuid5(_NAMESPACE, f"tick\x00{schedule}\x00{(nominal - _BEGINNING) // timedelta(seconds=1)}"))


def digest(value: bytes | None) -> bytes:
    """Eight bytes that tell whether a second event of the same key says the same thing."""
    return blake2b(value or b"", digest_size=8).digest()


def spread(key: bytes, partitions: int) -> int:
    """The partition of a key, as Java's default partitioner chooses it.

    >>> spread(b"mart-delays", 1)
    0
    """
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's Java client computes it (seed 0x9747b28c, 32 bits)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = (int.from_bytes(data[at : at + 4], "little") * m) & mask
        k = ((k ^ (k >> 24)) * m) & mask
        h = ((h * m) & mask) ^ k
    if rest := data[whole:]:
        h = ((h ^ int.from_bytes(rest, "little")) * m) & mask
    h = ((h ^ (h >> 13)) * m) & mask
    return h ^ (h >> 15)
