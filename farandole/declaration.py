"""The frozen value that a pipeline is.

YAML and Python build the same value, and ``==`` compares them. Declaring does no input or output and
imports neither Kafka, SQL nor pydantic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

RETRY = "retry."
"""How the name of a pipeline's retry topic begins."""

EFFECTS = ("idempotent", "verify", "at_most_once", "at_least_once")
"""The kinds of effect outside that a step can declare; what each means under a crash: docs/internals.md."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how far apart a step is tried: ``Retry(5, only=TableBusy, backoff="1s..2m")``.

    `times` counts all attempts. `only` and `never` hold exception classes or their names. The pause
    before attempt n is drawn from [0, min(cap, base * 2**(n - 1))): full jitter.
    """

    times: int = 3
    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    backoff: str = "1s..30s"

    def __init__(
        self,
        times: int = 3,
        *,
        only: type[BaseException] | str | tuple[type[BaseException] | str, ...] = (),
        never: type[BaseException] | str | tuple[type[BaseException] | str, ...] = (),
        backoff: str = "1s..30s",
    ) -> None:
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "only", names_of(only))
        object.__setattr__(self, "never", names_of(never))
        object.__setattr__(self, "backoff", backoff)


def names_of(errors: Any) -> tuple[str, ...]:
    """The names of exception classes: one or several, each as a class or by name."""
    many = errors if isinstance(errors, tuple | list) else (errors,)
    return tuple(e if isinstance(e, str) else e.__name__ for e in many)


@dataclass(frozen=True, slots=True)
class Subscription:
    """The events a pipeline listens for under one signal name, and the criteria that they must meet."""

    signal: str
    event_type: str
    where: str = ""
    place: str = field(default="", compare=False)  # file:line, for messages


@dataclass(frozen=True, slots=True)
class Join:
    """How several signals make one run: equal `fields`, all within `within` seconds, `where` holding between them."""

    fields: tuple[str, ...]
    within: float
    where: str = ""
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Catch:
    """An expected error (by class name) and the function (by reference) that turns it into a business event."""

    error: str
    call: str


@dataclass(frozen=True, slots=True)
class Need:
    """Something outside that a step depends on, and the errors (by class name) that mean that it is down.

    Without `errors` they are those of :data:`farandole.decide.DOWN`.
    """

    name: str
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A named part of a run: a function by reference (``module:name``) with its policy.

    `use` and `options` are set for a ready-made step, and `call` is empty: the factory labelled with that
    name is called with the options as keyword arguments to give the function.
    """

    name: str
    call: str
    retry: Retry = Retry(3)
    timeout: float | None = None  # seconds
    effect: str = ""
    check: str = ""  # for effect="verify": the function that looks whether the effect is there
    catch: tuple[Catch, ...] = ()
    needs: tuple[Need, ...] = ()
    isolate: bool = False  # called in a child process, which can be killed
    detached: bool = False  # done under a lease, wherever the partition is
    use: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Expect:
    """What must have come by when: ``Expect(by="06:30 America/New_York", each="weekday", grace="30m")``.

    Every day (or hour) that `each` counts has a deadline at the time that `by` names. What is expected by then is
    `interval`: the data of the counted day (hour) before (``previous``), of that day itself (``same``), or whatever
    comes around that time (``any``). `grace` passes before anybody is told that it is missing.
    """

    by: str
    each: str = "day"  # day, weekday, hour, or a calendar such as FR, US-NY or XNYS
    grace: str = "0s"
    interval: str = "previous"
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A pipeline, whole. `source` is where it was written, for messages; it does not take part in ``==``."""

    name: str
    about: str
    since: str
    subscriptions: tuple[Subscription, ...]
    steps: tuple[Step, ...]
    join: Join | None = None
    owner: str = ""
    once: tuple[str, ...] = ()
    slots: int = 8
    ordering: str = "key"
    on_rewind: str = "replay"
    on_conflict: str = "dead"
    on_dead: str = "continue"
    guard: str = "on"
    emits: tuple[str, ...] = ()
    expect: tuple[Expect, ...] = ()
    source: str = field(default="", compare=False)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics it reads, each once, in order of declaration."""
        return tuple(dict.fromkeys(s.event_type for s in self.subscriptions))

    @property
    def retry_topic(self) -> str:
        """Where its own retries and redrives arrive."""
        return RETRY + self.name

    @property
    def dead_letter_topic(self) -> str:
        """Where events stand that it could not settle."""
        return f"dlq.{self.name}"


StepFunction = Callable[..., Any]
