"""What a source is: one YAML file under ``topology/sources``, read into one frozen value.

Scalars are read as text and typed by the model, so that YAML 1.1's reading of ``no``, ``on`` or ``NA``
never reaches a column name or an allowed value.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from farandole.errors import DeclarationError
from farandole.sources.pattern import PathPattern

Loc = tuple[str, ...]
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
TYPES = ("int", "float", "string", "bool", "date", "timestamp", "decimal(p,s)")
DECIMAL = re.compile(r"decimal\((\d+),\s*(\d+)\)")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Strict):
    """A column: its type, and its `path` in the source (a header, ``a.b`` in JSON, XPath from the record in XML)."""

    type: str
    path: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TYPES and not DECIMAL.fullmatch(value):
            near = difflib.get_close_matches(value, TYPES, 1)
            raise ValueError(f"{value!r} is no type; " + (f"did you mean {near[0]}?" if near else "; ".join(TYPES)))
        return value


class Rules(_Strict):
    """What every row must satisfy, or its file is quarantined. `at_least` counts the rows of a file."""

    at_least: int = 0
    not_null: tuple[str, ...] = ()
    between: dict[str, tuple[float, float]] = {}
    one_of: dict[str, tuple[str, ...]] = {}
    matches: dict[str, str] = {}

    def columns(self) -> Iterator[tuple[Loc, str]]:
        """Every column that a rule names, with the place where it is named."""
        yield from ((("not_null",), name) for name in self.not_null)
        for rule in ("between", "one_of", "matches"):
            yield from (((rule, name), name) for name in getattr(self, rule))


class Shape(_Strict):
    """The table that rows of a source become. `partition` names a timestamp or date of the key: one part a day."""

    key: tuple[str, ...]
    columns: dict[str, Column]
    partition: str = ""
    rules: Rules = Rules()


class Child(Shape):
    """A repeating group inside an XML record, and the table it becomes. `path` is XPath from the record."""

    path: str


class Source(Shape):
    """A declared source: where its files land, how they are written, which rows they hold.

    >>> text = {"source": "crm", "format": "csv", "path": "crm/%Y/%m/%d/*.csv", "table": "customers", "key": ["id"]}
    >>> Source.model_validate({**text, "columns": {"id": "int"}}).mode
    'upsert'
    """

    source: str
    format: Literal["csv", "jsonl", "xml", "debezium"]
    path: str
    table: str
    about: str = ""
    owner: str = ""
    nulls: tuple[str, ...] = ("",)
    delimiter: str = ","
    record: str = ""  # xml: the path of a record from the root, such as f:fleet/f:plane
    namespaces: dict[str, str] = {}
    children: dict[str, Child] = {}

    def shapes(self) -> dict[str, Shape]:
        """Every table that a file of this source gives, by name; the main one first."""
        return {self.table: self, **self.children}

    @property
    def mode(self) -> str:
        """How its rows go into a table: ``changes`` for change data capture, else ``upsert``."""
        return "changes" if self.format == "debezium" else "upsert"


class Sources:
    """The declared sources of a folder, as they stand now: a file added or changed counts at the next look-up."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._read: dict[Path, tuple[tuple[int, int], Source]] = {}

    def source(self, name: str) -> Source:
        """The source of that name. Raises DeclarationError where none is declared or its file is wrong."""
        path = self.folder / f"{name}.yaml"
        if not NAME.fullmatch(name) or not path.is_file():
            near = difflib.get_close_matches(name, [p.stem for p in self.folder.glob("*.yaml")], 1)
            raise DeclarationError(
                f"no source {name!r} is declared" + (f"; did you mean {near[0]!r}?" if near else ""),
                place=str(self.folder),
                hint=f"write {path.name} there (topology/sources/flights.yaml is an example), then redrive the event",
            )
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            known = self._read[path] = (stamp, read_source(path))
        return known[1]

    def all(self) -> tuple[list[Source], list[DeclarationError]]:
        """Every source that can be read, and what is wrong with the others: one bad file stops no other."""
        good: list[Source] = []
        bad: list[DeclarationError] = []
        for path in sorted(self.folder.glob("*.yaml")):
            try:
                good.append(self.source(path.stem))
            except DeclarationError as error:
                bad.append(error)
        return good, bad


def open_sources() -> Sources:
    """The sources in the folder that FARANDOLE_SOURCES names; ``topology/sources`` unless set."""
    return Sources(os.environ.get("FARANDOLE_SOURCES", "topology/sources"))


def read_sources(folder: str | Path) -> dict[str, Source]:
    """Every source of a folder by name. Raises DeclarationError for the first mistake, with file, line and hint."""
    found = {path.stem: read_source(path) for path in sorted(Path(folder).glob("*.yaml"))}
    tables: dict[str, str] = {}
    for name, source in found.items():
        for table in source.shapes():
            if table in tables:
                raise DeclarationError(
                    f"table {table!r} is filled by the sources {tables[table]!r} and {name!r}",
                    place=str(Path(folder) / f"{name}.yaml"),
                    hint="give each source a table of its own",
                )
            tables[table] = name
    return found


def read_source(path: Path) -> Source:
    """One source from its file. Raises DeclarationError for the first mistake; `source_problems` lists all."""
    outcome = _parse(path)
    if isinstance(outcome, Source):
        return outcome
    raise outcome[0]


def source_problems(path: Path) -> list[DeclarationError]:
    """Every mistake in a source's file, in the order of its lines."""
    outcome = _parse(path)
    return [] if isinstance(outcome, Source) else outcome


def _parse(path: Path) -> Source | list[DeclarationError]:
    try:
        node = yaml.compose(path.read_text("utf-8"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(error, "problem", None) or "it is not UTF-8 text"
        return [DeclarationError(f"this is no YAML: {what}", place=f"{path}:{line}", hint="mend the line")]
    lines: dict[Loc, int] = {(): 1}
    problems = list(_walk(node, (), lines)) if node else []
    if not isinstance(node, yaml.MappingNode):
        problems.append(((), "a source is a mapping of keys to values", "start with `source: NAME`"))
    if not problems:
        values = yaml.load(path.read_text("utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  it builds text, lists, mappings
        try:
            source = Source.model_validate(values)
        except ValidationError as error:
            problems = [_told(dict(e)) for e in error.errors()]
        else:
            problems = list(_crossed(source, path.stem))
            if not problems:
                return source
    found = [(_line(loc, lines), message, hint) for loc, message, hint in problems]
    return [DeclarationError(m, place=f"{path}:{line}", hint=h) for line, m, h in sorted(found)]


def _walk(node: yaml.Node, loc: Loc, lines: dict[Loc, int]) -> Iterator[tuple[Loc, str, str]]:
    """Note the line of every key; tell of keys that stand twice, which YAML would silently merge."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at = (*loc, str(key.value))
            if at in lines:
                yield at, f"{key.value!r} stands here a second time (first on line {lines[at]})", "remove one"
            lines[at] = key.start_mark.line + 1
            yield from _walk(value, at, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*loc, str(index))] = value.start_mark.line + 1
            yield from _walk(value, (*loc, str(index)), lines)


def _line(loc: Loc, lines: dict[Loc, int]) -> int:
    while loc not in lines:
        loc = loc[:-1]
    return lines[loc]


def _told(error: dict[str, Any]) -> tuple[Loc, str, str]:
    loc: Loc = tuple(str(part) for part in error["loc"] if part != "[key]")
    name = ".".join(loc)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(loc[-1], _fields(loc[:-1]), 1)
        return loc, f"unknown key {name!r}", f"did you mean {near[0]!r}?" if near else "known: " + _known(loc[:-1])
    if error["type"] == "missing":
        return loc, f"{name!r} is missing", f"add `{loc[-1]}:`"
    return loc, f"{name}: {error['msg'].removeprefix('Value error, ')}", "mend the value"


def _fields(loc: Loc) -> list[str]:
    model: type[BaseModel] = Source
    if loc[:1] == ("children",):
        model, loc = Child, loc[2:]
    if loc[:1] == ("columns",):
        model = Column
    elif loc[:1] == ("rules",):
        model = Rules
    return list(model.model_fields)


def _known(loc: Loc) -> str:
    return ", ".join(_fields(loc))


def _crossed(source: Source, stem: str) -> Iterator[tuple[Loc, str, str]]:
    """What no single value shows: names that must agree, and keys that only one format has."""
    if source.source != stem:
        yield ("source",), f"source {source.source!r} stands in {stem}.yaml", f"name the file {source.source}.yaml"
    try:
        PathPattern(source.path)
    except ValueError as error:
        yield ("path",), str(error), "write it like flights/%Y/%m/%d/%H/*.csv"
    yield from _shape(source, ())
    for name, child in source.children.items():
        yield from _shape(child, ("children", name))
    if source.format != "xml":
        for key in ("record", "namespaces", "children"):
            if getattr(source, key):
                yield (key,), f"{key!r} has a meaning for format xml only", "remove it, or say `format: xml`"
    else:
        yield from _markup(source)


def _shape(shape: Shape, loc: Loc) -> Iterator[tuple[Loc, str, str]]:
    columns = ", ".join(shape.columns)
    for name in shape.columns:
        if name.startswith("_"):
            yield (*loc, "columns", name), f"column {name!r}: a leading _ is kept for the lake itself", "rename it"
    if not shape.key:
        yield (*loc, "key"), "the key is empty, so rows cannot be told apart", f"name columns of {columns}"
    named: list[tuple[Loc, str]] = [(("key",), name) for name in shape.key]
    named += [(("rules", *at), name) for at, name in shape.rules.columns()]
    for at, name in named:
        if name not in shape.columns:
            yield (*loc, *at), f"{'.'.join(at)} names {name!r}, which is no column", f"columns: {columns}"
    if shape.partition:
        column = shape.columns.get(shape.partition)
        if shape.partition not in shape.key or column is None or column.type not in ("timestamp", "date"):
            yield (
                (*loc, "partition"),
                f"partition {shape.partition!r} must be a timestamp or date of the key",
                "a row whose part of the table can change would stand in two parts",
            )


def _markup(source: Source) -> Iterator[tuple[Loc, str, str]]:
    if not source.record:
        yield ("record",), "'record' is missing", "say which element is a row, such as f:fleet/f:plane"
    for prefix in re.findall(r"([\w-]+):", source.record):
        if prefix not in source.namespaces:
            yield ("record",), f"prefix {prefix!r} stands in no namespace", "add it under `namespaces:`"
    for loc, shape in [((), source), *((("children", n), c) for n, c in source.children.items())]:
        for name, column in shape.columns.items():
            if not column.path:
                yield (*loc, "columns", name), f"column {name!r} has no path", "such as {type: int, path: '@id'}"
