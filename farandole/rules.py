"""The rules that a declaration obeys by itself, before any function, schema or server is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from farandole.clock import seconds
from farandole.declaration import EFFECTS, Declaration, Retry, Step
from farandole.errors import DeclarationError
from farandole.problem import Problem, nearest

RESERVED = frozenset(
    {
        *("steps", "join", "since", "once", "slots", "ordering", "run", "attempt", "error", "name", "about", "owner"),
        *("emits", "expect", "on_rewind", "on_conflict", "on_dead", "guard", "declaration"),
    }
)
"""Words that no signal may be called: they mean something else in a declaration or to a step."""

CHOICES = {
    "ordering": ("key", "none"),
    "on_rewind": ("replay", "ignore"),
    "on_conflict": ("dead", "drop"),
    "on_dead": ("continue", "hold-key"),
    "guard": ("on", "off"),
}
RETRIES = "retries"
"""The breaker that a pipeline's own retries open; no dependency is called so."""
_NAME = re.compile(r"[a-z][a-z0-9]*([-.][a-z0-9]+)*")
_LONGEST = 200  # a topic has 249 characters, and dlq. or retry. stands before the name
_FIELD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def rules(declaration: Declaration, *, steps_told: bool = False) -> list[Problem]:
    """Every rule that the declaration breaks. `steps_told`: why there are none has been said already."""
    found = [problem for rule in (_names, _start, _signals, _join, _steps) for problem in rule(declaration)]
    if not declaration.steps and not steps_told:
        found.append(Problem(declaration.source, f"{declaration.name} has no steps", "add steps = [a_function]"))
    return found


def _names(declaration: Declaration) -> Iterator[Problem]:
    place = declaration.source
    if not _NAME.fullmatch(declaration.name) or len(declaration.name) > _LONGEST:
        yield Problem(
            place,
            f"`{declaration.name}` cannot be a pipeline's name: it is also a Kafka consumer group",
            "write small letters, digits, and - or . between them, such as mart-delays",
        )
    for word, choices in CHOICES.items():
        value = getattr(declaration, word)
        if value not in choices:
            known = " or ".join(f'"{c}"' for c in choices)
            yield Problem(place, f"{declaration.name}: {word} is {value!r}", f"write {known}")
    if not isinstance(declaration.slots, int) or isinstance(declaration.slots, bool) or declaration.slots < 1:
        yield Problem(
            place,
            f"{declaration.name}: slots is {declaration.slots!r}",
            "write how many runs may be under way at a time, from 1",
        )
    for name in declaration.once:
        if not isinstance(name, str) or not _FIELD.fullmatch(name):
            yield Problem(place, f"{declaration.name}: once names {name!r}, which is no field", "write a field's name")


def start_of(since: str) -> datetime | str:
    """Where a new pipeline starts: "now", "beginning" or a time with its zone. Raises ValueError for anything else."""
    if since in ("now", "beginning"):
        return since
    moment = datetime.fromisoformat(since)
    if moment.tzinfo is None:
        msg = f"{since} has no zone"
        raise ValueError(msg)
    return moment


def _start(declaration: Declaration) -> Iterator[Problem]:
    try:
        start_of(declaration.since)
    except (ValueError, TypeError):
        said = f"since is {declaration.since!r}" if declaration.since else "no `since`"
        yield Problem(
            declaration.source,
            f"{declaration.name}: {said}, so it is not known where it starts",
            'write since as "now", "beginning", or a time with its zone such as "2013-01-01T00:00Z"',
        )


def _signals(declaration: Declaration) -> Iterator[Problem]:
    name = declaration.name
    if not declaration.subscriptions:
        yield Problem(declaration.source, f"{name} listens for nothing", "add a signal: flights = when(TableMerged)")
    for subscription in declaration.subscriptions:
        place = subscription.place or declaration.source
        if subscription.signal in RESERVED or not subscription.signal.isidentifier():
            yield Problem(
                place, f"{name}: `{subscription.signal}` cannot be a signal's name", "call it after what it is: flights"
            )
        yield from _condition(subscription.where, place, f"{name}.{subscription.signal}")


def _join(declaration: Declaration) -> Iterator[Problem]:
    name, join, several = declaration.name, declaration.join, len(declaration.subscriptions) > 1
    if join is None:
        if several:
            yield Problem(
                declaration.source,
                f"{name} has several signals and does not say how they join",
                'add join = by("interval", within="6h"), or write one pipeline for each signal',
            )
        return
    place = join.place or declaration.source
    if not several:
        yield Problem(place, f"{name} joins, but has one signal only", "add the other signal, or remove the join")
    if not join.fields:
        yield Problem(place, f"{name} joins by no field", 'name the fields that must be equal: by("interval", …)')
    if join.within <= 0:
        yield Problem(place, f"{name} joins within {join.within:g} s", "give the signals some time: within='6h'")
    yield from _condition(join.where, place, f"{name}.join")


def _condition(where: str, place: str, title: str) -> Iterator[Problem]:
    from farandole.criteria import criteria

    try:
        if where:
            criteria(where)
    except DeclarationError as error:
        yield Problem(place, f"{title}: {error.message}", error.hint)


def _steps(declaration: Declaration) -> Iterator[Problem]:
    seen: set[str] = set()
    for step in declaration.steps:
        place, title = step.place or declaration.source, f"{declaration.name}.{step.name}"
        if step.name in seen:
            yield Problem(place, f"{title} stands there twice", "a step's name is its memory: give each its own")
        seen.add(step.name)
        if step.timeout is not None and step.timeout <= 0:
            yield Problem(place, f"{title}: timeout is {step.timeout:g} s", "write a span such as 10m")
        for word, said in (("isolate", step.isolate), ("detached", step.detached)):
            if not isinstance(said, bool):
                yield Problem(place, f"{title}: {word} is {said!r}", f"write {word}=True, or leave it out")
        yield from (Problem(place, f"{title}: {p.message}", p.hint) for p in _retry(step.retry))
        yield from (Problem(place, f"{title}: {p.message}", p.hint) for p in _effect(step))
        yield from (Problem(place, f"{title}: {p.message}", p.hint) for p in _needs(step))


def _retry(retry: Retry) -> Iterator[Problem]:
    if not isinstance(retry.times, int) or isinstance(retry.times, bool) or retry.times < 1:
        yield Problem("", f"retry counts {retry.times!r} attempts", "write how many in all, from 1 (1: never again)")
    try:
        base, _, cap = retry.backoff.partition("..")
        low, high = seconds(base), seconds(cap or base)
    except (ValueError, AttributeError):
        low, high = 1.0, 0.0
    if not 0 <= low <= high:
        yield Problem("", f"backoff {retry.backoff!r} is no range of spans", 'write it like "1s..2m", small to large')


def _effect(step: Step) -> Iterator[Problem]:
    kinds = ", ".join(EFFECTS)
    if step.effect and step.effect not in EFFECTS:
        yield Problem("", f"effect is {step.effect!r}", nearest(step.effect, EFFECTS) or f"one of {kinds}")
    if step.effect == "verify" and not step.check:
        yield Problem("", 'effect="verify" without a check', "name the function that looks whether the effect is there")
    if step.check and step.effect != "verify":
        yield Problem("", 'a check without effect="verify"', 'write effect="verify", or remove the check')


def _needs(step: Step) -> Iterator[Problem]:
    names = [need.name for need in step.needs]
    for need in step.needs:
        if not _NAME.fullmatch(need.name) or need.name == RETRIES:
            yield Problem(
                "",
                f"`{need.name}` cannot be a dependency's name",
                "write small letters, digits, and - or . between them",
            )
        if names.count(need.name) > 1:
            yield Problem("", f"needs `{need.name}` twice", "keep one")
        for word, errors in (("catch", [c.error for c in step.catch]), ("retry never", step.retry.never)):
            for error in sorted({*need.errors} & {*errors}):
                yield Problem(
                    "",
                    f"`{error}` means that `{need.name}` is down, and {word} names it too",
                    "it is either the dependency's or the event's: keep it in one place",
                )
    if sum(not need.errors for need in step.needs) > 1:
        yield Problem(
            "",
            f"needs {' and '.join(names)}, and nothing says which of them an error is about",
            f"name the errors of each: needs={{'{names[0]}': ApiDown, …}}",
        )
