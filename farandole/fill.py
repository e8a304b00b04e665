"""How a step's parameters are filled: by type, ties by name. Decided once, at start; per event only a loop is left."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from farandole.attempt import Attempt
from farandole.declaration import EFFECTS, Declaration, Step
from farandole.errors import DeclarationError
from farandole.event import EVENT_TYPES, event_type_of
from farandole.pipeline import StepLabel, step_of
from farandole.problem import Problem, nearest, problems_of, refuse
from farandole.ready import ready_factory
from farandole.resources import Database, Resources
from farandole.signature import fits, hints_of, members, place_of, resolve, spelled

Source = tuple[str, Any]
"""Where an argument comes from: ("signal", name), ("result", index of the step), ("resource", type),
("attempt", None), ("database", None) or ("error", None)."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step, ready to be called: its function and where each positional argument comes from."""

    step: Step
    function: Callable[..., Any]
    is_async: bool
    sources: tuple[Source, ...]
    returns: Any  # the return annotation, resolved; Any where there is none
    catches: Mapping[str, StepPlan] = field(default_factory=dict)  # by the name of the error
    check: StepPlan | None = None  # for effect="verify"
    writes: tuple[type, ...] = ()  # the resources it takes that can write outside
    isolated: int = -1  # its number in the pipeline where it is called in a child process

    @property
    def functions(self) -> tuple[StepPlan, ...]:
        """The step's own function, those of its catches and its check."""
        return (self, *self.catches.values(), *([self.check] if self.check else []))


@dataclass(frozen=True, slots=True)
class _Given:
    """Something that could fill a parameter."""

    name: str
    annotation: Any
    source: Source

    def __str__(self) -> str:
        return f"{self.name}: {spelled(self.annotation)}" if self.name else spelled(self.annotation)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What one step is filled from. `certain` is False once something before it is wrong: then gaps tell nothing."""

    title: str
    step: Step
    given: tuple[_Given, ...]
    resources: Resources
    certain: bool


def plan(declaration: Declaration, resources: Resources | Iterable[Callable[..., Any]] = ()) -> tuple[StepPlan, ...]:
    """Every step with its function imported and its parameters' sources known.

    Raises Mistakes with all that cannot be filled, and with the effects that are not declared.
    """
    plans, problems = planned(declaration, resources)
    refuse(problems)
    return plans


def planned(
    declaration: Declaration, resources: Resources | Iterable[Callable[..., Any]] = ()
) -> tuple[tuple[StepPlan, ...], list[Problem]]:
    """The steps that can be filled, and everything that is wrong."""
    try:
        kept = resources if isinstance(resources, Resources) else Resources(resources)
    except DeclarationError as error:
        return (), list(problems_of(error))
    problems: list[Problem] = []
    given: list[_Given] = []
    for s in declaration.subscriptions:
        if (known := event_class(s.event_type)) is not None:
            given.append(_Given(s.signal, known, ("signal", s.signal)))
            continue
        at, hint = s.place or declaration.source, nearest(s.event_type, EVENT_TYPES)
        hint = hint or f"write schemas/avro/{s.event_type}.avsc, then: farandole schemas generate"
        problems.append(Problem(at, f"{declaration.name}.{s.signal}: there is no event type `{s.event_type}`", hint))
    plans: list[StepPlan] = []
    for number, step in enumerate(declaration.steps):
        scene = _Scene(f"{declaration.name}.{step.name}", step, tuple(given), kept, not problems)
        try:
            made = _step_plan(scene)
            plans.append(replace(made, isolated=number) if step.isolate else made)
            given.append(_Given(step.name, plans[-1].returns, ("result", number)))
        except DeclarationError as error:
            at = step.place or declaration.source
            problems += [Problem(p.place or at, p.message, p.hint) for p in problems_of(error)]
    return tuple(plans), [*problems, *_effects(declaration, plans), *_apart(declaration, plans)]


def event_class(event_type: str) -> type[Any] | None:
    """The class of an event type; the generated ones are imported if need be. None if there is none."""
    if event_type not in EVENT_TYPES:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("schemas.events")
    return EVENT_TYPES.get(event_type)


def declared_class(declaration: Declaration, plans: Sequence[StepPlan]) -> str:
    """How a run of this pipeline is committed: "events", "database" (a step shares our transaction) or "outside"."""
    if any(step.effect for step in declaration.steps):
        return "outside"
    return "database" if any(_takes(p, "database") for p in plans) else "events"


def _takes(made: StepPlan, kind: str) -> bool:
    return any(source[0] == kind for source in made.sources) or any(_takes(c, kind) for c in made.catches.values())


def _effects(declaration: Declaration, plans: Iterable[StepPlan]) -> Iterator[Problem]:
    shares: list[str] = []
    reaches: list[str] = []
    for made in plans:
        step, title = made.step, f"{declaration.name}.{made.step.name}"
        writes = dict.fromkeys([*made.writes, *(w for c in made.catches.values() for w in c.writes)])
        if writes and not step.effect:
            takes = " and ".join(w.__name__ for w in writes)
            yield Problem(
                step.place or declaration.source,
                f"{title} takes a {takes}, which can write outside, and does not say what a second try would do there",
                f"declare effect= as one of {', '.join(EFFECTS)}; or label what gives it @resource(read_only=True)",
            )
        if _takes(made, "database"):
            shares.append(step.name)
        if step.effect:
            reaches.append(step.name)
    if shares and reaches:
        yield Problem(
            declaration.source,
            f"{declaration.name} writes to its Database in {', '.join(shares)} and outside in {', '.join(reaches)}: "
            "no commit covers both",
            "split it in two pipelines, joined by an event",
        )


def _apart(declaration: Declaration, plans: Sequence[StepPlan]) -> Iterator[Problem]:
    """What a detached step and an isolated one cannot have: they share no transaction with us."""
    for made in plans:
        if made.step.detached and any(_takes(p, "database") for p in plans):
            yield Problem(
                made.step.place or declaration.source,
                f"{declaration.name}.{made.step.name} is detached, and {declaration.name} writes to its Database: "
                "all steps are one transaction there, which cannot be kept open for so long",
                "split it in two pipelines, joined by an event",
            )
        if made.isolated < 0:
            continue
        at, title = made.step.place or declaration.source, f"{declaration.name}.{made.step.name} is isolated"
        if any(source[0] == "database" for source in made.sources):
            yield Problem(
                at,
                f"{title} and asks for the Database, whose transaction does not reach into another process",
                "let it return the rows, and write them in a step after it; or take isolate away",
            )
        if made.is_async:
            yield Problem(
                at, f"{title} and async", "an async step is cancelled when its time is over: take isolate away"
            )
        if "<locals>" in made.step.call:
            yield Problem(at, f"{title} and stands inside a function", "write it at the top of a module")


def _step_plan(scene: _Scene) -> StepPlan:
    step, problems = scene.step, []
    try:
        function = _function(scene)
    except DeclarationError as missing:
        refuse([*problems_of(missing), *_unresolved(step)])
        raise
    label = getattr(function, "__step__", None)
    if label is not None and not step.use and not _same_policy(step, label):
        problems.append(
            Problem(
                step.place,
                f"{scene.title}: {step.call} has a policy of its own in @step, and the declaration has another",
                "write the policy in one place: in the manifest, or on the function of a Python pipeline",
            )
        )
    made = _filled(scene, function, None, problems)
    catches: dict[str, StepPlan] = {}
    for catch in step.catch:
        try:
            answer = _answer(catch.call, step.place)
            error = _error_class(scene, catch.error, label, (answer, function))
            title = f"{scene.title} catch {catch.error}"
            catches[catch.error] = _filled(replace(scene, title=title), answer, error, problems)
        except DeclarationError as unknown:
            problems += problems_of(unknown)
    check = None
    if step.check:
        looks = replace(scene, title=f"{scene.title} check")
        check = _filled(looks, resolve(step.check, place=step.place), None, problems)
    refuse(problems)
    return replace(made, catches=catches, check=check)


def _unresolved(step: Step) -> Iterator[Problem]:
    """What is missing beside the step's own function."""
    for call in (*(c.call for c in step.catch), *filter(None, [step.check])):
        try:
            _answer(call, step.place)
        except DeclarationError as error:
            yield from problems_of(error)


def _answer(call: str, place: str) -> Callable[..., Any]:
    """The function of a catch: by reference, or ready-made by name."""
    return resolve(call, place=place) if ":" in call else ready_factory(call, place=place)()


def _function(scene: _Scene) -> Callable[..., Any]:
    """The author's function, or what the factory of a ready-made step gives for its options."""
    step = scene.step
    if not step.use:
        return resolve(step.call, place=step.place)
    factory = ready_factory(step.use, place=step.place)
    try:
        return factory(**dict(step.options))
    except (TypeError, ValueError) as error:
        raise DeclarationError(
            f"{scene.title}: {step.use} does not take its options: {error}",
            place=step.place,
            hint=f"its options are {inspect.signature(factory)}",
        ) from error


def _same_policy(step: Step, label: StepLabel) -> bool:
    read = step_of(label, name=step.name, call=step.call, title=step.name, place=step.place)
    return replace(read, use=step.use, options=step.options) == step


def _error_class(
    scene: _Scene, name: str, label: StepLabel | None, functions: Iterable[Callable[..., Any]]
) -> type[BaseException]:
    """The exception class that a catch names: from its label, the functions' modules, or Python itself."""
    known = {e.__name__: e for e in label.catch} if label else {}
    for function in functions:
        spaces = getattr(inspect.unwrap(function), "__globals__", {})
        known = {n: v for n, v in spaces.items() if isinstance(v, type) and issubclass(v, BaseException)} | known
    found = known.get(name) or getattr(builtins, name, None)
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise DeclarationError(
            f"{scene.title} catches `{name}`, and no exception of that name is known there",
            place=scene.step.place,
            hint=nearest(name, known) or f"import {name} in the module of the step",
        )
    return found


def _filled(
    scene: _Scene, function: Callable[..., Any], error: type[BaseException] | None, problems: list[Problem]
) -> StepPlan:
    """The plan of one function; what cannot be filled is added to `problems`."""
    at = place_of(function) or scene.step.place
    hints = hints_of(function)
    sources: list[Source] = []
    writes: list[type] = []
    left_out = ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        optional = parameter.default is not parameter.empty
        source = None
        if parameter.kind is not parameter.KEYWORD_ONLY:
            asked = hints.get(parameter.name)
            source = _source(scene, parameter.name, asked, error)
        if isinstance(source, tuple) and not left_out:
            sources.append(source)
            if source[0] == "resource" and not scene.resources.read_only(source[1]):
                writes.append(source[1])
        elif optional:
            left_out = left_out or parameter.name
        elif scene.certain or isinstance(source, tuple):
            problems.append(_unfilled(scene, parameter, hints.get(parameter.name), source, left_out, at))
    returns = hints.get("return", Any)
    return StepPlan(
        scene.step, function, inspect.iscoroutinefunction(function), tuple(sources), returns, writes=tuple(writes)
    )


def _source(scene: _Scene, name: str, asked: Any, error: type[BaseException] | None) -> Source | list[_Given] | None:
    """Where a parameter comes from; a list if several could fill it; None if nothing does."""
    for member in members(asked):
        if member is Attempt:
            return ("attempt", None)
        if member is Database:
            return ("database", None)
        if error is not None and isinstance(member, type) and issubclass(error, member) and member is not object:
            return ("error", None)
    named = [g for g in scene.given if g.name == name and Any in (asked, g.annotation)]
    typed = asked is not None and asked is not Any
    fitting = [g for g in scene.given if typed and fits(g.annotation, asked)] or named
    if len(fitting) > 1:
        fitting = [g for g in fitting if g.name == name] or fitting
    if len(fitting) > 1:
        return fitting
    if fitting:
        return fitting[0].source
    keys = [k for member in members(asked) if member is not None and (k := scene.resources.key(member)) is not None]
    return ("resource", keys[0]) if keys else None


def _unfilled(
    scene: _Scene,
    parameter: inspect.Parameter,
    asked: Any,
    source: Source | list[_Given] | None,
    left_out: str,
    at: str,
) -> Problem:
    title, name = scene.title, parameter.name
    if parameter.kind is parameter.KEYWORD_ONLY:
        return Problem(at, f"{title}: `{name}` stands behind a *", "steps are called by position: remove the *")
    if asked is None:
        return Problem(at, f"{title} asks for `{name}` without a type", f"annotate it: {name}: TheTypeItNeeds")
    if isinstance(source, list):
        names = " and ".join(g.name for g in source)
        return Problem(
            at,
            f"{title} asks for `{name}: {spelled(asked)}`, and {names} are both that",
            f"name the parameter after one of them: {source[0].name}",
        )
    if left_out:
        return Problem(
            at, f"{title}: nothing gives `{left_out}`, which stands before `{name}`", "put what has a default last"
        )
    has = [*map(str, scene.given), *(t.__name__ for t in scene.resources.types()), "Attempt", "Database"]
    file = at.rpartition(":")[0] or "the module of the step"
    hint = f"add a function labelled @resource that returns a {spelled(asked)} to {file}"
    if isinstance(asked, type) and issubclass(asked, BaseException):
        hint = "an error is given to the function of a catch only, and only the one that is caught"
    elif isinstance(asked, type) and event_type_of(asked):
        hint = f"listen for it: {name} = when({asked.__name__})"
    return Problem(
        at, f"{title} asks for `{name}: {spelled(asked)}`, and nothing gives one\n  it has   {', '.join(has)}", hint
    )
