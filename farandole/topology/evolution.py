"""Whether a new reader's schema reads what an older one wrote; if not, which field stops it and what helps.

Avro's resolution rules, told in words. The registry gives its own verdict too; this one can name the field.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastavro.schema import parse_schema

Schema = Any
Named = dict[str, dict[str, Any]]

_READS_AS = {  # what a writer's type may be read as, besides itself
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field (dots between names) that the new schema cannot read from the old one, why, and the remedy."""

    field: str
    reason: str
    remedy: str


def conflicts(reader: dict[str, Any], writer: dict[str, Any]) -> list[Conflict]:
    """Everything that keeps `reader` from reading what was written with `writer`; empty if nothing does."""
    resolution = _Resolution()
    new = parse_schema(copy.deepcopy(reader), named_schemas=resolution.new_names)
    old = parse_schema(copy.deepcopy(writer), named_schemas=resolution.old_names)
    return list(resolution.differences(new, old, ""))


class _Resolution:
    """One pair of schemas; remembers the pairs of records it is inside of, for records that hold themselves."""

    def __init__(self) -> None:
        self.new_names: Named = {}
        self.old_names: Named = {}
        self._inside: set[tuple[str, str]] = set()

    def differences(self, new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
        if isinstance(old, list):
            for branch in old:
                yield from self.differences(new, branch, path)
            return
        if isinstance(new, list):
            if not any(self._reads(branch, old, path) for branch in new):
                branches = ", ".join(map(_kind, new))
                yield Conflict(
                    path,
                    f"was written as {_kind(old)}, and the union of {branches} does not hold that",
                    f"keep {_kind(old)} in the union",
                )
            return
        new, old = self._definition(new, self.new_names), self._definition(old, self.old_names)
        kind, was = _kind(new), _kind(old)
        if kind != was:
            if kind not in _READS_AS.get(was, set()):
                yield Conflict(path, f"was {was} and is {kind}", f"keep {was}, or add a new field of type {kind}")
            return
        yield from getattr(self, f"_{kind}", self._primitive)(new, old, path)

    def _reads(self, new: Schema, old: Schema, path: str) -> bool:
        before = set(self._inside)
        fits = not any(self.differences(new, old, path))
        self._inside = before
        return fits

    @staticmethod
    def _definition(schema: Schema, names: Named) -> Schema:
        return names.get(schema, schema) if isinstance(schema, str) else schema

    @staticmethod
    def _primitive(new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
        logical, was = (s.get("logicalType") if isinstance(s, dict) else None for s in (new, old))
        scaled = logical == "decimal" and new.get("scale", 0) != old.get("scale", 0) if was else False
        if (logical and was and logical != was) or scaled:
            yield Conflict(
                path, f"was {_spell(old)} and is {_spell(new)}: old values would be misread", "add a new field"
            )

    def _record(self, new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
        if (new["name"], old["name"]) in self._inside:
            return
        self._inside.add((new["name"], old["name"]))
        yield from _same_name(new, old, path)
        written = {field["name"]: field for field in old["fields"]}
        for field in new["fields"]:
            name = f"{path}.{field['name']}" if path else field["name"]
            before = next((written[n] for n in (field["name"], *field.get("aliases", ())) if n in written), None)
            if before is not None:
                yield from self.differences(field["type"], before["type"], name)
            elif "default" not in field:
                yield Conflict(
                    name, "was added without a default, so older events cannot be read", "give it a `default`"
                )

    @staticmethod
    def _enum(new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
        yield from _same_name(new, old, path)
        gone = [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]
        if gone and "default" not in new:
            yield Conflict(path, f"no longer knows {', '.join(gone)}", "keep the symbols, or give the enum a `default`")

    @staticmethod
    def _fixed(new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
        yield from _same_name(new, old, path)
        if new["size"] != old["size"]:
            yield Conflict(path, f"was {old['size']} bytes and is {new['size']}", "add a new field")

    def _array(self, new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
        yield from self.differences(new["items"], old["items"], f"{path}[]")

    def _map(self, new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
        yield from self.differences(new["values"], old["values"], f"{path}{{}}")


def _same_name(new: Schema, old: Schema, path: str) -> Iterator[Conflict]:
    name, was = (schema["name"].rpartition(".")[2] for schema in (new, old))
    aliases = {alias.rpartition(".")[2] for alias in new.get("aliases", ())}
    if name != was and was not in aliases:
        yield Conflict(
            path or name, f"was named {was} and is named {name}", f'keep the name, or add "aliases": ["{was}"]'
        )


def _kind(schema: Schema) -> str:
    if isinstance(schema, list):
        return "union"
    if isinstance(schema, dict):
        kind = schema["type"]
        return kind if isinstance(kind, str) else _kind(kind)
    return str(schema)


def _spell(schema: Schema) -> str:
    logical = str(schema["logicalType"])
    return f"{logical}(scale {schema.get('scale', 0)})" if logical == "decimal" else logical
