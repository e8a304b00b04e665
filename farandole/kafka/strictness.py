"""What fastavro would write without a word: 1.7 as 1, a time without a zone as local time, text as a list of letters.

Worked out once per schema; fields that fastavro checks itself cost nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import index
from typing import Any

Check = Callable[[Any], None]

_INT = range(-(2**31), 2**31)


class ImproperError(ValueError):
    """A value that its field does not take; the text begins with the path of the field."""


def check_of(schema: Any, named: Mapping[str, Any]) -> Check | None:
    """The check for a parsed schema, or None where there is nothing to check. It raises ImproperError."""
    return _Checks(named).of(schema)


class _Checks:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self.named = named
        self.open: set[str] = set()

    def of(self, schema: Any) -> Check | None:
        schema = self.named.get(schema, schema) if isinstance(schema, str) else schema
        if isinstance(schema, list):
            given = [s for s in schema if s != "null"]
            inner = self.of(given[0]) if len(given) == 1 else None
            return _unless_null(inner) if inner else None
        schema = schema if isinstance(schema, dict) else {"type": schema}
        kind, logical = schema["type"], str(schema.get("logicalType") or "")
        if logical:
            return _moment if kind == "long" and logical.startswith("timestamp-") else None
        if kind == "record":
            return self.record(schema)
        if kind == "array":
            return _items(self.of(schema["items"]))
        inner = self.of(schema["values"]) if kind == "map" else None
        return _values(inner) if inner else _PLAIN.get(kind)

    def record(self, schema: Any) -> Check | None:
        if schema["name"] in self.open:
            return None
        self.open.add(schema["name"])
        found = [(f["name"], self.of(f["type"])) for f in schema["fields"]]
        self.open.discard(schema["name"])
        checks = [(name, check) for name, check in found if check]
        return _fields(checks) if checks else None


def _fields(checks: list[tuple[str, Check]]) -> Check:
    def check(record: Any) -> None:
        if not isinstance(record, Mapping):
            raise ImproperError(f": a record is wanted, not {type(record).__name__}")
        for name, inner in checks:
            if name in record:
                try:
                    inner(record[name])
                except ImproperError as e:
                    raise ImproperError(f".{name}{e}") from None

    return check


def _items(inner: Check | None) -> Check:
    def check(value: Any) -> None:
        if isinstance(value, str | bytes | Mapping):
            raise ImproperError(f": a list is wanted, not {type(value).__name__}")
        if inner:
            for item in value:
                inner(item)

    return check


def _values(inner: Check) -> Check:
    def check(value: Any) -> None:
        for item in value.values():
            inner(item)

    return check


def _unless_null(inner: Check) -> Check:
    def check(value: Any) -> None:
        if value is not None:
            inner(value)

    return check


def _boolean(value: Any) -> None:
    if value is not True and value is not False:
        raise ImproperError(f": true or false is wanted, not {value!r}")


def _whole(value: Any) -> None:
    if type(value) is not int:
        try:
            index(value)
        except TypeError:
            raise ImproperError(f": a whole number is wanted, not {value!r}") from None


def _whole_int(value: Any) -> None:
    _whole(value)
    if index(value) not in _INT:
        raise ImproperError(f": {value!r} does not fit into 32 bits")


def _moment(value: Any) -> None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ImproperError(f": {value.isoformat()} has no time zone; add UTC")
    elif type(value) is not int:
        raise ImproperError(f": a time is wanted, not {value!r}")


_PLAIN: dict[str, Check] = {"boolean": _boolean, "int": _whole_int, "long": _whole}
