"""How records of a writer's schema are read as ours: planned once per schema, before any record.

fastavro resolves while it reads, and in corners gives a value of the wrong type instead of an error
(defaults as raw JSON, logical types of the writer's only, unions by the first branch that can be
promoted). So the two schemas are resolved here first, into a pair that leaves it no choice: names are
made equal, what is equal on both sides carries no reader side at all, what cannot be read is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastavro import parse_schema
from fastavro.read import LOGICAL_READERS

MAX_NESTING = 128
"""How deep a schema's own text may nest before it is refused."""

_PROMOTIONS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
_ORDER = ("null", "boolean", "int", "long", "float", "double", "string", "bytes")
_NAMED = ("record", "enum", "fixed")
_PARTS = {"array": "items", "map": "values"}
_FAMILIES = ("timestamp-", "local-timestamp-", "time-")


class UnresolvableError(Exception):
    """A writer's schema that cannot be read as ours; the text names the field and why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The pair of schemas to give to fastavro. `fresh` asks for a copy: the reader's defaults are shared."""

    writer: Any
    reader: Any
    fresh: bool = False


def parse(schema: Any) -> Any:
    """A schema as fastavro wants it, its defaults turned into the values that they stand for.

    Raises whatever fastavro raises for an invalid schema.
    """
    parsed = parse_schema(schema)
    named = names_of(parsed)
    values = [(f, _value(f["type"], f["default"], named)) for f in _fields(parsed, named) if "default" in f]
    for field, value in values:
        field["default"] = value
    return parsed


def parse_writer(schema: Any) -> Any:
    """The same for a schema that is only read with: without its defaults, which may be invalid and do not matter.

    Raises UnresolvableError for a text that nests too deep to be walked safely.
    """
    return parse_schema(_bare(schema, 0))


def names_of(parsed: Any) -> Mapping[str, Any]:
    """The named types of a parsed schema, by full name."""
    return parsed.get("__named_schemas", {}) if isinstance(parsed, dict) else {}


def plan(writer: Any, reader: Any) -> Plan:
    """How to read what `writer` wrote as `reader` wants it; both parsed. Raises UnresolvableError."""
    planner = _Planner(names_of(writer), names_of(reader))
    ours, theirs = planner.pair(reader, writer, "")
    if ours is None:
        return Plan(theirs, None)
    if not isinstance(theirs, dict):
        raise UnresolvableError("the writer's schema is a union, an event is a record")
    # fastavro compares the two before it reads: a first key that differs ends that at once
    marked = {"side": "writer", **theirs, "__fastavro_parsed": True, "__named_schemas": names_of(writer)}
    return Plan(marked, {"side": "reader", **ours, "__fastavro_parsed": True, "__named_schemas": {}}, planner.fresh)


def _bare(schema: Any, depth: int) -> Any:
    if depth > MAX_NESTING:
        raise UnresolvableError("the schema itself nests too deep")
    if isinstance(schema, list):
        return [_bare(s, depth + 1) for s in schema]
    if not isinstance(schema, dict):
        return schema
    inner = ("type", "items", "values", "fields")
    dropped = ("default", "doc", "aliases", "key")
    return {k: _bare(v, depth + 1) if k in inner else v for k, v in schema.items() if k not in dropped}


def _fields(schema: Any, named: Mapping[str, Any]) -> Iterator[Any]:
    for record in [schema, *named.values()]:
        yield from record.get("fields", ()) if isinstance(record, dict) else ()


def _value(schema: Any, default: Any, named: Mapping[str, Any]) -> Any:
    """The Python value of a default, which JSON writes in its own way."""
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, list):
        first = next((s for s in schema if (s == "null") == (default is None)), schema[0])
        return _value(first, default, named)
    schema = _dict(schema)
    kind = schema["type"]
    if kind in ("bytes", "fixed") and isinstance(default, str):
        default = default.encode("latin-1")
    elif kind == "array":
        default = [_value(schema["items"], item, named) for item in default]
    elif kind == "map":
        default = {k: _value(schema["values"], item, named) for k, item in default.items()}
    elif kind == "record":
        parts = {f["name"]: default[f["name"]] if f["name"] in default else f["default"] for f in schema["fields"]}
        default = {f["name"]: _value(f["type"], parts[f["name"]], named) for f in schema["fields"]}
    elif kind in ("float", "double"):
        default = float(default)
    read = LOGICAL_READERS.get(f"{kind}-{schema.get('logicalType')}")
    return read(default, schema, None) if read else default


def _dict(schema: Any) -> Any:
    return schema if isinstance(schema, dict) else {"type": schema}


def _kind(schema: Any) -> str:
    return "union" if isinstance(schema, list) else str(_dict(schema)["type"])


def _logical(schema: Any) -> str:
    """The logical type that fastavro acts upon; an unknown one is only a remark."""
    name = schema.get("logicalType", "") if isinstance(schema, dict) else ""
    return name if f"{_kind(schema)}-{name}" in LOGICAL_READERS else ""


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _alike(writer: Any, reader: Any) -> bool:
    """Whether the names of two named types match: without their namespaces, or by the reader's aliases."""
    names = (reader["name"], *reader.get("aliases", ()))
    return _last(writer["name"]) in map(_last, names)


def _labelled_alike(writer: Any, reader: Any) -> bool:
    """Whether both give the same Python type; a timestamp in milliseconds and one in microseconds do."""
    theirs, ours = _logical(writer), _logical(reader)
    if ours == theirs == "decimal":
        return bool(writer.get("scale", 0) == reader.get("scale", 0))
    return theirs == ours or any(theirs.startswith(f) and ours.startswith(f) for f in _FAMILIES)


def _unlabelled(schema: Any) -> Any:
    return {k: v for k, v in schema.items() if k != "logicalType"}


def _symbols(schema: Any) -> set[str]:
    return set(schema.get("symbols", ()))


class _Planner:
    def __init__(self, writers: Mapping[str, Any], readers: Mapping[str, Any]) -> None:
        self.writers, self.readers = writers, readers
        self.fresh = False
        self.pairs: dict[tuple[str, str], tuple[Any, Any]] = {}
        self.met: dict[tuple[str, str], None] = {}
        self.differ: set[tuple[str, str]] = set()

    def pair(self, r: Any, w: Any, path: str, *, whole: bool = False) -> tuple[Any, Any]:
        """Reader and writer side for one place; no reader side where both are the same, unless `whole`."""
        w, r = self.resolve(w, self.writers), self.resolve(r, self.readers)
        if not whole and self.same(w, r):
            return None, w
        if isinstance(w, list):
            return self.union(r, w, path)
        r = self.branch(r, w, path)
        self.labels(r, w, path)
        kind, wanted = _kind(w), _kind(r)
        if kind == wanted == "record":
            return self.record(r, w, path)
        if kind == wanted and kind in _PARTS:
            part = _PARTS[kind]
            ours, theirs = self.pair(r[part], w[part], f"{path}[]", whole=whole)
            return {"type": kind, part: ours}, {"type": kind, part: theirs}
        return self.leaf(r, w, path)

    def leaf(self, r: Any, w: Any, path: str) -> tuple[Any, Any]:
        """The same for a type without parts."""
        kind, wanted = _kind(w), _kind(r)
        if kind == wanted and kind in _NAMED and _alike(w, r) and w.get("size") == r.get("size"):
            name = w["name"].replace(".", "_")
            return {**r, "name": name}, {**(w if _logical(r) else _unlabelled(w)), "name": name}
        if kind in _ORDER and (kind == wanted or wanted in _PROMOTIONS.get(kind, ())):
            return {"type": wanted}, w if _logical(r) else kind
        raise UnresolvableError(f"{path or 'the record'} is {_told(w)}, wanted is {_told(r)}")

    def resolve(self, schema: Any, named: Mapping[str, Any]) -> Any:
        while True:
            if isinstance(schema, str) and schema in named:
                schema = named[schema]
            elif isinstance(schema, dict) and isinstance(schema["type"], list | dict):
                schema = schema["type"]
            else:
                return schema

    def labels(self, r: Any, w: Any, path: str) -> None:
        """Logical types: a unit that only the reader knows would be a guess."""
        if _logical(r) and not _labelled_alike(w, r):
            raise UnresolvableError(
                f"{path} is {_told(w)}, wanted is {_told(r)}: the unit of its values is not the same"
            )

    def same(self, w: Any, r: Any) -> bool:
        """Whether reading with the writer's schema alone gives what the reader wants."""
        w, r = self.resolve(w, self.writers), self.resolve(r, self.readers)
        if isinstance(w, list):
            return all(self.same(b, r) for b in w)
        if isinstance(r, list):
            return any(self.same(w, b) for b in r)
        kind = _kind(w)
        if kind != _kind(r) or not _labelled_alike(w, r) or (kind in _NAMED and not _alike(w, r)):
            return False
        if kind in _PARTS:
            return self.same(w[_PARTS[kind]], r[_PARTS[kind]])
        if kind == "record":
            return self.same_fields(w, r)
        return kind not in _NAMED or (w.get("size") == r.get("size") and _symbols(w) <= _symbols(r))

    def same_fields(self, w: Any, r: Any) -> bool:
        """The same for two records. A pair that is met again while it is asked for is taken to be the same."""
        pair = (w["name"], r["name"])
        if pair in self.differ or pair in self.met:
            return pair in self.met
        before = len(self.met)
        self.met[pair] = None
        names = [f["name"] for f in w["fields"]] == [f["name"] for f in r["fields"]]
        if names and all(self.same(f["type"], g["type"]) for f, g in zip(w["fields"], r["fields"], strict=True)):
            return True
        for later in list(self.met)[before:]:  # what was found since then may rest on it
            del self.met[later]
        self.differ.add(pair)
        return False

    def record(self, r: Any, w: Any, path: str) -> tuple[Any, Any]:
        if not _alike(w, r):
            raise UnresolvableError(f"{path or 'the record'} is a {w['name']}, wanted is a {r['name']}")
        if known := self.pairs.get((w["name"], r["name"])):
            return known
        # one name for both sides, and no other pair's: in a union fastavro tells records apart by it
        name = f"{w['name']}__{r['name']}".replace(".", "_")
        ours: dict[str, Any] = {"type": "record", "name": name, "fields": []}
        theirs: dict[str, Any] = {"type": "record", "name": name, "fields": []}
        self.pairs[w["name"], r["name"]] = ours, theirs
        written = {f["name"] for f in w["fields"]}
        wanted = {f["name"]: f for f in r["fields"]}
        aliases = {a: f for f in r["fields"] if f["name"] not in written for a in reversed(f.get("aliases", ()))}
        filled = set()
        for f in w["fields"]:
            g = wanted.get(f["name"]) or aliases.get(f["name"])
            if g is None or g["name"] in filled:
                theirs["fields"].append({"name": f["name"], "type": f["type"]})
                continue
            filled.add(g["name"])
            mine, other = self.pair(g["type"], f["type"], f"{path}.{f['name']}".lstrip("."))
            theirs["fields"].append({"name": g["name"], "type": other})
            ours["fields"].append({"name": g["name"], "type": mine})
        for g in r["fields"]:
            if g["name"] not in filled:
                if "default" not in g:
                    raise UnresolvableError(f"{f'{path}.' if path else ''}{g['name']} is missing and has no default")
                self.fresh = self.fresh or isinstance(g["default"], dict | list)
                ours["fields"].append({"name": g["name"], "type": None, "default": g["default"]})
        return ours, theirs

    def union(self, r: Any, w: list[Any], path: str) -> tuple[Any, Any]:
        """A branch of the writer's that has no place in the reader's is an error only for a record that takes it."""
        ours: list[Any] = []
        theirs: list[Any] = []
        why: UnresolvableError | None = None
        for at, branch in enumerate(w):
            try:
                mine, other = self.pair(self.branch(r, branch, path), branch, path, whole=True)
            except UnresolvableError as e:
                why, other = e, {"type": "enum", "name": f"branch_{at}_has_no_place", "symbols": []}
            else:
                ours.append(mine)
            theirs.append(other)
        if not ours and why:
            raise why
        kinds = {_kind(s) for s in ours}
        if {"string", "bytes"} <= kinds:
            raise UnresolvableError(
                f"{path} is a union of string and bytes that changed: which one a value is cannot be told"
            )
        ours.sort(key=lambda s: _ORDER.index(_kind(s)) if _kind(s) in _ORDER else -1)
        return ours, theirs

    def branch(self, r: Any, w: Any, path: str) -> Any:
        """The branch of the reader's that takes what the writer wrote: the same type before one it is promoted to."""
        if not isinstance(r, list):
            return r
        w = self.resolve(w, self.writers)
        branches = [self.resolve(b, self.readers) for b in r]
        kind = _kind(w)
        exact = [b for b in branches if _kind(b) == kind and (kind not in _NAMED or _alike(w, b))]
        exact.sort(key=lambda b: kind in _NAMED and b["name"] != w["name"])
        promoted = [b for to in _PROMOTIONS.get(kind, ()) for b in branches if _kind(b) == to]
        if not exact and not promoted:
            raise UnresolvableError(
                f"{path or 'the record'} is {_told(w)}, which is none of {', '.join(map(_told, r))}"
            )
        return (exact or promoted)[0]


def _told(schema: Any) -> str:
    if isinstance(schema, list):
        return f"one of {', '.join(map(_told, schema))}"
    kind, logical = _kind(schema), _logical(schema)
    name = schema.get("name", "") if isinstance(schema, dict) else ""
    return f"{logical} {kind}".strip() + (f" {name}" if name else "")
