"""A run takes its steps: the state machine, without Kafka and without SQL."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from farandole import Attempt, Pipeline, Retry, step, when
from farandole.clock import ManualClock
from farandole.deadletter import Failure
from farandole.errors import BrokerUnreachable, Fenced
from farandole.event import Envelope, Event, Position, RawRecord, envelope_of, fact
from farandole.fill import plan
from farandole.ids import attempt_key, output_id
from farandole.kept import pack
from farandole.match import Signal
from farandole.resources import Database, Resources
from farandole.run import Kit, Run, RunState, advance
from farandole.store.rows import Lane

ASKED, GIVEN, REFUSED = "unit.run.asked.v1", "unit.run.given.v1", "unit.run.refused.v1"


class _Record:
    @classmethod
    def of(cls, record: Any) -> Any:
        return cls(**record)

    def record(self) -> dict[str, Any]:
        return dict(vars(self))


@fact(ASKED, key=("n",))
@dataclass(frozen=True)
class Asked(_Record):
    n: int


@fact(GIVEN, key=("n",))
@dataclass(frozen=True)
class Given(_Record):
    n: int


@fact(REFUSED, key=("n",))
@dataclass(frozen=True)
class Refused(_Record):
    n: int
    why: str


calls: list[Any] = []
errors: list[BaseException] = []
"""What the steps below raise next; nothing raised, they succeed."""


@pytest.fixture(autouse=True)
def _fresh():
    calls.clear()
    errors.clear()


class BadAskError(Exception):
    pass


def raise_next() -> None:
    if errors:
        raise errors.pop(0)


@step(retry=Retry(3, backoff="1s..8s"))
def count(asked: Asked, attempt: Attempt) -> int:
    calls.append(("count", attempt.number, attempt.key))
    raise_next()
    return asked.n + 1


def give(count: int, asked: Asked) -> list[Given]:
    calls.append(("give", count))
    return [Given(asked.n), Given(count)]


def refuse(asked: Asked, error: BadAskError) -> Refused:
    return Refused(asked.n, str(error))


@step(catch={BadAskError: refuse})
def judge(asked: Asked) -> Given:
    raise_next()
    return Given(asked.n)


def undeclared(asked: Asked) -> Given:
    return Refused(asked.n, "not declared")  # type: ignore[return-value]


def found(asked: Asked) -> Given | None:
    calls.append("looked")
    return Given(asked.n) if errors else None


@step(effect="idempotent", retry=Retry(2, backoff="1s"))
def call_idempotent(asked: Asked) -> Given:
    calls.append("called")
    raise_next()
    return Given(asked.n)


@step(effect="at_most_once")
def call_once(asked: Asked) -> Given:
    calls.append("called")
    raise_next()
    return Given(asked.n)


@step(effect="at_most_once", retry=Retry(3, only=ConnectionRefusedError, backoff="1s"))
def call_once_if_connected(asked: Asked) -> Given:
    calls.append("called")
    raise_next()
    return Given(asked.n)


@step(effect="at_most_once", retry=Retry(3, only=ConnectionRefusedError), needs="orders-api")
def call_once_what_may_be_down(asked: Asked) -> Given:
    calls.append("called")
    raise_next()
    return Given(asked.n)


@step(effect="verify", check=found)
def call_verified(asked: Asked) -> Given:
    calls.append("called")
    return Given(asked.n)


def pipeline(*steps: Any) -> type[Pipeline]:

    words = {"asked": when(Asked), "steps": list(steps), "since": "now", "name": "unit", "__doc__": "Under test."}
    return type("Unit", (Pipeline,), words)


class Checkpoints:
    """The store's checkpoints, in a list."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def started(self, _lane: Lane, _run: str, name: str, attempt: int) -> None:
        self.written.append(("started", name, attempt))

    def done(self, _lane: Lane, _run: str, name: str, _result: bytes) -> None:
        self.written.append(("done", name))

    keep = done


@dataclass
class Kept:
    state: str
    result: bytes = b""
    attempt: int = 1


def kit_of(*steps: Any) -> Kit:
    declaration = pipeline(*steps).declaration
    kit = Kit(
        declaration, plan(declaration, Resources()), Resources(), lambda _, record: json.dumps(record).encode(), ManualClock(),
        Checkpoints(),
    )  # fmt: skip
    kit.lane_of, kit.luck = lambda _: Lane("t", "tid", 0, 1), lambda: 1.0
    return kit


def run_of(**kept: Kept) -> Run:
    at = Position(ASKED, "tid", 0, 7)
    headers = Envelope(
        "e1", "/s", ASKED, correlation_id="story", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    ).headers()
    raw = RawRecord(ASKED, "tid", 0, 7, -1, b"1", b"raw", list(headers))
    event = Event(envelope_of(headers, ASKED, at), at, {"n": 1}, b"1", b"raw")
    run = Run("run-1", b"key", b"1", (Signal("asked", event, raw, b"key", b"digest00", Asked(1)),))
    run.checkpoints = dict(kept)
    return run


def test_a_run_goes_through_its_steps_and_hands_on_their_results():
    run, kit = run_of(), kit_of(count, give)
    advance(run, kit)
    assert run.state is RunState.DONE
    assert [c[:2] for c in calls] == [("count", 1), ("give", 2)]
    assert [(s["name"], s["state"], s["attempts"]) for s in run.steps] == [("count", "done", 1), ("give", "done", 1)]
    assert [json.loads(r.value or b"") for r in run.outputs] == [{"n": 1}, {"n": 2}]


def test_an_output_has_a_derived_id_the_cause_and_the_trace_of_its_run():
    run, kit = run_of(), kit_of(judge)
    advance(run, kit)
    got = dict(run.outputs[0].headers)
    assert got["ce_id"] == output_id("run-1", GIVEN, 0).encode()
    assert (got["ce_source"], got["ce_type"], got["ce_subject"]) == (b"/farandole/unit", GIVEN.encode(), b"1")
    assert (got["ce_correlationid"], got["ce_causationid"], got["ce_runid"]) == (b"story", b"e1", b"run-1")
    assert got["traceparent"] == b"00-" + b"a" * 32 + b"-run1-01"
    assert run.outputs[0].key == b"1"


def test_the_same_run_again_gives_the_same_ids():
    one, other, kit = run_of(), run_of(), kit_of(count, give)
    advance(one, kit)
    kit.clock.advance("1h")  # type: ignore[attr-defined]
    advance(other, kit)
    assert [e["id"] for e in one.emitted] == [e["id"] for e in other.emitted]


def test_a_failed_step_is_tried_again_after_its_pause_with_the_same_key():
    run, kit = run_of(), kit_of(count, give)
    errors.append(OSError("busy"))
    advance(run, kit)
    assert (run.state, run.due, run.attempt, run.step) == (RunState.AGAIN, 1.0, 2, 0)
    advance(run, kit)
    assert run.state is RunState.DONE
    assert [c for c in calls if c[0] == "count"] == [("count", n, attempt_key("run-1", "count")) for n in (1, 2)]
    assert run.steps[0]["attempts"] == 2


def test_the_next_step_begins_with_its_first_attempt():
    run, kit = run_of(), kit_of(count, judge)
    errors.append(OSError("busy"))
    advance(run, kit)
    advance(run, kit)
    assert [s["attempts"] for s in run.steps] == [2, 1]


def test_exhausted_attempts_end_dead_with_step_error_and_first_failure():
    run, kit = run_of(), kit_of(count, give)
    errors.extend([OSError("one"), OSError("two"), OSError("three")])
    for _ in range(3):
        advance(run, kit)
        kit.clock.advance("1m")  # type: ignore[attr-defined]
    assert run.state is RunState.DEAD
    assert run.failure is not None
    assert (run.failure.stage, run.failure.step, run.failure.attempts) == ("run", "count", 3)
    assert run.failure.message == "three"
    assert run.failure.first_failed_at == ManualClock().now()
    assert run.outputs == []


def test_a_server_that_is_away_burns_no_attempt():
    run, kit = run_of(), kit_of(count, give)
    errors.extend([BrokerUnreachable("away")] * 7)
    for _ in range(8):
        advance(run, kit)
    assert run.state is RunState.DONE
    assert run.steps[0]["attempts"] == 1


def test_a_caught_error_ends_with_its_business_event():
    run, kit = run_of(), kit_of(judge, give_on_judged)
    errors.append(BadAskError("no"))
    advance(run, kit)
    assert run.state is RunState.CAUGHT
    assert [e["type"] for e in run.emitted] == [REFUSED]
    assert [s["state"] for s in run.steps] == ["caught"]


def give_on_judged(judge: Given) -> Given:
    return Given(judge.n + 1)


def test_an_event_that_is_not_declared_is_dead_at_once():
    run, kit = run_of(), kit_of(undeclared)
    advance(run, kit)
    assert run.state is RunState.DEAD
    assert run.failure is not None
    assert "which it does not declare" in run.failure.message


gives: list[Any] = []


def give_what_it_wants(asked: Asked) -> Given | int | None:
    return gives[0]  # type: ignore[no-any-return]


def promise(asked: Asked) -> Given:
    return gives[0]  # type: ignore[no-any-return]


def promise_many(asked: Asked) -> list[Given]:
    return gives[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("steps", "result", "state"),
    [
        (promise, object(), RunState.DEAD),
        (promise, "given", RunState.DEAD),
        (promise_many, (g for g in ()), RunState.DEAD),
        (promise_many, [1], RunState.DEAD),
        (give_what_it_wants, "text", RunState.DEAD),
        (give_what_it_wants, 7, RunState.DONE),
        (promise, None, RunState.DONE),
        (promise_many, [], RunState.DONE),
    ],
)
def test_a_result_that_is_no_event_where_one_is_promised_is_not_lost_without_a_word(steps, result, state):
    gives[:] = [result]
    run = run_of()
    advance(run, kit_of(steps))
    assert run.state is state
    if state is RunState.DEAD:
        assert run.failure is not None
        assert f"got a {type(result).__name__} from a step that gives" in run.failure.message
        assert "return an event" in run.failure.message


def test_a_fence_is_no_failure_of_the_run():
    run, kit = run_of(), kit_of(count, give)
    errors.append(Fenced("another instance"))
    with pytest.raises(Fenced):
        advance(run, kit)
    assert run.failure is None


def test_a_kept_result_is_not_asked_for_again():
    run, kit = run_of(count=Kept("done", pack(41, "count"))), kit_of(count, give)
    advance(run, kit)
    assert calls == [("give", 41)]
    assert [s["reused"] for s in run.steps] == [True, False]


def test_a_result_is_kept_only_where_a_step_follows():
    kit = kit_of(count, give)
    advance(run_of(), kit)
    assert kit.checkpoints.written == [("done", "count")]


def test_an_effect_outside_is_noted_before_and_after_it():
    kit = kit_of(call_idempotent)
    advance(run_of(), kit)
    assert kit.checkpoints.written == [("started", "call_idempotent", 1), ("done", "call_idempotent")]


@pytest.mark.parametrize(
    ("effect", "known", "state", "made"),
    [
        (call_idempotent, [], RunState.DONE, ["called"]),
        (call_verified, [OSError()], RunState.DONE, ["looked"]),
        (call_verified, [], RunState.DONE, ["looked", "called"]),
        (call_once, [], RunState.UNCERTAIN, []),
    ],
)
def test_an_effect_in_doubt_is_handled_as_its_kind_says(effect, known, state, made):
    run, kit = run_of(**{effect.__name__: Kept("started")}), kit_of(effect)
    errors.extend(known)
    advance(run, kit)
    assert (run.state, calls) == (state, made)


def test_an_effect_at_most_once_that_failed_is_uncertain_and_not_tried_again():
    run, kit = run_of(), kit_of(call_once)
    errors.append(OSError("reset by peer"))
    advance(run, kit)
    assert run.state is RunState.UNCERTAIN
    assert calls == ["called"]


def test_an_effect_at_most_once_is_tried_again_for_an_error_that_comes_before_it():
    run, kit = run_of(), kit_of(call_once_if_connected)
    errors.append(ConnectionRefusedError())
    advance(run, kit)
    assert run.state is RunState.AGAIN
    advance(run, kit)
    assert (run.state, calls) == (RunState.DONE, ["called", "called"])


WHY = Failure("farandole.Cancelled", "cancelled by ada: wrong", "run", fingerprint="f", reason="cancelled")


@step(retry=Retry(3, backoff="1s"), catch={BadAskError: refuse})
def listens(asked: Asked, attempt: Attempt) -> Given:
    run_under_way[0].end(WHY)  # as a person does from another thread
    if attempt.cancelled.is_set():
        raise BadAskError
    return Given(asked.n)


run_under_way: list[Run] = []


def test_a_run_that_is_ended_by_hand_tells_its_step_and_is_dead_neither_retried_nor_caught():
    run, kit = run_of(), kit_of(listens)
    run_under_way[:] = [run]
    advance(run, kit)
    assert run.state is RunState.DEAD
    assert (run.failure.reason, run.failure.step, run.outputs) == ("cancelled", "listens", [])
    assert run.steps[-1]["state"] == "cancelled"


def test_a_run_that_is_ended_by_hand_begins_no_further_step_and_keeps_what_it_has():
    run, kit = run_of(), kit_of(count, give)
    errors.append(OSError())
    advance(run, kit)
    run.end(WHY)
    advance(run, kit)
    assert (run.state, run.failure.step, calls) == (RunState.DEAD, "count", [calls[0]])


@step(effect="at_most_once")
def sends(asked: Asked, attempt: Attempt) -> Given:
    run_under_way[0].end(WHY)
    raise InterruptedError


def test_an_effect_at_most_once_that_is_ended_by_hand_in_its_middle_is_uncertain():
    run, kit = run_of(), kit_of(sends)
    run_under_way[:] = [run]
    advance(run, kit)
    assert run.state is RunState.UNCERTAIN


def test_a_run_whose_last_step_gives_its_result_all_the_same_is_done():
    run, kit = run_of(), kit_of(count)
    run_under_way[:] = [run]
    advance(run, kit)
    run.end(WHY)
    assert run.state is RunState.DONE


@step(timeout="10s")
def loses_its_partition_in_time(asked: Asked) -> int:
    run_under_way[0].give_up()
    return 1


def loses_its_partition(asked: Asked) -> int:
    run_under_way[0].give_up()
    return 1


def never_asked(asked: Asked) -> Given:
    calls.append("asked")
    return Given(asked.n)


@pytest.mark.parametrize("first", [loses_its_partition, loses_its_partition_in_time])
def test_a_run_whose_partition_is_gone_takes_no_further_step_and_keeps_nothing(first):
    run, kit = run_of(), kit_of(first, never_asked)
    run_under_way[:] = [run]
    with pytest.raises(Fenced):
        advance(run, kit)
    assert (calls, run.steps, run.failure, kit.checkpoints.written) == ([], [], None, [])


class Connection:
    """A transaction that says what is done in it."""

    def begin_nested(self) -> Any:
        return nullcontext()

    def execute(self, _statement: Any, parameters: Any) -> None:
        calls.append(parameters["n"])


@step(timeout="50ms", retry=1)
def writes_too_late(asked: Asked, database: Database) -> None:
    database.execute("insert into t values (:n)", {"n": 1})
    late.wait(20)
    try:
        database.execute("insert into t values (:n)", {"n": 2})
    except BaseException as error:
        calls.append(type(error).__name__)
    over.set()


late, over = threading.Event(), threading.Event()


def test_an_attempt_that_goes_on_after_its_time_writes_nothing_into_the_transaction_that_goes_on_without_it():
    run, kit = run_of(), kit_of(writes_too_late)
    advance(run, kit, Database(Connection()))
    assert (run.state, run.failure.class_name) == (RunState.DEAD, "TimeoutError")
    late.set()
    assert over.wait(20)
    assert calls == [1, "GivenUp"]


def test_an_effect_at_most_once_waits_for_a_dependency_only_if_the_error_comes_before_it():
    run, kit = run_of(), kit_of(call_once_what_may_be_down)
    errors.append(ConnectionRefusedError())
    advance(run, kit)
    assert (run.state, run.attempt) == (RunState.AGAIN, 1)
    errors.append(ConnectionResetError())
    advance(run, kit)
    assert run.state is RunState.UNCERTAIN
