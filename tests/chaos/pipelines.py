"""Pipelines over one input, one for each class of commit, and a join of two of them; each world has its own topics."""

from __future__ import annotations

import faulthandler
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farandole import Attempt, Database, Pipeline, Retry, by, resource, step, when
from farandole.event import fact
from tests.chaos import clocks, mutants

if "CHAOS_RECEIVER" in os.environ:  # where every thread stands, for whoever wonders why nothing moves
    STACKS = Path(os.environ["CHAOS_RECEIVER"]).with_name(f"stacks-{os.getpid()}").open("w")
    faulthandler.register(signal.SIGUSR1, STACKS)
mutants.switch_off()
if "CHAOS_DEBUG" in os.environ:  # what the client of Kafka has to say about transactions, in the services' log
    from farandole.kafka.sink import Session

    made = Session.__init__

    def told(self: Session, *given: Any) -> None:
        made(self, *given)
        self._settings |= {"debug": os.environ["CHAOS_DEBUG"], "log_level": 7}

    Session.__init__ = told  # type: ignore[method-assign]
if "CHAOS_CLOCK" in os.environ:
    clocks.wrong_by(Path(os.environ["CHAOS_CLOCK"]))
WORLD = os.environ.get("CHAOS_WORLD", "none")
SENT, DOUBLED, STORED, POSTED, PAIRED = (
    f"chaos.{WORLD}-number.{what}.v1" for what in ("sent", "doubled", "stored", "posted", "paired")
)
WANTED = "kind != 'skip' and weight > 0"


@fact(SENT, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberSent:
    """A number was sent. `kind` says what becomes of it: see `KINDS` of the world."""

    n: int
    key: str
    kind: str
    weight: int | None

    @classmethod
    def of(cls, record: Any) -> NumberSent:
        return cls(record["n"], record["key"], record["kind"], record["weight"])

    def record(self) -> dict[str, Any]:
        return {"n": self.n, "key": self.key, "kind": self.kind, "weight": self.weight}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a pipeline makes of a number: twice as much."""

    n: int
    key: str

    @classmethod
    def of(cls, record: Any) -> Any:
        return cls(record["n"], record["key"])

    def record(self) -> dict[str, Any]:
        return {"n": self.n, "key": self.key}


@fact(DOUBLED, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberDoubled(Answer):
    """A number was doubled."""


@fact(STORED, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberStored(Answer):
    """A number was stored, and doubled."""


@fact(POSTED, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberPosted(Answer):
    """A number was posted outside, and doubled."""


@fact(PAIRED, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberPaired(Answer):
    """A number was doubled and stored."""


def twice(number: NumberSent) -> tuple[int, str]:
    """The answer, or what the number's kind asks for."""
    if number.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if number.kind == "bad":
        raise ValueError(f"number {number.n} is bad")
    if number.kind == "huge":
        return number.n * 2, "x" * 2_000_000
    return number.n * 2, number.key


@step(retry=Retry(2, backoff="1ms..2ms"))
def on_events(number: NumberSent) -> NumberDoubled:
    return NumberDoubled(*twice(number))


@step(retry=Retry(2, backoff="1ms..2ms"))
def on_database(number: NumberSent, database: Database) -> NumberStored:
    database.execute("INSERT INTO effect (n) VALUES (:n)", {"n": number.n})
    return NumberStored(*twice(number))


class Receiver:
    """Something outside that keeps what it was sent: one line for each call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def post(self, key: str, n: int) -> None:
        with self.path.open("ab") as file:
            file.write(f"{key} {n}\n".encode())


@resource
def receiver() -> Receiver:
    return Receiver(Path(os.environ["CHAOS_RECEIVER"]))


@step(retry=Retry(2, backoff="1ms..2ms"), effect="idempotent")
def on_outside(number: NumberSent, receiver: Receiver, attempt: Attempt) -> NumberPosted:
    answer = twice(number)
    receiver.post(attempt.key, number.n)
    return NumberPosted(*answer)


@step(retry=Retry(2, backoff="1ms..2ms"))
def on_both(doubled: NumberDoubled, stored: NumberStored) -> NumberPaired:
    assert doubled.n == stored.n
    return NumberPaired(doubled.n, doubled.key)


class Events(Pipeline):
    """Event to event: class (i)."""

    name = f"chaos-events-{WORLD}"
    number = when(NumberSent, where=WANTED)
    steps = [on_events]
    since = "beginning"


class Rows(Pipeline):
    """An effect in our own database: class (ii)."""

    name = f"chaos-rows-{WORLD}"
    number = when(NumberSent, where=WANTED)
    steps = [on_database]
    since = "beginning"


class Calls(Pipeline):
    """An effect outside: class (iii)."""

    name = f"chaos-calls-{WORLD}"
    number = when(NumberSent, where=WANTED)
    steps = [on_outside]
    since = "beginning"


class Pairs(Pipeline):
    """A join of what two of the others give."""

    name = f"chaos-pairs-{WORLD}"
    doubled = when(NumberDoubled)
    stored = when(NumberStored)
    join = by("n", within="1h")
    steps = [on_both]
    since = "beginning"
