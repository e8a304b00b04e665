"""The pipelines that the runtime is tried with. Each test loads a copy of its own, with topics of its own.

What steps do is told in `done`, for tests that run in this process, and in the file RUNTIME_FILE names, one
line for each call, for those that do not.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from farandole import Attempt, Database, Pipeline, Retry, by, resource, step, when
from farandole.event import fact

WORLD = os.environ.get("RUNTIME_WORLD", "none")
FILE = os.environ.get("RUNTIME_FILE", "")
HOLD = os.environ.get("RUNTIME_HOLD", "")
SINCE = os.environ.get("RUNTIME_SINCE", "beginning")
SENT, DOUBLED, REFUSED, LEFT, RIGHT, PAIRED = (
    f"runtime.{WORLD}-{name}.v1"
    for name in ("number.sent", "number.doubled", "number.refused", "left.sent", "right.sent", "pair.met")
)

if _lease := os.environ.get("RUNTIME_LEASE"):
    from farandole import detached

    detached.LEASE, detached.BEAT, detached.LOOK = float(_lease), float(_lease) / 5, 0.2

MENDED = bool(os.environ.get("RUNTIME_MENDED"))
"""Whether this is the code in which the bugs of Picky, Eight and Meeting are mended."""

done: list[tuple[Any, ...]] = []
"""What steps did, in order."""
gate = threading.Event()
"""Steps of Slow wait for it (in a process of their own: for the file RUNTIME_HOLD to go)."""
gate.set()


def note(*what: Any) -> None:
    done.append(what)
    if FILE:
        with Path(FILE).open("ab") as file:
            file.write((" ".join(map(str, what)) + "\n").encode())


class _Record:
    """What generated event classes offer."""

    __slots__ = ()

    @classmethod
    def of(cls, record: Any) -> Any:
        return cls(**{f.name: record[f.name] for f in fields(cls)})  # type: ignore[arg-type]

    def record(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


@fact(SENT, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberSent(_Record):
    """A number was sent; `amount` is a number, mostly."""

    n: int
    key: str
    kind: str
    amount: Any

    @classmethod
    def of(cls, record: Any) -> NumberSent:
        if record["kind"] == "wedge":
            threading.Event().wait()  # on the polling thread: it never polls again
        return cls(**record)


@fact(DOUBLED, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberDoubled(_Record):
    """A number was doubled."""

    n: int
    key: str


@fact(REFUSED, key=("key",))
@dataclass(frozen=True, slots=True)
class NumberRefused(_Record):
    """A number was refused for a reason that is business."""

    n: int
    key: str
    why: str


@fact(LEFT, key=("pair",))
@dataclass(frozen=True, slots=True)
class LeftSent(_Record):
    """One half of a pair."""

    pair: str
    n: int


@fact(RIGHT, key=("pair",))
@dataclass(frozen=True, slots=True)
class RightSent(_Record):
    """The other half of a pair."""

    pair: str
    n: int


@fact(PAIRED, key=("pair",))
@dataclass(frozen=True, slots=True)
class PairMet(_Record):
    """Both halves are here."""

    pair: str
    n: int


def _schema(name: str, **types: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in types.items()]}


SCHEMAS = {
    SENT: _schema("NumberSent", n="long", key="string", kind="string", amount=["null", "long", "string"]),
    DOUBLED: _schema("NumberDoubled", n="long", key="string"),
    REFUSED: _schema("NumberRefused", n="long", key="string", why="string"),
    LEFT: _schema("LeftSent", pair="string", n="long"),
    RIGHT: _schema("RightSent", pair="string", n="long"),
    PAIRED: _schema("PairMet", pair="string", n="long"),
}

# ---- steps

FACTOR = int(os.environ.get("RUNTIME_FACTOR", "2"))
QUICK = Retry(3, backoff="1ms..5ms")


class BadNumber(Exception):
    """A number that business refuses."""


@step(retry=QUICK)
def double(number: NumberSent) -> NumberDoubled:
    note("double", number.n)
    if number.kind == "bad":
        raise ValueError(f"number {number.n} is bad")
    return NumberDoubled(number.n * FACTOR, number.key)


@step(retry=QUICK)
def double_slowly(number: NumberSent) -> NumberDoubled:
    note("begun", number.n)
    while not gate.wait(0.01) or (HOLD and Path(HOLD).exists()):
        time.sleep(0.01)
    note("ended", number.n)
    return NumberDoubled(number.n * 2, number.key)


@step(retry=QUICK)
def insert(number: NumberSent, database: Database) -> NumberDoubled:
    database.execute("INSERT INTO effect (n) VALUES (:n)", {"n": number.n})
    return NumberDoubled(number.n * 2, number.key)


@step(retry=Retry(3, backoff="1ms..5ms"))
def third_time_lucky(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    note("attempt", number.n, attempt.number, attempt.key)
    if attempt.number < 3:
        raise OSError(f"not yet, says attempt {attempt.number}")
    return NumberDoubled(number.n * 2, number.key)


BUSY = Retry(9, backoff="300ms..600ms")


def meet(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    """A number of amount k is refused at its first k attempts."""
    note("met", number.n, attempt.number)
    if attempt.number <= number.amount:
        raise OSError(f"number {number.n} is refused at attempt {attempt.number}")
    return NumberDoubled(number.n * 2, number.key)


@step(retry=BUSY)
def meet_busy(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    return meet(number, attempt)


@step(retry=BUSY)
def insert_busy(number: NumberSent, attempt: Attempt, database: Database) -> NumberDoubled:
    database.execute("INSERT INTO effect (n) VALUES (:n)", {"n": number.n})
    return meet(number, attempt)


@step(retry=BUSY, effect="idempotent")
def call_busy(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    return meet(number, attempt)


@step(retry=QUICK, effect="at_most_once")
def send_once(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    note("sent", number.n)
    time.sleep(0.01)
    return NumberDoubled(number.n * 2, number.key)


@step(retry=Retry(3, backoff="2s..2s"))
def second_time_lucky(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    note("attempt", number.n, attempt.number)
    if attempt.number < 2:
        raise OSError("not yet")
    return NumberDoubled(number.n * 2, number.key)


def refuse(number: NumberSent, error: BadNumber) -> NumberRefused:
    return NumberRefused(number.n, number.key, str(error))


@step(catch={BadNumber: refuse})
def double_good_ones(number: NumberSent) -> NumberDoubled:
    note("double", number.n)
    if number.kind == "bad":
        raise BadNumber(f"{number.n} is no good number")
    return NumberDoubled(number.n * 2, number.key)


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the first of several steps gives to the next."""

    n: int
    weight: int


def weigh(number: NumberSent) -> Weighed:
    note("weigh", number.n)
    return Weighed(number.n, number.n * 10)


class Api:
    """A dependency that a test puts down and up again, and that counts who asks."""

    def __init__(self) -> None:
        self.down = False
        self.quick = threading.Event()
        self.quick.set()
        self.calls: list[tuple[float, int, bool]] = []
        """When, for which number, and whether it answered."""

    def double(self, n: int) -> int:
        down = self.down
        self.calls.append((time.monotonic(), n, not down))
        self.quick.wait()
        if down:
            raise ConnectionRefusedError("nobody listens there")
        return 2 * n


api = Api()
deployed = {"broken": False}


@step(needs="doubling-api")
def ask(number: NumberSent) -> NumberDoubled:
    doubled = api.double(number.n)
    note("asked", number.n, number.key)
    return NumberDoubled(doubled, number.key)


@step(retry=1)
def deploy(number: NumberSent) -> NumberDoubled:
    if deployed["broken"] or os.environ.get("RUNTIME_BROKEN"):
        raise KeyError("amount")
    return NumberDoubled(2 * number.n, number.key)


@step(timeout="5s")
async def lift(weighed: Weighed, number: NumberSent) -> NumberDoubled:
    note("lift", number.n)
    await asyncio.sleep(0)
    return NumberDoubled(weighed.weight, number.key)


def carry(weighed: Weighed, number: NumberSent) -> NumberDoubled:
    """A number takes as long as its amount says."""
    note("carry", number.n)
    time.sleep(number.amount)
    note("carried", number.n)
    return NumberDoubled(number.n * 2, number.key)


def _hauled(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    """Takes as long as the amount says, or until the gate opens and the hold goes where that is less than 0."""
    note("haul", number.n, attempt.number, os.getpid())
    if number.kind == "bad":
        raise BadNumber(f"{number.n} is too heavy")
    if number.kind == "once" and attempt.number == 1:
        raise BadNumber(f"{number.n} is too heavy at first")
    end = time.monotonic() + (number.amount if number.amount >= 0 else 3600)
    while time.monotonic() < end and not (number.amount < 0 and gate.is_set() and not (HOLD and Path(HOLD).exists())):
        if attempt.cancelled.wait(0.02):
            note("dropped", number.n, os.getpid())
            raise InterruptedError("told to stop")
    note("hauled", number.n, os.getpid())
    return NumberDoubled(number.n * 2, number.key)


@step(detached=True, retry=Retry(3, backoff="1ms..5ms"))
def haul(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    return _hauled(number, attempt)


@step(detached=True, effect="at_most_once")
def haul_once(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    return _hauled(number, attempt)


@step(detached=True)
async def haul_async(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    note("haul", number.n, attempt.number, os.getpid())
    try:
        await asyncio.sleep(0 if os.environ.get("RUNTIME_QUICK") else number.amount)
    except asyncio.CancelledError:
        note("dropped", number.n, os.getpid())
        raise
    return NumberDoubled(number.n * 2, number.key)


def told(doubled: NumberDoubled, number: NumberSent) -> None:
    note("told", number.n)


@step(retry=QUICK)
def endure(weighed: Weighed, number: NumberSent, attempt: Attempt) -> NumberDoubled:
    note("begun", number.n, attempt.run_id)
    while not gate.wait(0.01):
        if attempt.cancelled.is_set():
            raise InterruptedError("told to stop")
    return NumberDoubled(weighed.weight, number.key)


def _deep(n: int) -> int:
    return _deep(n + 1)


RAISES: dict[str, Callable[[], Any]] = {
    "error": lambda: 1 // 0,
    "base": lambda: _raise(BaseException("a base exception")),
    "exit": lambda: sys.exit("a step that exits"),
    "interrupt": lambda: _raise(KeyboardInterrupt("a step that interrupts")),
    "memory": lambda: _raise(MemoryError("no memory")),
    "depth": lambda: _deep(0),
    "type": object,
}


def _raise(error: BaseException) -> None:
    raise error


@step(retry=Retry(1))
def raise_all(number: NumberSent) -> NumberDoubled:
    """What a number raises, or gives instead of an event, is its kind."""
    note(number.kind, number.n)
    if number.kind in RAISES:
        return RAISES[number.kind]()  # type: ignore[no-any-return]
    if number.kind == "gil":
        ctypes.PyDLL(None).sleep(12)  # keeps the interpreter's lock
    return NumberDoubled(number.n * 2, number.key)


@step(isolate=True, timeout="2s", retry=Retry(2, backoff="1ms..2ms"))
def risk(number: NumberSent, attempt: Attempt) -> NumberDoubled:
    """What a number does to its process is its kind."""
    note(number.kind, number.n, attempt.number, os.getpid())
    match number.kind:
        case "exit":
            os._exit(3)
        case "crash":
            ctypes.string_at(0)
        case "sleep":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case "once" if attempt.number == 1:
            os._exit(3)
    return NumberDoubled(number.n * 2, number.key)


@step(isolate=True)
def risk_for_long(number: NumberSent) -> NumberDoubled:
    note("begun", number.n, os.getpid())
    time.sleep(600)
    return NumberDoubled(number.n * 2, number.key)


class Bare(BaseException):
    """Not even an Exception."""


def behave(number: NumberSent) -> NumberDoubled:
    """What code may come to, by kind."""
    note("behave", number.n, os.getpid())
    match number.kind:
        case "error":
            raise ValueError("no")
        case "bare":
            raise Bare("bare")
        case "system-exit":
            raise SystemExit(3)
        case "keyboard":
            raise KeyboardInterrupt
        case "memory":
            raise MemoryError("none left")
        case "wrong":
            return 7  # type: ignore[return-value]
        case "wrong-event":
            return NumberRefused(number.n, number.key, "not declared")  # type: ignore[return-value]
        case "recursion":
            return behave_deeply(number)
        case "lock":
            ctypes.PyDLL(None).usleep(number.amount)  # in C, with the interpreter's lock in hand
    return NumberDoubled(number.n * 2, number.key)


def behave_deeply(number: NumberSent) -> NumberDoubled:
    return behave_deeply(number)


@step(retry=QUICK)
def behave_here(number: NumberSent) -> NumberDoubled:
    return behave(number)


@step(retry=QUICK, isolate=True)
def behave_apart(number: NumberSent) -> NumberDoubled:
    return behave(number)


@step(retry=1, timeout="50ms")
def stay(number: NumberSent) -> NumberDoubled:
    note("stays", number.n)
    if number.kind == "stay":
        time.sleep(600)
    return NumberDoubled(number.n * 2, number.key)


@step(timeout="1h")
def stay_long(number: NumberSent) -> NumberDoubled:
    note("stays", number.n)
    time.sleep(number.amount)
    return NumberDoubled(number.n * 2, number.key)


def heed(number: NumberSent, attempt: Attempt) -> None:
    """A step that ends when it is told to."""
    note("begun", number.n)
    while not attempt.cancelled.is_set():
        time.sleep(0.01)
    note("told to stop", number.n)


async def wait_long(number: NumberSent) -> NumberDoubled:
    """A number waits as long as its amount says; told to end, it says so."""
    note("begun", number.n)
    try:
        await asyncio.sleep(number.amount)
    except asyncio.CancelledError:
        note("cancelled", number.n)
        raise
    return NumberDoubled(number.n * 2, number.key)


@step(timeout="150ms", retry=Retry(2, backoff="1ms..2ms"))
async def never_answers(number: NumberSent) -> NumberDoubled:
    note("asked", number.n)
    await asyncio.sleep(600)
    return NumberDoubled(number.n, number.key)


@step(timeout="150ms", retry=Retry(2, backoff="1ms..2ms"))
def never_returns(number: NumberSent) -> NumberDoubled:
    note("asked", number.n)
    time.sleep(600)
    return NumberDoubled(number.n, number.key)


def pair(left: LeftSent, right: RightSent) -> PairMet:
    note("pair", left.pair)
    if left.pair == os.environ.get("RUNTIME_DEADLY"):
        os.kill(os.getpid(), signal.SIGKILL)
    while left.pair == os.environ.get("RUNTIME_SLOW") and Path(HOLD).exists():
        time.sleep(0.01)
    return PairMet(left.pair, left.n + right.n)


BUGS = {"bad": ValueError, "odd": KeyError, "hot": RuntimeError}
"""Three causes of death, by the kind of number."""


@step(retry=Retry(1))
def pick(number: NumberSent) -> NumberDoubled:
    note("pick", number.n)
    if not MENDED and number.kind in BUGS:
        raise BUGS[number.kind](f"number {number.n} is {number.kind}")
    return NumberDoubled(number.n * 2, number.key)


def look(number: NumberSent) -> None:
    note("look", number.n)


def refuse_doubled(doubled: NumberDoubled) -> NumberRefused:
    note("second", doubled.n)
    return NumberRefused(doubled.n, doubled.key, "too large")


largest: dict[str, int] = {}
"""A mart: the largest number of each key."""


def keep_largest(doubled: NumberDoubled) -> None:
    largest[doubled.key] = max(doubled.n, largest.get(doubled.key, 0))


def regret(refused: NumberRefused) -> None:
    note("third", refused.n)


def _numbered(ordinal: int) -> Callable[..., Any]:
    def numbered(number: NumberSent) -> None:
        note(f"step{ordinal}", number.n)
        if ordinal == 6 and not MENDED:
            raise ValueError(f"step 6 does not like {number.n}")

    numbered.__name__ = numbered.__qualname__ = f"step{ordinal}"
    return step(retry=Retry(1))(numbered)


step1, step2, step3, step4, step5, step6, step7, step8 = map(_numbered, range(1, 9))


@step(retry=Retry(1))
def join_up(left: LeftSent, right: RightSent) -> PairMet:
    note("join_up", left.pair)
    if not MENDED:
        raise ValueError(f"{left.n} and {right.n} do not meet")
    return PairMet(left.pair, left.n + right.n)


class Outside:
    """Something outside that is written to."""


@resource
def outside() -> Outside:
    return Outside()


def write_outside(number: NumberSent, outside: Outside) -> NumberDoubled:
    return NumberDoubled(number.n, number.key)


# ---- pipelines


def _named(name: str) -> str:
    return f"runtime-{name}-{WORLD}"


class Double(Pipeline):
    """Event to event."""

    name = _named("double")
    number = when(NumberSent, where="kind != 'skip'")
    steps = [double]
    since = SINCE


class Again(Pipeline):
    """As Double, and a rewind means nothing to it."""

    name = _named("again")
    number = when(NumberSent, where="kind != 'skip'")
    steps = [double]
    since = "beginning"
    on_rewind = "ignore"


class Slow(Pipeline):
    """Event to event, with a step that takes as long as the test wants."""

    name = _named("slow")
    number = when(NumberSent)
    steps = [double_slowly]
    slots = 2
    since = "beginning"


class Rows(Pipeline):
    """An effect in our own database."""

    name = _named("rows")
    number = when(NumberSent)
    steps = [insert]
    since = "beginning"


class Sending(Pipeline):
    """An effect outside that must not happen twice."""

    name = _named("sending")
    number = when(NumberSent)
    steps = [send_once]
    since = "beginning"


class Asking(Pipeline):
    """A step that depends on something outside."""

    name = _named("asking")
    number = when(NumberSent)
    steps = [ask]
    since = "beginning"


class Deployed(Pipeline):
    """A step that a bad deploy breaks."""

    name = _named("deployed")
    number = when(NumberSent)
    steps = [deploy]
    since = "beginning"


class Patient(Pipeline):
    """A step that succeeds at its third attempt."""

    name = _named("patient")
    number = when(NumberSent)
    steps = [third_time_lucky]
    since = "beginning"


class Busy(Pipeline):
    """A step that is refused so often that its run is parked."""

    name = _named("busy")
    number = when(NumberSent)
    steps = [meet_busy]
    since = "beginning"
    guard = "off"  # that much is refused on purpose


class BusyRows(Pipeline):
    """The same with an effect in our own database."""

    name = _named("busy-rows")
    number = when(NumberSent)
    steps = [insert_busy]
    since = "beginning"
    guard = "off"  # that much is refused on purpose


class BusyCalls(Pipeline):
    """The same with an effect outside."""

    name = _named("busy-calls")
    number = when(NumberSent)
    steps = [call_busy]
    since = "beginning"
    guard = "off"  # that much is refused on purpose


class Waiting(Pipeline):
    """A step that succeeds at its second attempt, some time later."""

    name = _named("waiting")
    number = when(NumberSent)
    steps = [second_time_lucky]
    since = "beginning"


class Catching(Pipeline):
    """An expected error becomes a business event."""

    name = _named("catching")
    number = when(NumberSent)
    steps = [double_good_ones]
    since = "beginning"


class Weighing(Pipeline):
    """Two steps: the first one's result is kept."""

    name = _named("weighing")
    number = when(NumberSent)
    steps = [weigh, lift]
    since = "beginning"


class Long(Pipeline):
    """Two steps, of which the second takes long; the first one's result is kept."""

    name = _named("long")
    number = when(NumberSent)
    steps = [weigh, carry]
    slots = 4
    since = "beginning"


class Haul(Pipeline):
    """A step before a detached one, which takes long, and one after it."""

    name = _named("haul")
    number = when(NumberSent)
    steps = [weigh, haul, told]
    slots = 4
    since = "beginning"


class HaulOnce(Pipeline):
    """Detached, and it must not happen twice outside."""

    name = _named("haul-once")
    number = when(NumberSent)
    steps = [haul_once]
    since = "beginning"


class HaulAsync(Pipeline):
    """Detached, and async."""

    name = _named("haul-async")
    number = when(NumberSent)
    steps = [haul_async]
    since = "beginning"


class Enduring(Pipeline):
    """A second step that takes as long as the test wants, unless it is told to stop."""

    name = _named("enduring")
    number = when(NumberSent)
    steps = [weigh, endure]
    since = "beginning"


class Raises(Pipeline):
    """A step that raises whatever can be raised."""

    name = _named("raises")
    number = when(NumberSent)
    steps = [raise_all]
    since = "beginning"


class Risky(Pipeline):
    """An isolated step."""

    name = _named("risky")
    number = when(NumberSent)
    steps = [risk]
    slots = 2
    since = "beginning"


class RiskyLong(Pipeline):
    """An isolated step that takes long."""

    name = _named("risky-long")
    number = when(NumberSent)
    steps = [risk_for_long]
    since = "beginning"


class Heeding(Pipeline):
    """A step that looks at its flag."""

    name = _named("heeding")
    number = when(NumberSent)
    steps = [heed]
    since = "beginning"


class Wild(Pipeline):
    """A step that does whatever code can do, in the process of the service."""

    name = _named("wild")
    number = when(NumberSent)
    steps = [behave_here]
    since = "beginning"


class Caged(Pipeline):
    """The same in a child process."""

    name = _named("caged")
    number = when(NumberSent)
    steps = [behave_apart]
    slots = 2
    since = "beginning"


class Staying(Pipeline):
    """A step that some numbers never let go."""

    name = _named("staying")
    number = when(NumberSent)
    steps = [stay]
    ordering = "none"
    slots = 30
    since = "beginning"
    guard = "off"


class StaysLong(Pipeline):
    """A step that heeds nothing, in a thread of its own as it has a timeout."""

    name = _named("stays-long")
    number = when(NumberSent)
    steps = [stay_long]
    since = "beginning"


class WeighThenWait(Pipeline):
    """An async step that takes long, after one whose result is kept."""

    name = _named("weigh-then-wait")
    number = when(NumberSent)
    steps = [weigh, wait_long]
    since = "beginning"


class Waits(Pipeline):
    """An async step that takes long."""

    name = _named("waits")
    number = when(NumberSent)
    steps = [wait_long]
    since = "beginning"


class Silent(Pipeline):
    """An async step that never answers."""

    name = _named("silent")
    number = when(NumberSent)
    steps = [never_answers]
    since = "beginning"


class Hanging(Pipeline):
    """A step that never returns."""

    name = _named("hanging")
    number = when(NumberSent)
    steps = [never_returns]
    since = "beginning"
    guard = "off"  # that much is refused on purpose


class Large(Pipeline):
    """A criterion that a text cannot meet and cannot miss."""

    name = _named("large")
    number = when(NumberSent, where="amount > 5")
    steps = [double]
    since = "beginning"


class Pairs(Pipeline):
    """Two signals make one run."""

    name = _named("pairs")
    left = when(LeftSent)
    right = when(RightSent)
    join = by("pair", within=os.environ.get("RUNTIME_WITHIN", "1h"))
    steps = [pair]
    since = "beginning"


class Picky(Pipeline):
    """Gives up for three causes."""

    name = _named("picky")
    number = when(NumberSent)
    steps = [pick]
    since = "beginning"
    guard = "off"


class Bystander(Pipeline):
    """Listens to the same topic, and has no trouble."""

    name = _named("bystander")
    number = when(NumberSent)
    steps = [look]
    since = "beginning"


class Second(Pipeline):
    """Comes after Double, and takes each number once."""

    name = _named("second")
    doubled = when(NumberDoubled)
    once = "n"
    steps = [refuse_doubled]
    since = "beginning"


class Mart(Pipeline):
    """Comes after Double, and keeps the largest number of each key."""

    name = _named("mart")
    doubled = when(NumberDoubled)
    steps = [keep_largest]
    since = "beginning"


class Third(Pipeline):
    """Comes after Second."""

    name = _named("third")
    refused = when(NumberRefused)
    steps = [regret]
    since = "beginning"


class Eight(Pipeline):
    """Eight steps, of which the sixth fails."""

    name = _named("eight")
    number = when(NumberSent)
    steps = [step1, step2, step3, step4, step5, step6, step7, step8]
    since = "beginning"


class Meeting(Pipeline):
    """Two signals make one run, which fails."""

    name = _named("meeting")
    left = when(LeftSent)
    right = when(RightSent)
    join = by("pair", within="1h")
    steps = [join_up]
    since = "beginning"


def undeclared() -> Callable[..., Any]:
    """A pipeline that writes outside and does not say what a second try would do there."""

    class Undeclared(Pipeline):
        """Writes outside."""

        name = _named("undeclared")
        number = when(NumberSent)
        steps = [write_outside]
        since = "beginning"

    return Undeclared


Undeclared = undeclared()
