"""One run takes its steps: the only state machine.

A run is a value that walks through named moves; a failure is a value too. The moves are called on a slot
thread. What a run may touch there is in its :class:`Kit`; Kafka is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from farandole.attempt import Attempt
from farandole.calling import Caller, Flag
from farandole.clock import Clock
from farandole.deadletter import Failure, failure_of
from farandole.decide import AGAIN, CAUGHT, PARK, WAIT, Decision, decide
from farandole.declaration import Declaration
from farandole.emission import keep
from farandole.errors import Away, Fenced, GivenUp
from farandole.event import Interval, Record
from farandole.fill import StepPlan
from farandole.ids import attempt_key
from farandole.kept import pack, unpack
from farandole.ledger.entry import Emitted, StepTaken
from farandole.match import Signal
from farandole.points import point


class RunState(StrEnum):
    """Where a run stands. `again`, `running` and `rests` are within an instance; the others stand in the ledger."""

    RUNNING = "running"
    AGAIN = "again"
    RESTS = "rests"
    DONE = "done"
    CAUGHT = "caught"
    DEAD = "dead"
    UNCERTAIN = "uncertain"
    PARKED = "parked"


@dataclass(slots=True)
class Run:
    """One execution of a pipeline, for one signal or for one joined set of signals."""

    id: str
    key: bytes
    okey: bytes
    signals: tuple[Signal, ...]
    at: tuple[int, bytes] = (0, b"")  # epoch and key
    home: Any = None  # the owned partition it came from
    slots: list[Any] = field(default_factory=list)  # its records there: one, or the parts of a set that was parked
    via: list[str] = field(default_factory=list)  # the retry records that brought it, if it came by them
    epoch: int = 0
    life: int = 0
    join_key: bytes | None = None
    step: int = 0
    attempt: int = 1
    state: RunState = RunState.RUNNING
    results: list[Any] = field(default_factory=list)
    outputs: list[Record] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)
    steps: list[StepTaken] = field(default_factory=list)
    checkpoints: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    first_failed_at: datetime | None = None
    failing_since: float | None = None  # on the monotonic clock, here
    pause: float = 0.0  # of a parked run: seconds until its next attempt
    told: dict[str, str] = field(default_factory=dict)  # who moved or ended it by hand, and why
    behind: bool = False  # parked behind an earlier run of its record key, without having begun
    missed_at: int = -1  # of what it needs, the answers to others when it failed here
    faults: int = 0  # such failures with answers to others between
    probed: int = 0  # how often it was the probe, and failed
    holds: bool = False  # later events of its record key must wait until it goes on
    started_at: int = 0
    ended_at: int = 0
    due: float = 0.0
    fence: int = 0
    verdict: RunState | None = None  # how it ended; kept while the decision waits for SQL
    sent: bool = False  # the effect at hand was asked for: from here on it may have happened
    skipped: bool = False  # never begun: its partition is leaving
    decided: bool = False  # SQL has decided: publish, never ask again
    checkpointed: bool = False
    repairs: dict[str, bytes] = field(default_factory=dict)  # done before: its outputs that are gone, with digests
    over: bool = False  # ended and collected; it stays known until SQL was told
    known: Any = None  # found settled meanwhile: a duplicate after all
    stored: list[Any] = field(default_factory=list)
    copies: list[Any] = field(default_factory=list)  # readings of the same key that came while it was under way
    cancelled: Flag | None = None
    given_up: bool = False  # its partition is somebody else's: whatever it gives does not count
    ending: Failure | None = None  # why a person ends it: dead, before its next step

    def end(self, why: Failure) -> None:
        """From any thread: it goes no further, and the attempt that is under way is told so."""
        self.ending = why
        if self.cancelled is not None:
            self.cancelled.set()

    @property
    def cause(self) -> Signal:
        """The signal that made it start: the last of a joined set."""
        return self.signals[-1]

    def give_up(self) -> None:
        """Tell the step at hand that its result is not wanted any more."""
        self.given_up = True
        if self.cancelled is not None:
            self.cancelled.set()

    def fact(self, name: str) -> Any:
        """The author's object of a signal; of a signal that was told again while it waited, the latest."""
        last = self.signals[-1]
        return last.fact if last.name == name else next(s.fact for s in reversed(self.signals) if s.name == name)

    @property
    def tries(self) -> int:
        """Its attempts at the step at hand, counted so that those of a later life come after those of an earlier."""
        return self.life * 1000 + self.attempt

    @property
    def interval(self) -> Interval | None:
        """The data interval of the first signal that has one."""
        for signal in self.signals:
            if "interval" in signal.event.value and isinstance(
                found := getattr(signal.fact, "interval", None), Interval
            ):
                return found
        return None


@dataclass(slots=True)
class Kit:
    """What runs need: the declaration with its filled plans, and the doors they may use."""

    declaration: Declaration
    plans: tuple[StepPlan, ...]
    resources: Any
    encode: Callable[[str, dict[str, Any]], bytes]
    clock: Clock
    checkpoints: Any = None  # store.checkpoints, None where results are kept in memory only
    lane_of: Callable[[Run], Any] = lambda run: run.home.lane
    caller: Caller = field(default_factory=Caller)
    luck: Callable[[], float] = random.random
    restates: Callable[[int], str] = lambda _epoch: ""  # the header of what an epoch emits
    gate: Any = None  # protection.Protection; None where nothing holds runs back
    version: str = ""
    detached: Any = None  # detached.Detached; None where detached steps are asked as any other is


def advance(run: Run, kit: Kit, database: Any = None) -> None:
    """Take the run as far as it goes: to its end, or to the next try.

    Never raises for what a step does; raises Fenced when the partition has another owner, and Away when the next step
    is detached.
    """
    run.started_at = run.started_at or kit.clock.millis()
    run.state = RunState.RUNNING
    while run.step < len(kit.plans):
        plan = kit.plans[run.step]
        kept = run.checkpoints.get(plan.step.name)
        started, run.sent, version = kit.clock.millis(), False, kit.version
        if run.ending is not None:
            return _ended(run, plan, started, kit)
        gate = kit.gate if plan.step.needs else None
        if gate is not None and not gate.lets(run, plan.step):
            return None
        try:
            if kept is not None and kept.state == "done":
                (result, version), reused = unpack(kept.result, plan.returns, plan.step.name), True
                if kit.detached is not None and (since := kit.detached.gave(run.id, plan.step.name)):
                    started, reused = since, False
            else:
                result, reused = ask(run, plan, kit, database, kept), False
                if result is UNSURE:
                    _note(run, plan, started, kit, state="uncertain")
                    return _end(run, RunState.UNCERTAIN, kit)
            keep(run, result, kit, plan.returns)
        except (Fenced, Away):
            raise  # the partition is somebody else's, and nothing of the run counts; or it goes on elsewhere
        except BaseException as error:  # noqa: BLE001 - whatever a step raises is the run's failure, not the service's
            return _failed(run, plan, error, started, kit, database)
        _note(run, plan, started, kit, reused=reused, version=version)
        if gate is not None and not reused:
            gate.answered(run, plan.step)
        run.step += 1
        if not reused and database is None:  # what is reused was not at fault; in one transaction all is tried again
            run.attempt = 1
    return _end(run, RunState.DONE, kit)


UNSURE = object()
"""What is given for an effect at most once of which nobody knows whether it happened."""


def _end(run: Run, state: RunState, kit: Kit) -> None:
    run.state = run.verdict = state
    run.ended_at = kit.clock.millis()


def ask(run: Run, plan: StepPlan, kit: Kit, database: Any, kept: Any) -> Any:
    """One attempt at one step, with its checkpoints where it has an effect outside or a successor."""
    if kit.detached is not None and plan.step.detached:
        return kit.detached.ask(run, plan, kit)
    effect = plan.step.effect
    if not effect:
        point("step.running")
        if database is None:
            result = _call(run, plan, kit, None)
        else:
            with database.connection.begin_nested():  # what a failed step wrote is undone before its catch runs
                result = _call(run, plan, kit, database)
        point("step.done")
        if kit.checkpoints is not None and database is None and run.step + 1 < len(kit.plans):
            kit.checkpoints.keep(kit.lane_of(run), run.id, plan.step.name, pack(result, plan.step.name, kit.version))
        return result
    if kept is not None:  # a foreign or own older `started`: in doubt
        if effect == "at_most_once" and kept.attempt >= run.tries:
            return UNSURE
        if effect == "verify" and (found := _call(run, plan.check, kit, None)) is not None:  # type: ignore[arg-type]
            kit.checkpoints.started(kit.lane_of(run), run.id, plan.step.name, run.tries)
            kit.checkpoints.done(kit.lane_of(run), run.id, plan.step.name, pack(found, plan.step.name, kit.version))
            return found
    kit.checkpoints.started(kit.lane_of(run), run.id, plan.step.name, run.tries)
    point("step.claimed")
    point("step.running")
    run.sent = True
    result = _call(run, plan, kit, database)
    point("effect.acked")
    kit.checkpoints.done(kit.lane_of(run), run.id, plan.step.name, pack(result, plan.step.name, kit.version))
    point("checkpoint.committed")
    return result


def _call(run: Run, plan: StepPlan, kit: Kit, database: Any, error: BaseException | None = None) -> Any:
    """Fill the parameters and call the author's function. Raises Fenced where nobody wants what it gives."""
    run.cancelled = flag = Flag()
    if run.given_up:
        raise Fenced(f"run {run.id} is somebody else's by now")
    if run.ending is not None:
        flag.set()
    inline, lent = kit.caller.inline(plan), database
    arguments: list[Any] = []
    for kind, which in plan.sources:
        match kind:
            case "signal":
                arguments.append(run.fact(which))
            case "result":
                arguments.append(run.results[which])
            case "resource":  # an isolated step opens its own, where it is
                arguments.append(None if kit.caller.isolates(plan) else kit.resources.get(which))
            case "attempt":
                key = attempt_key(run.id, plan.step.name)
                arguments.append(Attempt(key, run.attempt, run.id, run.interval, run.fence, flag))
            case "database":
                lent = database if inline else database.lent()
                arguments.append(lent)
            case "error":
                arguments.append(error)
    try:
        # no frame of its own between a slot and the author's function
        result = plan.function(*arguments) if inline else kit.caller.call(plan, arguments, flag)
    except GivenUp as why:
        if run.given_up:
            raise Fenced(str(why)) from None
        raise
    finally:
        if lent is not database:
            lent.take_back()  # what still goes on must not get into a transaction that goes on without it
    if run.given_up:
        raise Fenced(f"run {run.id} is somebody else's by now")
    return result


def _note(run: Run, plan: StepPlan, started: int, kit: Kit, *, state: str = "done", **told: Any) -> None:
    run.steps.append(
        {
            "name": plan.step.name,
            "state": state,
            "attempts": run.attempt,
            "started_at": started,
            "ended_at": kit.clock.millis(),
            "error": told.get("error", ""),
            "reused": told.get("reused", False),
            "version": told.get("version", kit.version),
        }
    )


def _failed(run: Run, plan: StepPlan, error: BaseException, started: int, kit: Kit, database: Any) -> None:
    """A failure is a value: try again later, turn it into a business event, or give the event up."""
    if run.ending is not None and not (run.sent and plan.step.effect == "at_most_once"):
        return _ended(run, plan, started, kit)
    name = kit.declaration.name
    now = _decided(run, plan, error, kit)
    run.first_failed_at = run.first_failed_at or kit.clock.now()
    doubtful = run.sent and plan.step.effect == "at_most_once" and now.kind != CAUGHT
    failure = failure_of(error, "run", plan.step.name, name, attempts=run.attempt, first_failed_at=run.first_failed_at)
    if doubtful and not now.before:
        run.failure = failure
        _note(run, plan, started, kit, state="uncertain", error=run.failure.message)
        return _end(run, RunState.UNCERTAIN, kit)  # it may have been sent: only `only=` says which errors come before
    if now.kind in (AGAIN, WAIT):
        run.state = RunState.AGAIN
        run.due = max(run.due, kit.clock.monotonic() + now.after)
        run.attempt += now.kind == AGAIN
        return None
    if now.kind == PARK:
        run.failure, run.pause, run.holds = failure, now.after, True
        _note(run, plan, started, kit, state="parked", error=failure.message)
        run.attempt += 1
        return _end(run, RunState.PARKED, kit)
    if now.kind == CAUGHT:
        try:
            answer = plan.catches[now.catch]
            keep(run, _call(run, answer, kit, database, error), kit, answer.returns)
        except Fenced:
            raise
        except BaseException as second:  # noqa: BLE001 - as above
            failure = failure_of(
                second, "run", f"{plan.step.name}.catch", name, attempts=1, first_failed_at=run.first_failed_at
            )
        else:
            run.failure = failure
            _note(run, plan, started, kit, state="caught", error=failure.message)
            return _end(run, RunState.CAUGHT, kit)
    run.failure, run.holds = failure, kit.declaration.on_dead == "hold-key"
    _note(run, plan, started, kit, state="failed", error=failure.message)
    return _end(run, RunState.DEAD, kit)


def _decided(run: Run, plan: StepPlan, error: BaseException, kit: Kit) -> Decision:
    """What becomes of it, and what that tells of the dependencies."""
    moment = kit.clock.monotonic()
    run.failing_since = moment if run.failing_since is None else run.failing_since
    blamed = kit.gate is not None and kit.gate.blames(run)
    now = decide(error, run.attempt, plan.step, kit.luck(), moment - run.failing_since, blamed=blamed)
    if now.kind == WAIT:
        run.failing_since = None  # time that is waited for others is no time in place
    if kit.gate is not None:
        kit.gate.failed(run, now, error)
    return now


def _ended(run: Run, plan: StepPlan, started: int, kit: Kit) -> None:
    """A person wanted it so: dead, with what earlier steps gave kept for the next life."""
    assert run.ending is not None  # noqa: S101 - whoever calls this has looked
    first = run.first_failed_at or kit.clock.now()
    run.failure = replace(run.ending, step=plan.step.name, attempts=run.attempt, first_failed_at=first)
    run.holds = kit.declaration.on_dead == "hold-key"
    _note(run, plan, started, kit, state="cancelled", error=run.failure.message)
    return _end(run, RunState.DEAD, kit)
