"""Confluent's wire format, to and from records: the schema's id before the bytes, or in a header.

Stands on the hot path: a schema is vetted and planned once per id, a record then costs one look-up and
one call into fastavro. No bytes whatever raise anything else than what :meth:`Codec.decode` names.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError

from farandole.errors import FarandoleError, Undecodable
from farandole.kafka.hazard import HazardError, scan_of
from farandole.kafka.registry import GuidsUnsupported, ParsedSchema, Registry, UnreadableSchema
from farandole.kafka.resolution import UnresolvableError, names_of, parse, parse_writer, plan
from farandole.kafka.strictness import Check, ImproperError, check_of

SCHEMA_ID_HEADER = "__value_schema_id"
"""Where newer Confluent producers put the schema's id or GUID instead of before the value."""

_PREFIX, _GUID, _ID = 5, 17, 4
_ROOM = 200  # characters of a foreign error text that a reason keeps

Decoder = Callable[[bytes], dict[str, Any]]
Headers = Iterable[tuple[str, bytes | None]]


def schema_named(value: bytes | None, headers: Headers | None = None) -> int | str | None:
    """The schema that a value says it was written with: an id, or a GUID; None where it names none."""
    given = dict(headers or ()).get(SCHEMA_ID_HEADER)
    name = given if given is not None else (value or b"")[:_PREFIX]
    if given is not None and len(name) == _GUID and name[0] == 1:
        return str(uuid.UUID(bytes=name[1:]))
    if given is not None and len(name) == _ID:
        return int.from_bytes(name, "big")
    return int.from_bytes(name[1:], "big") if len(name) == _PREFIX and not name[0] else None


class Unencodable(FarandoleError):
    """A record that does not fit its event type's schema; the text names the field."""


class Codec:
    """Bytes to records and back, for the event types whose reader schemas it is given.

    An event type without a reader schema is read by its writer's: what looks at any topic needs no more.
    Records of `trusted` event types are made by the library itself and written without a second look.
    """

    def __init__(
        self, registry: Registry, reader_schemas: Mapping[str, Mapping[str, Any]], *, trusted: Collection[str] = ()
    ) -> None:
        self._registry, self._trusted = registry, frozenset(trusted)
        self._schemas = {name: dict(schema) for name, schema in reader_schemas.items()}
        self._readers = {name: _reader(name, schema) for name, schema in self._schemas.items()}
        self._decoders: dict[tuple[str, bytes], Decoder] = {}
        self._encoders: dict[str, tuple[bytes, Any, Check | None]] = {}
        self._learning = threading.Lock()

    def decode(self, event_type: str, value: bytes | None, headers: Headers | None = None) -> dict[str, Any] | None:
        """The record in `value`, as the reader's schema of the event type wants it; None for a tombstone.

        Raises Undecodable with the reason ``decode.not-framed``, ``decode.unknown-schema``,
        ``decode.corrupt`` or ``decode.incompatible``; UnknownSchema while the registry has no schema of the
        id (it may come); RegistryUnreachable. Nothing else.
        """
        if value is None:
            return None
        if headers:
            for name, given in headers:
                if name == SCHEMA_ID_HEADER:
                    return self._decode_headed(event_type, value, given)
        prefix = value[:_PREFIX]
        decoder = self._decoders.get((event_type, prefix))
        if decoder is None:
            decoder = self._learn(event_type, prefix, _PREFIX)
        return decoder(value)

    def encode(self, event_type: str, record: Mapping[str, Any]) -> bytes:
        """The record in Confluent's wire format, by the schema that is registered for the event type.

        Raises Unencodable for a field that is missing, unknown or of the wrong type; FarandoleError where
        the schema is not registered; RegistryUnreachable.
        """
        known = self._encoders.get(event_type)
        if known is None:
            known = self._learn_to_write(event_type)
        prefix, schema, check = known
        out = BytesIO()
        out.write(prefix)
        try:
            if check is not None:
                check(record)
            schemaless_writer(out, schema, record, strict_allow_default=True, disable_tuple_notation=True)
        except Exception as e:
            raise _unencodable(event_type, e) from e
        return out.getvalue()

    def ready(self, event_type: str) -> None:
        """Look up now what :meth:`encode` will need, so that a service without its schema does not start."""
        if event_type not in self._encoders:
            self._learn_to_write(event_type)

    def _decode_headed(self, event_type: str, value: bytes, given: bytes | None) -> dict[str, Any]:
        name = given or b""
        if len(name) == _ID:
            name = b"\x00" + name
        if (len(name), name[:1]) not in ((_PREFIX, b"\x00"), (_GUID, b"\x01")):
            raise Undecodable(
                "decode.not-framed", f"header {SCHEMA_ID_HEADER} is neither a schema id nor a GUID", place=event_type
            )
        # the space keeps ids of headers, whose values have no prefix, apart from ids of prefixes
        decoder = self._decoders.get((event_type, b" " + name)) or self._learn(event_type, name, 0)
        return decoder(value)

    def _learn(self, event_type: str, name: bytes, start: int) -> Decoder:
        """The decoder for a schema that is met for the first time. `start` is where its records begin in a value."""
        if start and (len(name) < _PREFIX or name[0]):
            raise Undecodable(
                "decode.not-framed",
                f"a value of {len(name)} bytes has no schema id"
                if len(name) < _PREFIX
                else f"magic byte {name[0]}, not 0",
                place=event_type,
            )
        with self._learning:
            known = (event_type, name if start else b" " + name)
            if decoder := self._decoders.get(known):
                return decoder
            found = self._find(event_type, name)
            decoder = _decoder(event_type, found, self._readers.get(event_type), start)
            self._decoders[known] = decoder
            return decoder

    def _find(self, event_type: str, name: bytes) -> ParsedSchema:
        try:
            if len(name) == _PREFIX:
                return self._registry.schema(int.from_bytes(name[1:], "big"))
            return self._registry.schema_by_guid(str(uuid.UUID(bytes=name[1:])))
        except GuidsUnsupported as e:
            raise Undecodable("decode.unknown-schema", e.message, place=event_type) from e
        except UnreadableSchema as e:
            raise Undecodable("decode.incompatible", e.message, place=event_type) from e

    def _learn_to_write(self, event_type: str) -> tuple[bytes, Any, Check | None]:
        if event_type not in self._schemas:
            raise FarandoleError(
                f"there is no schema of {event_type} to write with",
                place=event_type,
                hint=f"known are {', '.join(sorted(self._schemas)) or 'none'}; add schemas/avro/{event_type}.avsc",
            )
        schema_id = self._registry.lookup(f"{event_type}-value", self._schemas[event_type])
        if schema_id is None:
            raise FarandoleError(
                f"the schema of {event_type} is not registered as it stands in the code",
                place=f"{event_type}-value at {self._registry.url}",
                hint="farandole topology apply",
            )
        parsed = self._readers[event_type]
        check = None if event_type in self._trusted else check_of(parsed, names_of(parsed))
        known = (b"\x00" + schema_id.to_bytes(4, "big"), parsed, check)
        self._encoders[event_type] = known
        return known


def _reader(event_type: str, schema: dict[str, Any]) -> Any:
    try:
        if schema.get("type") != "record":
            raise ValueError("an event is an Avro record")  # noqa: TRY301 - told below like every other fault
        return parse(schema)
    except Exception as e:
        raise FarandoleError(f"invalid Avro schema: {e}", place=event_type, hint="farandole schemas check") from e


def _decoder(event_type: str, found: ParsedSchema, reader: Any, start: int) -> Decoder:
    """The function that decodes every record of one writer's schema."""
    name = f"schema {found.id}" if found.id >= 0 else "the schema of its GUID"
    try:
        written = parse_writer(found.schema)
        scan = scan_of(written, names_of(written))
        how = plan(written, reader) if reader else None
    except Exception as e:  # noqa: BLE001 - whatever a foreign schema breaks in the parser, its records are set aside
        why = str(e) if isinstance(e, UnresolvableError | HazardError) else f"invalid: {e!s:.{_ROOM}}"
        return _refusing(event_type, f"{name}: {why}")
    writer, ours = (how.writer, how.reader) if how else (written, None)
    fresh = how.fresh if how else False

    def decode(value: bytes) -> dict[str, Any]:
        data = BytesIO(value)
        data.seek(start)
        try:
            if scan is not None:
                scan(value, start)
            record: Any = schemaless_reader(data, writer, ours)
        except SchemaResolutionError as e:
            raise Undecodable("decode.incompatible", f"{name}: {e!s:.{_ROOM}}", place=event_type) from e
        except Exception as e:
            told = e if isinstance(e, HazardError) else f"{type(e).__name__} {e!s:.{_ROOM}}"
            raise Undecodable("decode.corrupt", f"{name}: {told}".rstrip(), place=event_type) from e
        if data.tell() != len(value):
            left = len(value) - data.tell()
            raise Undecodable("decode.corrupt", f"{name}: {left} bytes left over after the record", place=event_type)
        return _copy(record) if fresh else record  # type: ignore[no-any-return]

    return decode


def _refusing(event_type: str, why: str) -> Decoder:
    def refuse(_: bytes) -> dict[str, Any]:
        raise Undecodable("decode.incompatible", why, place=event_type)

    return refuse


def _copy(value: Any) -> Any:
    """Lists and maps of a record, made anew: defaults that were filled in must not be shared between records."""
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _unencodable(event_type: str, error: Exception) -> Unencodable:
    why = str(error)
    if isinstance(error, ImproperError):
        why = f"field {why.lstrip('.')}" if why.startswith(".") else f"the record{why}"
    return Unencodable(
        why or type(error).__name__, place=event_type, hint=f"compare it with schemas/avro/{event_type}.avsc"
    )
