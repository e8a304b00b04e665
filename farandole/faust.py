"""For Faust apps that listen to events here, or emit them: the wire format, the headers, and how brokers are reached.

Faust knows no transactions: it reads what was aborted, and what it emits is told at least once. So let it read topics
that nobody writes in transactions (`farandole.telemetry.v1`, feeds of other producers), and count by ids.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Mapping
from typing import Any

import faust
from faust.serializers.codecs import Codec as FaustCodec

from farandole.clock import SystemClock, iso
from farandole.errors import SettingsError
from farandole.event import Envelope
from farandole.kafka.codec import Codec
from farandole.settings import Settings

_TLS = {"SSL", "SASL_SSL"}


class Avro(FaustCodec):
    """The values of one event type: Avro in Confluent's wire format, by the registry's schemas.

    For `value_serializer`. Loading raises Undecodable, dumping Unencodable; either RegistryUnreachable.
    """

    def __init__(self, codec: Codec, event_type: str) -> None:
        super().__init__(codec=codec, event_type=event_type)
        self._codec, self._event_type = codec, event_type

    def _loads(self, s: bytes) -> Any:
        return self._codec.decode(self._event_type, s)

    def _dumps(self, s: Any) -> bytes:
        return self._codec.encode(self._event_type, s)


def app(settings: Settings, name: str, **options: Any) -> faust.App:
    """A Faust app on the brokers that the settings name; `options` are those of `faust.App`. Raises SettingsError."""
    properties = settings.client_properties()
    brokers = [f"kafka://{address.strip()}" for address in settings.bootstrap().split(",")]
    folder = settings.state_dir / "faust" / name
    folder.mkdir(parents=True, exist_ok=True)
    given = {
        "store": "memory://",
        "datadir": str(folder),
        "web_enabled": False,
        "broker_credentials": credentials(properties),
        **options,
    }
    return faust.App(name, broker=brokers, **given)


def topic(of: faust.App, event_type: str, codec: Codec) -> Any:
    """The topic of an event type: keys are bytes, values records as dictionaries. The app does not create it."""
    return of.topic(event_type, key_type=bytes, key_serializer="raw", value_serializer=Avro(codec, event_type))


def headers(event_type: str, source: str, *, id: str, cause: str = "") -> dict[str, bytes]:  # noqa: A002 - as CloudEvents has it
    """The headers of an event that a Faust app emits. An `id` made of what it is about makes a repeat a duplicate.

    >>> told = headers("flight.delayed.v1", "/faust/delays", id="KL1234 2026-11-30", cause="x")
    >>> told["ce_source"], told["ce_causationid"]
    (b'/faust/delays', b'x')
    """
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{source} {event_type} {id}"))
    envelope = Envelope(identity, source, event_type, iso(SystemClock().now()), "", cause or identity, cause)
    return {name: value for name, value in envelope.headers() if value is not None}


def credentials(properties: Mapping[str, str]) -> Any:
    """Client properties as librdkafka has them, in Faust's words; None where nothing is asked.

    Raises SettingsError for a mechanism that Faust does not know.
    """
    protocol = properties.get("security.protocol", "PLAINTEXT").upper()
    context = _context(properties) if protocol in _TLS else None
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "PLAIN")).upper()
    if mechanism not in {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}:
        raise SettingsError(
            f"Faust does not know the mechanism {mechanism}", place="sasl.mechanism", hint="PLAIN or SCRAM-SHA-512"
        )
    return faust.SASLCredentials(
        username=properties.get("sasl.username"),
        password=properties.get("sasl.password"),
        ssl_context=context,
        mechanism=mechanism,
    )


def _context(properties: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=properties.get("ssl.ca.location"))
    if certificate := properties.get("ssl.certificate.location"):
        context.load_cert_chain(certificate, properties.get("ssl.key.location"), properties.get("ssl.key.password"))
    return context
