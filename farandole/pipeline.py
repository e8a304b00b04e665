"""The author's words: what a pipeline listens for, and its steps.

Decorators only label: a step stays the function that it is. The class body is metadata and becomes the
frozen value `declaration`; nothing is read, opened or imported for it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from farandole.clock import seconds
from farandole.declaration import Catch, Declaration, Expect, Join, Need, Retry, Step, Subscription, names_of
from farandole.errors import DeclarationError
from farandole.event import event_type_of
from farandole.problem import Problem, nearest, place, problems_of, refuse
from farandole.rules import rules
from farandole.signature import events_given, hints_of, place_of, reference_of

F = TypeVar("F", bound=Callable[..., Any])
Events = type[Any] | str
"""An event class, or an event type by name."""
Needs = str | Sequence[str] | Mapping[str, Any]
"""What a step depends on: names, or names with the error classes that mean that it is down."""

WORDS = (
    *("join", "steps", "since", "once", "slots", "ordering", "on_rewind", "on_conflict", "on_dead"),
    *("guard", "owner", "name", "emits", "expect"),
)
"""What may stand in a pipeline's class beside its signals."""


@dataclass(frozen=True, slots=True)
class When:
    """A subscription that has no name yet: what `when` gives."""

    event_type: str
    where: str = ""
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class StepLabel:
    """What `@step` wrote on a function, as the author wrote it."""

    timeout: str | float | None = None
    retry: Retry | int = 3
    catch: Mapping[type[BaseException], Callable[..., Any] | str] = field(default_factory=dict)
    effect: str = ""
    check: Callable[..., Any] | None = None
    needs: Needs = ()
    isolate: bool = False
    detached: bool = False


@dataclass(frozen=True, slots=True)
class ResourceLabel:
    """What `@resource` wrote on a function."""

    read_only: bool = False


def when(event: Events, where: str = "") -> When:
    """The events that a pipeline listens for, and the criteria that they must meet.

    >>> when("lake.file.landed.v1", where="format == 'csv'").where
    "format == 'csv'"
    """
    return When(_event_type(event, at := _here()), where, at)


def _event_type(event: Events, at: str) -> str:
    event_type = event if isinstance(event, str) else event_type_of(event)
    if not event_type:
        raise DeclarationError(
            f"{getattr(event, '__name__', event)} is no event class",
            place=at,
            hint="name a class of schemas.events, or an event type such as lake.file.landed.v1",
        )
    return event_type


def by(*fields: str, within: str | float, where: str = "") -> Join:
    """How several signals make one run: these fields equal, all within a span, `where` holding between them.

    >>> by("interval", within="6h").within
    21600.0
    """
    try:
        return Join(fields, seconds(within), where, _here())
    except ValueError as error:
        raise DeclarationError(f"by(…): {error}", place=_here(), hint='write within="6h"') from None


def step(
    *,
    timeout: str | float | None = None,
    retry: Retry | int = 3,
    catch: Mapping[type[BaseException], Callable[..., Any] | str] | None = None,
    effect: str = "",
    check: Callable[..., Any] | None = None,
    needs: Needs = (),
    isolate: bool = False,
    detached: bool = False,
) -> Callable[[F], F]:
    """Label a function with a policy. It stays the function: call it in a test as it is.

    `catch` maps an expected error to the function (or the name of a ready-made step) that makes a business event
    of it. A step with an effect
    outside declares its kind with `effect`; "verify" also names the `check` that looks for the effect. `needs` names
    what it depends on: while that is down the pipeline waits. With `isolate` it is called in a child process, which is
    killed when its time is over. With `detached` its event leaves the partition first, and it is done under a lease:
    for work of hours.
    """

    def label(function: F) -> F:
        function.__step__ = StepLabel(timeout, retry, dict(catch or {}), effect, check, needs, isolate, detached)  # type: ignore[attr-defined]
        return function

    return label


def use(ready: str, options: Mapping[str, Any] | None = None, **policy: Any) -> Step:
    """A ready-made step by name, with its options: ``use("rows.check", {"not_null": ["id"]}, timeout="5m")``.

    `policy` takes what `@step` takes, and `name` where one pipeline uses a ready-made step twice.
    """
    name, title, at = policy.pop("name", ready), f"use({ready!r})", _here()
    known = [f.name for f in fields(StepLabel)]
    for word in policy:
        if word not in known:
            raise DeclarationError(
                f"{title} has a word `{word}` that means nothing",
                place=at,
                hint=nearest(word, known) or f"options of the step stand in a dict: {title[:-1]}, {{'{word}': …}})",
            )
    made = step_of(StepLabel(**policy), name=name, call="", title=title, place=at)
    return replace(made, use=ready, options=frozen_options(options or {}))


def resource(function: F | None = None, *, read_only: bool = False) -> Any:
    """Label a function that opens something steps work with; the type it returns or yields is what they ask for.

    A generator (also under ``contextmanager``) is closed when the worker ends. Everything but `Database` is taken to
    write outside; `read_only=True` says that it does not.
    """

    def label(labelled: F) -> F:
        labelled.__resource__ = ResourceLabel(read_only)  # type: ignore[attr-defined]
        return labelled

    return label if function is None else label(function)


class Pipeline:
    """The declaration of a pipeline: signals by attribute name, steps, and where it starts.

    The class holds no methods and no state. Its docstring is what people read about it; `declaration` is the value.
    """

    declaration: ClassVar[Declaration]
    steps: ClassVar[Sequence[Callable[..., Any] | Step]]
    since: ClassVar[str]
    join: ClassVar[Join | None]
    once: ClassVar[str | tuple[str, ...]]
    slots: ClassVar[int]
    ordering: ClassVar[str]
    on_rewind: ClassVar[str]
    on_conflict: ClassVar[str]
    on_dead: ClassVar[str]
    guard: ClassVar[str]
    owner: ClassVar[str]
    name: ClassVar[str]
    emits: ClassVar[Sequence[Events]]
    expect: ClassVar[Expect | Sequence[Expect]]

    def __init_subclass__(cls) -> None:
        words = {name: value for name, value in vars(cls).items() if not name.startswith("_")}
        cls.declaration = declare(cls.__name__, inspect.cleandoc(cls.__doc__ or ""), words, _here())


def pipeline(*, when: Events, since: str, where: str = "", **words: Any) -> Callable[[F], F]:
    """A pipeline of one step: the function below. Its signal is called like the parameter that takes the event.

    `words` are those of a Pipeline class: once, slots, ordering, name, owner, …
    """
    taken = _event_type(when, at := _here())

    def label(function: F) -> F:
        hints = {k: v for k, v in hints_of(function).items() if k != "return"}
        names = [name for name, hint in hints.items() if event_type_of(hint) == taken]
        if len(names) != 1:
            raise DeclarationError(
                f"{function.__name__} has {len(names) or 'no'} parameters that take {taken}, and needs one",
                place=place_of(function) or at,
                hint=f"write def {function.__name__}(event: {getattr(when, '__name__', 'TheEventClass')})",
            )
        about = inspect.cleandoc(function.__doc__ or "")
        everything = {names[0]: When(taken, where, at), "steps": [function], "since": since, **words}
        function.declaration = declare(function.__name__, about, everything, at)  # type: ignore[attr-defined]
        return function

    return label


def declare(title: str, about: str, words: Mapping[str, Any], source: str) -> Declaration:
    """The value that a class body or a labelled function means. Raises Mistakes with everything that is wrong."""
    problems: list[Problem] = []
    signals = {name: value for name, value in words.items() if isinstance(value, When)}
    for word, value in words.items():
        if word not in signals and word not in WORDS:
            problems.append(_unknown(title, word, value, source))
    once, plain = words.get("once", ()), ("slots", "ordering", "on_rewind", "on_conflict", "on_dead", "guard", "owner")
    told = len(problems)
    steps, emits = _steps(title, words.get("steps", ()), problems, source)
    declaration = Declaration(
        name=words.get("name") or kebab(title),
        about=about,
        since=words.get("since", ""),
        subscriptions=tuple(Subscription(name, w.event_type, w.where, w.place) for name, w in signals.items()),
        steps=steps,
        join=words.get("join"),
        once=(once,) if isinstance(once, str) else tuple(once),
        emits=_emits(words["emits"]) if "emits" in words else emits,
        expect=_expect(title, words.get("expect", ()), problems, source),
        source=source,
        **{word: words[word] for word in plain if word in words},
    )
    refuse([*problems, *rules(declaration, steps_told=len(problems) > told)])
    return declaration


def _unknown(title: str, word: str, value: Any, source: str) -> Problem:
    hint = nearest(word, WORDS)
    if event_type_of(value):
        hint = f"a signal is written {word} = when({value.__name__})"
    elif inspect.isfunction(value):
        return Problem(
            place_of(value), f"{title}.{word} is a method", "write steps as functions outside the class, and list them"
        )
    return Problem(source, f"{title} has a word `{word}` that means nothing", hint or f"known: {', '.join(WORDS)}")


def _steps(title: str, written: Any, problems: list[Problem], source: str) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The steps, and the event types that they and their catches can give, sorted."""
    if callable(written) or isinstance(written, Step | str) or not isinstance(written, Iterable):
        problems.append(Problem(source, f"{title}: steps is no list", "write steps = [first, second]"))
        return (), ()
    steps: list[Step] = []
    emits: set[str] = set()
    for one in written:
        if isinstance(one, Step):
            steps.append(one)
            continue
        try:
            label = getattr(one, "__step__", StepLabel())
            name = getattr(one, "__name__", "")
            steps.append(
                step_of(label, name=name, call=reference_of(one), title=f"{title}.{name}", place=place_of(one))
            )
            for function in filter(callable, (one, *label.catch.values())):
                emits.update(events_given(hints_of(function).get("return")))
        except DeclarationError as error:
            problems += [Problem(p.place or source, p.message, p.hint) for p in problems_of(error)]
    return tuple(steps), tuple(sorted(emits))


def _expect(title: str, written: Any, problems: list[Problem], source: str) -> tuple[Expect, ...]:
    many = (written,) if isinstance(written, Expect) else tuple(written)
    if any(not isinstance(one, Expect) for one in many):
        problems.append(Problem(source, f"{title}: expect is {written!r}", 'write expect = Expect(by="06:30 UTC")'))
        return ()
    return many


def _emits(written: Iterable[Events]) -> tuple[str, ...]:
    many = [written] if isinstance(written, str | type) else written
    return tuple(sorted(e if isinstance(e, str) else event_type_of(e) or e.__name__ for e in many))


def step_of(label: StepLabel, *, name: str, call: str, title: str, place: str) -> Step:
    """The frozen step that a label means. Raises DeclarationError for a span or a catch that cannot be read."""
    try:
        timeout = None if label.timeout is None else seconds(label.timeout)
    except ValueError as error:
        raise DeclarationError(f"{title}: timeout: {error}", place=place, hint='write timeout="10m"') from None
    if not isinstance(label.retry, Retry | int):
        raise DeclarationError(
            f"{title}: retry is {label.retry!r}", place=place, hint='write retry=3, or Retry(5, backoff="1s..2m")'
        )
    for error_class in label.catch:
        if not isinstance(error_class, type) or not issubclass(error_class, BaseException):
            raise DeclarationError(
                f"{title}: catch names {error_class!r}, which is no exception class",
                place=place,
                hint="write catch={BadRows: quarantine}",
            )
    return Step(
        name=name,
        call=call,
        retry=Retry(label.retry) if isinstance(label.retry, int) else label.retry,
        timeout=timeout,
        effect=label.effect,
        check=reference_of(label.check) if label.check else "",
        catch=tuple(
            Catch(error.__name__, answer if isinstance(answer, str) else reference_of(answer))
            for error, answer in label.catch.items()
        ),
        needs=_needs(label.needs, title, place),
        isolate=label.isolate,
        detached=label.detached,
        place=place,
    )


def _needs(written: Any, title: str, at: str) -> tuple[Need, ...]:
    if isinstance(written, Mapping):
        found = {name: () if errors is None else errors for name, errors in written.items()}
    else:
        found = dict.fromkeys([written] if isinstance(written, str) else written, ())
    for name, errors in found.items():
        many = errors if isinstance(errors, tuple | list) else [errors]
        if not isinstance(name, str) or not all(isinstance(e, str | type) for e in many):
            raise DeclarationError(
                f"{title}: needs is {written!r}",
                place=at,
                hint='write needs="orders-api", or needs={"orders-api": (ConnectionError, ApiDown)}',
            )
    return tuple(Need(name, names_of(errors)) for name, errors in found.items())


def frozen_options(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The options of a ready-made step as a value: in the order of their names, lists as tuples."""

    def frozen(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: frozen(inner) for key, inner in value.items()}
        return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

    return tuple((key, frozen(value)) for key, value in sorted(options.items()))


def kebab(title: str) -> str:
    """A pipeline's name from its class's or function's.

    >>> kebab("MartDelays"), kebab("XMLLoad"), kebab("land_customers")
    ('mart-delays', 'xml-load', 'land-customers')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", title).replace("_", "-").lower().strip("-")


def _here() -> str:
    """``file:line`` of the author's line that is being executed: the first frame outside this module."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return place(frame.f_code.co_filename, frame.f_lineno) if frame else ""
