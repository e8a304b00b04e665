"""What kind of value an Avro field holds, and whether a condition on it can mean anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from farandole.criteria import CriteriaError, moment, path_of
from farandole.problem import nearest

_LOGICAL = {
    "timestamp-millis": "time", "timestamp-micros": "time", "timestamp-nanos": "time",
    "local-timestamp-millis": "time", "local-timestamp-micros": "time", "date": "date", "decimal": "number",
    "uuid": "text",
}  # fmt: skip
_PLAIN = {
    "string": "text", "int": "number", "long": "number", "float": "number", "double": "number", "boolean": "truth",
    "bytes": "bytes", "fixed": "bytes", "enum": "enum", "record": "record", "array": "list", "map": "map",
}  # fmt: skip
_ORDERED = ("text", "number", "time", "date", "bytes")


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a field: text, number, truth, time, date, bytes, enum, record, list, map, or mixed."""

    word: str
    nullable: bool = False
    floating: bool = False  # has no canonical form, so it cannot be part of a key
    symbols: tuple[str, ...] = ()
    schema: Any = None

    def __str__(self) -> str:
        return {
            "text": "a text",
            "number": "a number",
            "truth": "true or false",
            "time": "a time",
            "date": "a date",
        }.get(self.word, f"an {self.word}" if self.word == "enum" else f"a {self.word}")


class Fields:
    """The fields of an Avro schema, by path.

    >>> Fields({"type": "record", "name": "A", "fields": [{"name": "n", "type": ["null", "long"]}]}).kind("n").nullable
    True
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._names: dict[str, Any] = {}
        self._root = schema
        self._collect(schema, "")

    def _collect(self, schema: Any, space: str) -> None:
        if isinstance(schema, list):
            for one in schema:
                self._collect(one, space)
        if not isinstance(schema, Mapping):
            return
        if name := schema.get("name") if schema.get("type") in ("record", "enum", "fixed", "error") else None:
            space, full = _full(name, schema.get("namespace", space))
            self._names[full] = self._names[name] = schema
        for field in schema.get("fields", ()):
            self._collect(field["type"], space)
        for inner in ("items", "values", "type"):
            if isinstance(schema.get(inner), Mapping | list):
                self._collect(schema[inner], space)

    def kind(self, path: str) -> Kind | None:
        """The kind of a field; None if there is no such field."""
        found = self._at(path.split("."))
        return found if isinstance(found, Kind) else None

    def missing(self, path: str) -> str:
        """Why there is no such field, with the nearest one; empty if there is."""
        found = self._at(path.split("."))
        return "" if isinstance(found, Kind) else found

    def _at(self, path: list[str]) -> Kind | str:
        at, nullable, walked = self._kind(self._root), False, ""
        for part in path:
            where = f"`{walked}`" if walked else "the event"
            if at.word == "map":
                at = replace(self._kind(at.schema["values"]), nullable=True)
            elif at.word != "record":
                return f"{where} is {at} and has no `{part}`"
            else:
                fields = {field["name"]: field["type"] for field in at.schema["fields"]}
                if part not in fields:
                    known = f"it has {', '.join(fields)}"
                    return f"{where} has no field `{part}` ({nearest(part, fields) or known})"
                at = self._kind(fields[part])
            nullable = nullable or at.nullable
            walked = f"{walked}.{part}" if walked else part
        return replace(at, nullable=nullable)

    def _kind(self, schema: Any) -> Kind:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            if schema in self._names:
                return self._kind(self._names[schema])
            return Kind(_PLAIN.get(schema, "mixed"), floating=schema in ("float", "double"), schema=schema)
        if (logical := schema.get("logicalType")) in _LOGICAL:
            return Kind(_LOGICAL[logical], schema=schema)
        kind = schema["type"]
        if not isinstance(kind, str) or kind not in _PLAIN:
            return self._kind(kind)
        return Kind(
            _PLAIN[kind],
            floating=kind in ("float", "double"),
            symbols=tuple(schema.get("symbols", ())),
            schema=schema,
        )

    def _union(self, schema: list[Any]) -> Kind:
        inner = [self._kind(one) for one in schema if one != "null"]
        nullable = len(inner) < len(schema)
        if len(inner) == 1:
            return replace(inner[0], nullable=nullable)
        word = inner[0].word if inner and len({k.word for k in inner}) == 1 else "mixed"
        return Kind(word, nullable, any(k.floating for k in inner))


def _full(name: str, space: str) -> tuple[str, str]:
    if "." in name:
        return name.rpartition(".")[0], name
    return space, f"{space}.{name}" if space else name


def typed(clause: ast.expr, schema: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be right about a condition, judged by the schema of the event."""
    fields = Fields(schema)
    match clause:
        case ast.BoolOp(values=values):
            for value in values:
                yield from typed(value, schema)
        case ast.UnaryOp():
            yield from typed(clause.operand, schema)
        case ast.Compare():
            left: ast.expr = clause.left
            for sign, right in zip(clause.ops, clause.comparators, strict=True):
                text = f"{ast.unparse(left)} {_sign(sign)} {ast.unparse(right)}"
                for problem in _compared(left, sign, right, fields):
                    yield f"`{text}`: {problem}"
                left = right
        case _:
            path = ".".join(path_of(clause))
            kind = fields.kind(path)
            if kind is None:
                yield f"`{path}`: {fields.missing(path)}"
            elif kind.word != "truth":
                yield f"`{path}` is {kind}, and stands where true or false is needed"


def _sign(sign: ast.cmpop) -> str:
    return ast.unparse(ast.Compare(ast.Name("a"), [sign], [ast.Name("b")]))[2:-2]


def _compared(left: ast.expr, sign: ast.cmpop, right: ast.expr, fields: Fields) -> Iterator[str]:
    kinds: list[Kind | Any] = []
    for side in (left, right):
        path = ".".join(path_of(side))
        if path and (why := fields.missing(path)):
            yield why
            return
        kinds.append(fields.kind(path) if path else ast.literal_eval(side))
    one, other = kinds
    if isinstance(sign, ast.In | ast.NotIn):
        yield from _member(one, other)
        return
    ordered = not isinstance(sign, ast.Eq | ast.NotEq)
    for kind in kinds:
        if ordered and isinstance(kind, Kind) and kind.word not in _ORDERED:
            yield f"{kind} has no order: only == and != can be asked"
            return
    if isinstance(one, Kind) and isinstance(other, Kind):
        if _group(one.word) != _group(other.word):
            yield f"it compares {one} with {other}"
    else:
        yield from _against(*((one, other) if isinstance(one, Kind) else (other, one)))


def _group(word: str) -> str:
    return "text" if word == "enum" else word


def _member(item: Any, many: Any) -> Iterator[str]:
    if isinstance(many, Kind):
        if many.word != "list":
            yield f"it looks for a member in {many}, which is no list"
        return
    for literal in many:
        yield from _against(item, literal)


def _against(kind: Kind, literal: Any) -> Iterator[str]:
    """Whether a literal can be a value of this kind."""
    if literal is None:
        if not kind.nullable:
            yield "it is never empty, so it need not be compared with None"
        return
    said = {bool: "true or false", str: "a text", int: "a number", float: "a number"}[type(literal)]
    fits = {"text": "a text", "enum": "a text", "time": "a text", "date": "a text", "number": "a number", "truth": said}
    if kind.word == "truth" and not isinstance(literal, bool):
        yield f"it compares true or false with {literal!r}, {said}"
    elif kind.word != "truth" and fits.get(kind.word) != said:
        yield f"it compares {kind} with {literal!r}, {said}"
    elif kind.word == "enum" and literal not in kind.symbols:
        yield f"{literal!r} is none of its symbols {', '.join(kind.symbols)} {nearest(literal, kind.symbols)}".rstrip()
    elif kind.word in ("time", "date"):
        try:
            moment(literal, date_only=kind.word == "date")
        except CriteriaError:
            yield f"{literal!r} is no {kind.word}; write it like '2013-01-01T00:00Z'"
