"""What the commands that read topics share: the clients, and a record as an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farandole.event import RawRecord
    from farandole.kafka.codec import Codec
    from farandole.kafka.reader import TopicReader
    from farandole.kafka.registry import Registry
    from farandole.settings import Settings


@dataclass(frozen=True, slots=True)
class Clients:
    """What is needed to look at topics. The codec reads every record by its writer's schema."""

    settings: Settings
    registry: Registry
    codec: Codec

    def reader(self, topic: str) -> TopicReader:
        """A reader of one topic; the caller's to close."""
        from farandole.kafka.reader import TopicReader

        return TopicReader(self.settings.bootstrap(), topic, self.settings.client_properties())


@contextmanager
def clients() -> Iterator[Clients]:
    """Clients for the servers that the settings name."""
    from farandole.kafka.codec import Codec
    from farandole.kafka.registry import Registry
    from farandole.settings import load_settings

    settings = load_settings()
    registry = Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)
    try:
        yield Clients(settings, registry, Codec(registry, {}))
    finally:
        registry.close()


def answer(raw: RawRecord, codec: Codec, event_type: str = "") -> dict[str, Any]:
    """A record with its envelope and its decoded value; one that cannot be read says why and shows its bytes."""
    from farandole.event import envelope_of
    from farandole.ledger.queries import moment

    envelope = envelope_of(raw.headers, event_type or raw.topic, raw.position)
    value, trouble = decoded(raw, codec, envelope.type)
    return {
        "topic": raw.topic,
        "partition": raw.partition,
        "offset": raw.offset,
        "timestamp": moment(raw.timestamp) if raw.timestamp >= 0 else None,
        "key": text(raw.key),
        "id": envelope.id,
        "derived": envelope.derived,
        "source": envelope.source,
        "type": envelope.type,
        "time": envelope.time or None,
        "correlation_id": envelope.correlation_id,
        "causation_id": envelope.causation_id or None,
        "run_id": envelope.run_id or None,
        "value": value,
        **trouble,
    }


def decoded(raw: RawRecord, codec: Codec, event_type: str) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The record's value; where it cannot be read, why not, and its bytes in hex."""
    from farandole.errors import Undecodable
    from farandole.kafka.registry import UnknownSchema

    try:
        return codec.decode(event_type, raw.value, raw.headers), {}
    except Undecodable as error:
        why = f"{error.reason}: {error.message}"
    except UnknownSchema as error:
        why = f"decode.unknown-schema: {error.message}"
    return None, {"undecodable": why, "raw": (raw.value or b"").hex()}


def text(raw: bytes | None) -> str | None:
    """Bytes as text where they are text, else in hex."""
    if raw is None:
        return None
    try:
        shown = raw.decode()
    except UnicodeDecodeError:
        return "0x" + raw.hex()
    return shown if shown.isprintable() else "0x" + raw.hex()


def headers(raw: RawRecord) -> list[dict[str, str | None]]:
    """The headers as they stand, in their order."""
    return [{"name": name, "value": text(value)} for name, value in raw.headers]
