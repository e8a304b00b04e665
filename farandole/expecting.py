"""What is expected here: of pipelines, by their own words, and of events, by ``topology/expectations.yaml``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from farandole.criteria import criteria
from farandole.declaration import Declaration
from farandole.errors import DeclarationError
from farandole.manifest import EXPECT_KEYS, read_expect
from farandole.problem import Problem, nearest, refuse
from farandole.sources.deadlines import Expected, deadlines, expect_problems
from farandole.yamlnode import Reader

FILE = "topology/expectations.yaml"
KEYS = (*("event", "where", "about"), *EXPECT_KEYS)

_NAME = re.compile(r"[a-z][a-z0-9]*([-.][a-z0-9]+)*")

Schemas = Mapping[str, Mapping[str, Any]]


def of_pipeline(declaration: Declaration) -> list[Expected]:
    """What a pipeline says of its own runs."""
    return [Expected(declaration.name, one, pipeline=declaration.name) for one in declaration.expect]


def pipeline_problems(declaration: Declaration) -> Iterator[Problem]:
    """What is wrong with a pipeline's expectations."""
    seen: set[str] = set()
    for one in of_pipeline(declaration):
        place = one.expect.place or declaration.source
        yield from expect_problems(one.expect, f"{declaration.name}: expect", place)
        if one.id in seen:
            yield Problem(place, f"{declaration.name} expects the same twice", "keep one")
        seen.add(one.id)


def read_expectations(path: Path | str = FILE, schemas: Schemas | None = None) -> list[Expected]:
    """The expectations of a file; none where there is none. Raises Mistakes, which tells all that is wrong with it.

    With `schemas` (by event type) the event types and their criteria are judged too.
    """
    if not Path(path).exists():
        return []
    reader = Reader(Path(path))
    root = reader.mapping(reader.root(), "the file", ("expectations",))
    found = []
    for name, node in reader.mapping(root.get("expectations"), "expectations").items():
        if not _NAME.fullmatch(name):
            reader.wrong(node, f"{name!r} is no name of an expectation", "small letters, digits, and - or . between")
        words = reader.mapping(node, f"the expectation {name}", KEYS)
        expect = read_expect(reader, node, words)
        said = {word: reader.text(words.get(word), f"{name}.{word}") for word in ("event", "where", "about")}
        if "event" not in words:
            reader.wrong(node, f"{name} names no event", "write event: lake.file.landed.v1")
        elif expect.by:
            reader.problems += expect_problems(expect, name, expect.place)
        reader.problems += _criteria_problems(
            name, said["event"], said["where"], reader.at(words.get("where")), schemas
        )
        if schemas is not None and said["event"] and said["event"] not in schemas:
            hint = nearest(said["event"], schemas) or f"write schemas/avro/{said['event']}.avsc first"
            reader.wrong(words["event"], f"{name}: there is no event type {said['event']!r}", hint)
        found.append(Expected(name, expect, event_type=said["event"], where=said["where"], about=said["about"]))
    refuse(sorted(reader.problems, key=lambda one: [int(n) for n in one.place.split(":")[1:]]))
    return found


def _criteria_problems(name: str, event: str, where: str, at: str, schemas: Schemas | None) -> Iterator[Problem]:
    try:
        wanted = criteria(where)
    except DeclarationError as error:
        yield Problem(at, f"{name}: {error.message}", error.hint)
        return
    for problem in wanted.typed((schemas or {}).get(event, {})) if event in (schemas or {}) else ():
        yield Problem(at, f"{name}: {problem}", f"see schemas/avro/{event}.avsc")


def expected_of(declarations: Collection[Declaration], path: Path | str = FILE) -> list[Expected]:
    """All that is expected: of these pipelines, and by the file. Raises Mistakes for what is wrong with either."""
    refuse([problem for declaration in declarations for problem in pipeline_problems(declaration)])
    return [*(one for declaration in declarations for one in of_pipeline(declaration)), *read_expectations(path)]


def note(expected: Expected, now: datetime) -> str:
    """What is worth knowing of an expectation: when its next deadline is, and of what."""
    following = next(deadlines(expected.expect, now))
    zone = ZoneInfo(expected.expect.by.split()[-1])
    about = f", about {following.interval}" if following.interval else ""
    return f"expected next by {following.at.astimezone(zone):%Y-%m-%d %H:%M %Z}{about}"
