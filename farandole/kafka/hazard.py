"""Schemas that can bite: bytes of theirs can kill or hang the process that reads them.

A record that holds itself, nested 200,000 deep, overruns the C stack; a list of items that take no bytes
can claim 2**40 of them. Bytes of such schemas are walked here first; other schemas pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 64
"""How deep a record that holds itself may nest."""

MAX_EMPTY_ITEMS = 1_000_000
"""How many items without bytes one record may claim."""

MAX_VALUES = 100_000
"""How many values one record may be made of, lists and maps counted once."""

_NO_PARTS = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_VARINT_BYTES = 10


class HazardError(Exception):
    """Bytes that end too early, or would take the reader down."""


def scan_of(parsed: Any, named: Mapping[str, Any]) -> Callable[[bytes, int], None] | None:
    """The walk that bytes of a writer's schema must pass before they are read; None for a schema that cannot bite.

    The walk takes the bytes and where to start, and raises HazardError. So does this, for a schema that no
    bytes can make safe.
    """
    walk = _Walk(named)
    if walk.size(parsed) > MAX_VALUES:
        raise HazardError(f"one record of it is made of more than {MAX_VALUES} values")
    return walk.start(parsed) if walk.bites(parsed, ()) else None


class _Walk:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self.named = named
        self.harmless: set[str] = set()
        self.empties: dict[str, bool] = {}
        self.sizes: dict[str, int] = {}

    def bites(self, schema: Any, inside: tuple[str, ...]) -> bool:
        schema = self.whole(schema)
        if isinstance(schema, list):
            return any(self.bites(s, inside) for s in schema)
        kind = schema["type"]
        if kind == "record":
            return self.record_bites(schema, inside)
        if kind == "array":
            return self.empty(schema["items"]) or self.bites(schema["items"], inside)
        return bool(kind == "map" and self.bites(schema["values"], inside))

    def record_bites(self, schema: Any, inside: tuple[str, ...]) -> bool:
        name = schema["name"]
        if name in inside:
            return True
        if name not in self.harmless:
            if any(self.bites(f["type"], (*inside, name)) for f in schema["fields"]):
                return True
            self.harmless.add(name)
        return False

    def empty(self, schema: Any) -> bool:
        """Whether a value takes no bytes. One that holds itself without a choice has no end: it counts as empty."""
        schema = self.whole(schema)
        if isinstance(schema, list):
            return False
        if schema["type"] == "record":
            name = schema["name"]
            if name not in self.empties:
                self.empties[name] = True
                self.empties[name] = all(self.empty(f["type"]) for f in schema["fields"])
            return self.empties[name]
        return schema["type"] == "null" or bool(schema["type"] == "fixed" and schema["size"] == 0)

    def size(self, schema: Any) -> int:
        """How many values one value is made of, lists counted once: names multiply what a short text describes."""
        schema = self.whole(schema)
        if isinstance(schema, list):
            return 1 + max((self.size(s) for s in schema), default=0)
        if schema["type"] == "record":
            name = schema["name"]
            if name not in self.sizes:
                self.sizes[name] = 1
                self.sizes[name] = 1 + sum(self.size(f["type"]) for f in schema["fields"])
            return self.sizes[name]
        inner = schema.get("items", schema.get("values"))
        return 1 + (self.size(inner) if inner is not None else 0)

    def whole(self, schema: Any) -> Any:
        while True:
            if isinstance(schema, str):
                if schema not in self.named:
                    return {"type": schema}
                schema = self.named[schema]
            elif isinstance(schema, dict) and isinstance(schema["type"], list | dict):
                schema = schema["type"]
            else:
                return schema

    def start(self, schema: Any) -> Callable[[bytes, int], None]:
        def scan(data: bytes, at: int) -> None:
            _Reading(self, data).skip(schema, at, 0)

        return scan


class _Reading:
    """One walk over the bytes of one record."""

    def __init__(self, walk: _Walk, data: bytes) -> None:
        self.walk, self.data = walk, data
        self.left = MAX_EMPTY_ITEMS

    def skip(self, schema: Any, at: int, depth: int) -> int:
        """Where the value ends that starts at `at`."""
        schema = self.walk.whole(schema)
        if isinstance(schema, list):
            branch, at = self.number(at)
            if not 0 <= branch < len(schema):
                raise HazardError(f"branch {branch} of a union of {len(schema)}")
            return self.skip(schema[branch], at, depth)
        kind = schema["type"]
        if kind == "record":
            if depth >= MAX_DEPTH:
                raise HazardError(f"records nest deeper than {MAX_DEPTH}")
            for f in schema["fields"]:
                at = self.skip(f["type"], at, depth + 1)
            return at
        if kind in ("array", "map"):
            return self.blocks(schema, at, depth)
        if kind in _NO_PARTS:
            return self.end(at + _NO_PARTS[kind])
        if kind == "fixed":
            return self.end(at + int(schema["size"]))
        size, at = self.number(at)
        return self.sized(size, at) if kind in ("string", "bytes") else at

    def blocks(self, schema: Any, at: int, depth: int) -> int:
        keyed = schema["type"] == "map"
        items = schema["values" if keyed else "items"]
        free = not keyed and self.walk.empty(items)
        while True:
            count, at = self.number(at)
            if count == 0:
                return at
            if count < 0:
                count, at = -count, self.number(at)[1]
            if free:
                self.left -= count * self.walk.size(items)
                if self.left < 0:
                    raise HazardError(f"a list claims more than {MAX_EMPTY_ITEMS} items that take no bytes")
                count = 1  # one stands for all: it is the depth that matters
            for _ in range(count):
                if keyed:
                    at = self.sized(*self.number(at))
                at = self.skip(items, at, depth)

    def sized(self, size: int, at: int) -> int:
        if size < 0:
            raise HazardError(f"a length of {size}")
        return self.end(at + size)

    def end(self, at: int) -> int:
        if at > len(self.data):
            raise HazardError("the bytes end too early")
        return at

    def number(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            self.end(at + 1)
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
                return (value >> 1) ^ -(value & 1), at
        raise HazardError("a number of more than ten bytes")
