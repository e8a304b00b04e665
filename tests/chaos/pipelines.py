"""Three pipelines, one for each class of commit, over the same input; each run of a test has topics of its own."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farandole import Attempt, Database, Pipeline, Retry, resource, step, when
from farandole.event import fact

WORLD = os.environ.get("CHAOS_WORLD", "none")
SENT = f"chaos.{WORLD}-number.sent.v1"
DOUBLED = f"chaos.{WORLD}-number.doubled.v1"


@fact(SENT, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberSent:
    """A number was sent. `kind` is "good", "skip" (filtered), or "bad" (dies)."""

    n: int
    key: str
    kind: str

    @classmethod
    def of(cls, record: Any) -> NumberSent:
        return cls(record["n"], record["key"], record["kind"])

    def record(self) -> dict[str, Any]:
        return {"n": self.n, "key": self.key, "kind": self.kind}


@fact(DOUBLED, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberDoubled:
    """A number was doubled."""

    n: int
    key: str

    @classmethod
    def of(cls, record: Any) -> NumberDoubled:
        return cls(record["n"], record["key"])

    def record(self) -> dict[str, Any]:
        return {"n": self.n, "key": self.key}


def double(number: NumberSent) -> NumberDoubled:
    if number.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if number.kind == "bad":
        raise ValueError(f"number {number.n} is bad")
    return NumberDoubled(number.n * 2, number.key)


@step(retry=Retry(2, backoff="1ms..2ms"))
def on_events(number: NumberSent) -> NumberDoubled:
    return double(number)


@step(retry=Retry(2, backoff="1ms..2ms"))
def on_database(number: NumberSent, database: Database) -> NumberDoubled:
    database.execute("INSERT INTO effect (n) VALUES (:n)", {"n": number.n})
    return double(number)


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
def on_outside(number: NumberSent, receiver: Receiver, attempt: Attempt) -> NumberDoubled:
    doubled = double(number)
    receiver.post(attempt.key, number.n)
    return doubled


class Events(Pipeline):
    """Event to event: class (i)."""

    name = f"chaos-events-{WORLD}"
    number = when(NumberSent, where="kind != 'skip'")
    steps = [on_events]
    since = "beginning"


class Rows(Pipeline):
    """An effect in our own database: class (ii)."""

    name = f"chaos-rows-{WORLD}"
    number = when(NumberSent, where="kind != 'skip'")
    steps = [on_database]
    since = "beginning"


class Calls(Pipeline):
    """An effect outside: class (iii)."""

    name = f"chaos-calls-{WORLD}"
    number = when(NumberSent, where="kind != 'skip'")
    steps = [on_outside]
    since = "beginning"
