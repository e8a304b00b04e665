"""All that can be known wrong before anything runs, at once."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from farandole.clock import SystemClock
from farandole.criteria import criteria
from farandole.declaration import Declaration, Join, Step
from farandole.errors import DeclarationError
from farandole.event import EVENT_TYPES
from farandole.fill import StepPlan, declared_class, event_class, planned
from farandole.find import find_declaration, find_resources, services
from farandole.kinds import Fields
from farandole.locality import locality
from farandole.problem import Problem, nearest, problems_of
from farandole.schemagen import load_schemas
from farandole.signature import events_given

Schemas = Mapping[str, Mapping[str, Any]]

_CLASSES = {
    "events": "events in, events out: Kafka's transaction decides",
    "database": "a step writes to our database: its transaction decides",
    "outside": "a step has an effect outside: it is claimed, done, and noted",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` has to say about one service: its mistakes, then what is worth knowing."""

    service: str
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()
    declaration: Declaration | None = None


def check_services(targets: Sequence[str] = (), root: Path | None = None) -> list[Report]:
    """A report on each service, by default on all under services/, and on the timetable where there is one.

    Raises DeclarationError if there is no service at all.
    """
    root = root or Path.cwd()
    whole = not targets
    targets = targets or services(root)
    if not targets:
        raise DeclarationError(
            "there is no service here", place="services/", hint="write services/<name>/pipeline.yaml, or pipeline.py"
        )
    schemas: Schemas = {}
    broken: tuple[Problem, ...] = ()
    try:
        schemas = load_schemas(root / "schemas" / "avro")
    except DeclarationError as error:
        broken = problems_of(error)
    reports = [_report(target, root, None if broken else schemas) for target in targets]
    return [*([Report("schemas", broken)] if broken else []), *reports, *_topology(root, schemas, whole=whole)]


def _topology(root: Path, schemas: Schemas, *, whole: bool) -> Iterator[Report]:
    """On the timetable and the expectations, where there are any and the whole repository is asked about."""
    if whole:
        yield from _schedules(root / "topology" / "schedules.yaml", schemas)
        yield from _expectations(root / "topology" / "expectations.yaml", schemas)


def _expectations(path: Path, schemas: Schemas) -> Iterator[Report]:
    if not path.exists():
        return
    from farandole.expecting import note, read_expectations  # what it needs is an extra

    try:
        read = read_expectations(path, schemas)
    except DeclarationError as error:
        yield Report("expectations", problems_of(error))
    else:
        now = SystemClock().now()
        notes = (Problem(str(path), f"expectations: {one.name} is {note(one, now)}", note=True) for one in read)
        yield Report("expectations", (), tuple(notes))


def _schedules(path: Path, schemas: Schemas) -> Iterator[Report]:
    if not path.exists():
        return
    from farandole.sources.timetable import check_timetable, notes  # what it needs is an extra

    try:
        read = check_timetable(path, schemas)
    except DeclarationError as error:
        yield Report("schedules", problems_of(error))
    else:
        now = SystemClock().now()
        told = (Problem(str(path), f"schedules: {s.name} {n}", note=True) for s in read.values() for n in notes(s, now))
        yield Report("schedules", (), tuple(told))


def _report(target: str, root: Path, schemas: Schemas | None) -> Report:
    try:
        declaration = find_declaration(target, root)
    except DeclarationError as error:
        return Report(target, problems_of(error))
    found = check(declaration, schemas)
    return Report(target, tuple(p for p in found if not p.note), tuple(p for p in found if p.note), declaration)


def check(declaration: Declaration, schemas: Schemas | None = None) -> list[Problem]:
    """Every mistake in a declaration and in the functions that it names, and notes on how it will run.

    `schemas` are the Avro schemas by event type; without them, conditions and fields are not judged.
    """
    plans, wrong = planned(declaration, find_resources(declaration))
    problems = [*_about(declaration), *wrong]
    for event_type in declaration.topics:
        event_class(event_type)  # imports the generated classes, whatever stopped the plan
    problems += _emits(declaration, plans)
    if schemas is not None:
        problems += [*_schemas(declaration, schemas), *_once(declaration, schemas), *_join(declaration, schemas)]
    for made in plans:
        problems += _errors(declaration, made)
    problems += _expect(declaration)
    return [*dict.fromkeys(problems), *_notes(declaration, plans)]


def _expect(declaration: Declaration) -> Iterator[Problem]:
    if not declaration.expect:
        return
    from farandole.expecting import note, of_pipeline, pipeline_problems  # what it needs is an extra

    wrong = list(pipeline_problems(declaration))
    yield from wrong
    for one in [] if wrong else of_pipeline(declaration):
        yield Problem(declaration.source, f"{declaration.name}: {note(one, SystemClock().now())}", note=True)


def _about(declaration: Declaration) -> Iterator[Problem]:
    if not declaration.about.strip():
        yield Problem(
            declaration.source,
            f"{declaration.name} does not say what it is about",
            "write a docstring, or about: in the manifest; it is what people read at two in the morning",
        )


def _notes(declaration: Declaration, plans: Sequence[StepPlan]) -> Iterator[Problem]:
    if len(plans) != len(declaration.steps):
        return
    kind = declared_class(declaration, plans)
    yield Problem(declaration.source, f"{declaration.name}: {_CLASSES[kind]}", note=True)
    local, why = locality(declaration)
    if kind != "events" and declaration.join is None:
        local, why = False, "two runs of one key must not write at the same time"
    said = "keys are local: they are looked up" if local else "keys are claimed before a run"
    yield Problem(declaration.source, f"{declaration.name}: {said} ({why})", note=True)


def _emits(declaration: Declaration, plans: Sequence[StepPlan]) -> Iterator[Problem]:
    name, at = declaration.name, declaration.source
    for event_type in declaration.emits:
        if event_class(event_type) is None:
            hint = nearest(event_type, EVENT_TYPES) or f"write schemas/avro/{event_type}.avsc"
            yield Problem(at, f"{name} emits `{event_type}`, and there is no such event type", hint)
    if len(plans) != len(declaration.steps):
        return
    everything = [p for made in plans for p in (made, *made.catches.values())]
    for made in everything:
        for event_type in events_given(made.returns):
            if event_type not in declaration.emits:
                yield Problem(
                    made.step.place or at,
                    f"{name}.{made.step.name} returns `{event_type}`, which the pipeline does not declare",
                    f"add it to emits: [{', '.join([*declaration.emits, event_type])}]",
                )
    told = all(made.returns is not Any for made in everything)
    given = {event_type for made in everything for event_type in events_given(made.returns)}
    for event_type in declaration.emits:
        if told and event_type not in given:
            yield Problem(at, f"{name} declares `{event_type}`, which no step returns", "remove it from emits")


def _schemas(declaration: Declaration, schemas: Schemas) -> Iterator[Problem]:
    """Missing schema files, and conditions that can mean nothing."""
    for event_type in (*declaration.topics, *declaration.emits):
        if event_type not in schemas and event_type in EVENT_TYPES:
            yield Problem(
                declaration.source,
                f"{declaration.name}: `{event_type}` has no schema",
                f"write schemas/avro/{event_type}.avsc; without it nothing can be decoded",
            )
    for subscription in declaration.subscriptions:
        if subscription.event_type in schemas:
            for problem in criteria(subscription.where).typed(schemas[subscription.event_type]):
                yield Problem(
                    subscription.place or declaration.source,
                    f"{declaration.name}.{subscription.signal}: {problem}",
                    f"see schemas/avro/{subscription.event_type}.avsc",
                )


def _once(declaration: Declaration, schemas: Schemas) -> Iterator[Problem]:
    for event_type in declaration.topics:
        if event_type not in schemas:
            continue
        fields = Fields(schemas[event_type])
        for path in declaration.once:
            title = f"{declaration.name}: once"
            yield from _key_field(fields, path, event_type, title, declaration.source)


def _key_field(fields: Fields, path: str, event_type: str, title: str, at: str) -> Iterator[Problem]:
    """A field can be part of a key if it is there and has one way of being written."""
    kind = fields.kind(path)
    if kind is None:
        yield Problem(at, f"{title}: in {event_type}, {fields.missing(path)}", "name a field of the event")
    elif kind.floating:
        yield Problem(
            at,
            f"{title}: `{path}` of {event_type} is a float, which has no canonical form",
            "choose a text, an integer, a decimal or a time",
        )
    elif kind.word in ("list", "mixed"):
        yield Problem(at, f"{title}: `{path}` of {event_type} is {kind}, which is no key", "choose a plain field")


def _join(declaration: Declaration, schemas: Schemas) -> Iterator[Problem]:
    join = declaration.join
    if join is None or any(s.event_type not in schemas for s in declaration.subscriptions):
        return
    at, title = join.place or declaration.source, f"{declaration.name}: join"
    fields = {s.signal: Fields(schemas[s.event_type]) for s in declaration.subscriptions}
    for path in join.fields:
        for subscription in declaration.subscriptions:
            yield from _key_field(
                fields[subscription.signal], path, subscription.event_type, f"{title} by {subscription.signal}", at
            )
        kinds = {signal: kind for signal, known in fields.items() if (kind := known.kind(path)) is not None}
        for (one, first), (other, second) in pairwise(kinds.items()):
            if first.word != second.word:
                yield Problem(
                    at,
                    f"{title}: `{path}` is {first} in {one} and {second} in {other}, so they are never equal",
                    "join by a field that is the same in all signals",
                )
    yield from _join_where(declaration, join, schemas, at)


def _join_where(declaration: Declaration, join: Join, schemas: Schemas, at: str) -> Iterator[Problem]:
    signals = [{"name": s.signal, "type": schemas[s.event_type]} for s in declaration.subscriptions]
    for problem in criteria(join.where).typed({"type": "record", "name": "signals", "fields": signals}):
        yield Problem(
            at, f"{declaration.name}: join: {problem}", "write signal.field: weather.region == flights.region"
        )


def _errors(declaration: Declaration, made: StepPlan) -> Iterator[Problem]:
    """The errors that a retry or a need names must be there: a wrong name would never match."""
    step: Step = made.step
    spaces = getattr(inspect.unwrap(made.function), "__globals__", {})
    told = [("retry only", step.retry.only), ("retry never", step.retry.never)]
    for word, names in (*told, *((f"needs {need.name}:", need.errors) for need in step.needs)):
        for name in names:
            if name not in spaces and not hasattr(builtins, name) and name not in _known_errors():
                yield Problem(
                    step.place or declaration.source,
                    f"{declaration.name}.{step.name}: {word} names `{name}`, and there is no such error",
                    nearest(name, [n for n, v in spaces.items() if isinstance(v, type)] or _known_errors())
                    or f"import {name} in the module of the step",
                )


def _known_errors() -> set[str]:
    found: set[str] = set()
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        one = waiting.pop()
        if one.__name__ not in found:
            found.add(one.__name__)
            waiting += one.__subclasses__()
    return found
