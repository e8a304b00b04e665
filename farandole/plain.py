"""From JSON, as a person types it, to the values that an Avro schema wants: times, dates, decimals and bytes.

Everything else stays as it is; whether it fits is for the codec to say.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from farandole.errors import FarandoleError

Schema = Any


def from_plain(schema: Schema, value: Any, place: str = "") -> Any:
    """The Avro value that plain JSON stands for: times are RFC 3339, bytes are hex, decimals are text.

    Raises FarandoleError, which names the field, what it takes and what stood there.

    >>> from_plain({"type": "long", "logicalType": "timestamp-micros"}, "2013-01-01T06:00:00Z")
    datetime.datetime(2013, 1, 1, 6, 0, tzinfo=datetime.timezone.utc)
    """
    return _Reader(place).read(schema, value, "")


class _Reader:
    """Reads one value; keeps the named types that it met."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._named: dict[str, Schema] = {}

    def read(self, schema: Schema, value: Any, path: str) -> Any:
        if isinstance(schema, list):
            return self._union(schema, value, path)
        if isinstance(schema, str):
            return self._simple(schema, value, path)
        if "name" in schema:
            self._named[schema["name"]] = self._named[schema["name"].rpartition(".")[2]] = schema
        if isinstance(value, str) and (logical := _LOGICAL.get(schema.get("logicalType", ""))):
            return self._converted(*logical, value, path)
        return self._compound(schema, value, path)

    def _compound(self, schema: Schema, value: Any, path: str) -> Any:
        kind = schema["type"]
        if kind == "record" and isinstance(value, Mapping):
            types = {field["name"]: field["type"] for field in schema["fields"]}
            return {n: self.read(types[n], v, f"{path}.{n}") if n in types else v for n, v in value.items()}
        if kind == "array" and isinstance(value, list):
            return [self.read(schema["items"], part, f"{path}[{at}]") for at, part in enumerate(value)]
        if kind == "map" and isinstance(value, Mapping):
            return {name: self.read(schema["values"], part, f"{path}.{name}") for name, part in value.items()}
        return self._simple(kind, value, path) if isinstance(kind, str) else self.read(kind, value, path)

    def _simple(self, kind: str, value: Any, path: str) -> Any:
        if kind in {"bytes", "fixed"} and isinstance(value, str):
            return self._converted(bytes.fromhex, "bytes in hex", value, path)
        if kind in {"float", "double"} and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind in self._named or (kind := kind.rpartition(".")[2]) in self._named:
            return self.read(self._named[kind], value, path)
        return value

    def _union(self, branches: list[Schema], value: Any, path: str) -> Any:
        others = [branch for branch in branches if branch != "null"]
        # of several branches the codec chooses: a guess here could choose another one
        return value if value is None or len(others) != 1 else self.read(others[0], value, path)

    def _converted(self, convert: Callable[[str], Any], expected: str, value: str, path: str) -> Any:
        try:
            return convert(value)
        except (ValueError, InvalidOperation):
            raise FarandoleError(
                f"{path.lstrip('.') or 'the event'} takes {expected}, not {value!r}",
                place=self._place,
                hint="times are RFC 3339 and UTC unless they say otherwise, bytes are hex, decimals are text",
            ) from None


def _moment(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


_TIME = (_moment, "a time such as 2013-01-01T06:00:00Z")
_LOCAL = (datetime.fromisoformat, "a time without zone, such as 2013-01-01T06:00:00")
_TIME_OF_DAY = (time.fromisoformat, "a time of day such as 06:00:00")
_LOGICAL: dict[str, tuple[Callable[[str], Any], str]] = {
    "timestamp-millis": _TIME,
    "timestamp-micros": _TIME,
    "local-timestamp-millis": _LOCAL,
    "local-timestamp-micros": _LOCAL,
    "date": (date.fromisoformat, "a date such as 2013-01-01"),
    "time-millis": _TIME_OF_DAY,
    "time-micros": _TIME_OF_DAY,
    "decimal": (Decimal, "a decimal number"),
    "uuid": (uuid.UUID, "a UUID"),
}
