"""Runs that leave their place: parked, held in order, moved by redrives, and each once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from farandole import Attempt, Database, Pipeline, Retry, by, step, when
from farandole.control import CANCEL, RELEASE, RESCHEDULE, Command, run_id_of
from farandole.delivery import REDRIVE, REEMITTED, RESOLVE, Delivery, retry_record
from farandole.event import RawRecord
from farandole.testing import Stage, conservation, one_effect
from tests.unit.stage_events import event


@event("parking.row.sent.v1", "key")
class RowSent:
    n: int
    key: str


@event("parking.note.sent.v1", "key")
class NoteSent:
    n: int
    key: str


@event("parking.row.stored.v1", "key")
class RowStored:
    n: int
    key: str


class Busy(Exception):
    pass


class World:
    """What the steps meet: numbers that fail so often, and what was asked for."""

    def __init__(self, **fails: int) -> None:
        self.fails = {int(n.removeprefix("n")): times for n, times in fails.items()}
        self.asked: list[int] = []

    def meet(self, n: int) -> None:
        self.asked.append(n)
        if self.fails.get(n, 0) > 0:
            self.fails[n] -= 1
            raise Busy(f"number {n} is busy")


POLICY = Retry(6, backoff="1s..1m")


@step(retry=POLICY)
def store(row: RowSent, world: World) -> RowStored:
    world.meet(row.n)
    return RowStored(row.n, row.key)


class Store(Pipeline):
    """Keeps rows."""

    name = "parking-store"
    row = when(RowSent)
    steps = [store]
    since = "beginning"


class Unordered(Pipeline):
    """Keeps rows in any order."""

    name = "parking-unordered"
    row = when(RowSent)
    steps = [store]
    since = "beginning"
    ordering = "none"


class Holding(Pipeline):
    """Keeps rows; a dead letter holds its key."""

    name = "parking-holding"
    row = when(RowSent)
    steps = [store]
    since = "beginning"
    on_dead = "hold-key"


def stage_of(pipeline: Any, **fails: int) -> tuple[Stage, World]:
    world = World(**fails)
    return Stage(pipeline, resources={World: world}), world


def stored(stage: Stage) -> list[int]:
    return [event.n for event in stage.sent]


def rows(*numbers: int, key: str = "a") -> list[RowSent]:
    return [RowSent(n, key) for n in numbers]


def again(stage: Stage, kind: str = REDRIVE, life: int = 1, **more: Any) -> None:
    """Bring the newest dead letter back, as a tool does."""
    letter = stage.dead[-1]
    event = RawRecord(
        "", "", 0, 0, -1, letter.raw.key, letter.raw.value, [h for h in letter.raw.headers if "dlq" not in h[0]]
    )
    delivery = Delivery(
        kind,
        letter.run_id,
        letter.key,
        letter.topic,
        letter.topic_id,
        letter.partition,
        letter.offset,
        life=life,
        **more,
    )
    stage._log.append(retry_record(f"retry.{stage.declaration.name}", 1, event, delivery))
    stage.wait("0s")


def states(stage: Stage) -> list[str]:
    return sorted(entry.state for entry in stage.runs)


def test_a_run_that_fails_too_often_in_place_is_parked_and_other_keys_go_on():
    stage, _ = stage_of(Store, n1=3)
    stage.tell(*rows(1), *rows(2, key="b"))
    stage.wait("10s")

    assert (stored(stage), states(stage)) == ([2, 1], ["done", "done"])
    assert [(e.state, e.attempt) for e in stage.ledger if e.id == stage.runs[-1].id] == [("parked", 4), ("done", 0)]
    assert conservation(stage) == one_effect(stage) == []


def test_later_events_of_its_record_key_stand_behind_it_in_their_order():
    stage, world = stage_of(Store, n1=4)
    stage.tell(*rows(1, 2))
    stage.wait("3s")  # parked, and 2 behind it
    stage.tell(*rows(3))  # comes while it waits
    assert (stored(stage), [e.state for e in stage.runs]) == ([], ["parked", "parked", "parked"])

    stage.wait("1m")

    assert (stored(stage), world.asked) == ([1, 2, 3], [1, 1, 1, 1, 1, 2, 3])
    stage.tell(*rows(4))
    assert (stored(stage), stage.under_way) == ([1, 2, 3, 4], 0)
    assert conservation(stage) == one_effect(stage) == []


def test_without_an_order_the_others_pass():
    stage, _ = stage_of(Unordered, n1=4)
    stage.tell(*rows(1, 2))
    stage.wait("3s")
    stage.tell(*rows(3))
    assert stored(stage) == [2, 3]
    stage.wait("1m")
    assert stored(stage) == [2, 3, 1]


def test_a_parked_run_survives_a_restart_with_its_attempts_counted_on():
    stage, world = stage_of(Store, n1=99)
    stage.tell(*rows(1, 2))
    stage.wait("3s")
    stage.restart()
    stage.wait("4s")
    stage.restart()
    stage.wait("10m")

    assert (world.asked, stored(stage)) == ([1] * 6 + [2], [2])
    assert (stage.dead[0].attempts, states(stage)) == (6, ["dead", "done"])


def test_another_telling_of_a_parked_event_is_a_duplicate():
    stage, world = stage_of(Store, n1=3)
    stage.tell(*rows(1))
    stage.wait("3s")
    stage.tell(*rows(1))
    stage.wait("1m")
    assert (stage.duplicates, stored(stage), world.asked) == (1, [1], [1] * 4)


@pytest.mark.parametrize("clicks", [1, 2])
def test_a_redriven_letter_runs_once_however_often_it_is_asked_for(clicks):
    stage, world = stage_of(Store, n1=6)
    stage.tell(*rows(1))
    stage.wait("10m")
    assert [e.state for e in stage.runs] == ["dead"]
    for _ in range(clicks):
        again(stage)

    assert (stored(stage), world.asked, states(stage)) == ([1], [1] * 7, ["done"])
    again(stage)
    assert stored(stage) == [1]
    assert conservation(stage) == one_effect(stage) == []


def test_a_redriven_letter_that_fails_again_is_a_letter_of_its_next_life():
    stage, _ = stage_of(Store, n1=12)
    stage.tell(*rows(1))
    stage.wait("10m")
    again(stage)
    stage.wait("10m")

    assert [(letter.life, letter.attempts) for letter in stage.dead] == [(0, 6), (1, 6)]
    again(stage, life=1)  # an old click
    again(stage, life=2)
    assert (stored(stage), stage.runs[0].life) == ([1], 2)


def test_a_life_that_cannot_be_next_is_refused_as_a_letter_of_its_own():
    stage, _ = stage_of(Store, n1=6)
    stage.tell(*rows(1))
    stage.wait("10m")
    again(stage, life=5)
    assert (stored(stage), stage.dead[-1].reason) == ([], "redrive.bad-life")


def test_a_resolved_letter_is_settled_without_a_run_and_says_who_and_why():
    stage, world = stage_of(Store, n1=6)
    stage.tell(*rows(1))
    stage.wait("10m")
    again(stage, RESOLVE, actor="ann", reason="paid by hand")

    (entry,) = stage.runs
    assert (entry.state, entry.detail) == ("resolved", {"actor": "ann", "reason": "paid by hand"})
    again(stage)
    assert (stored(stage), len(world.asked)) == ([], 6)


def test_what_is_done_is_not_resolved_afterwards():
    stage, _ = stage_of(Store, n1=6)
    stage.tell(*rows(1))
    stage.wait("10m")
    again(stage)
    again(stage, RESOLVE, life=1, actor="ann", reason="too late")
    assert (states(stage), stored(stage)) == (["done"], [1])


def test_a_dead_letter_holds_its_record_key_where_the_pipeline_says_so():
    stage, _ = stage_of(Holding, n1=6)
    stage.tell(*rows(1, 2), *rows(7, key="b"))
    stage.wait("10m")
    stage.tell(*rows(3))
    stage.wait("10m")
    assert (stored(stage), states(stage)) == ([7], ["dead", "done", "parked", "parked"])

    again(stage)
    stage.wait("2s")
    assert stored(stage) == [7, 1, 2, 3]
    assert conservation(stage) == one_effect(stage) == []


def test_a_resolved_letter_lets_go_of_what_it_held():
    stage, _ = stage_of(Holding, n1=6)
    stage.tell(*rows(1, 2))
    stage.wait("10m")
    again(stage, RESOLVE, reason="never mind")
    stage.wait("2s")
    assert stored(stage) == [2]


def wish(stage: Stage, kind: str, **more: Any) -> None:
    run = stage.runs[0].id
    at = stage.clock.millis() + 1
    stage.command(Command(run_id_of(run), kind, stage.declaration.name, run, "ann@desk", "it is fine now", at, **more))
    stage.wait("0s")


def test_a_parked_run_that_is_released_goes_on_at_once():
    stage, world = stage_of(Store, n1=4)
    stage.tell(*rows(1))
    stage.wait("3s")
    world.fails[1] = 0
    wish(stage, RELEASE)

    assert stored(stage) == [1]
    assert [e.detail.get("actor") for e in stage.ledger if e.state == "parked"] == [None, "ann@desk"]


def test_a_parked_run_can_be_moved_to_another_time():
    stage, _ = stage_of(Store, n1=3)
    stage.tell(*rows(1))
    stage.wait("3s")
    wish(stage, RESCHEDULE, due=stage.clock.millis() + 3_600_000)
    stage.wait("59m")
    assert stored(stage) == []
    stage.restart()
    stage.wait("2m")
    assert stored(stage) == [1]


def test_a_parked_run_that_is_cancelled_is_a_letter_that_can_be_redriven():
    stage, _ = stage_of(Store, n1=3)
    stage.tell(*rows(1, 2))
    stage.wait("3s")
    wish(stage, CANCEL)

    (letter,) = stage.dead
    assert (letter.reason, letter.message) == ("cancelled", "cancelled by ann@desk: it is fine now")
    assert stored(stage) == [2]
    stage.wait("1s")
    again(stage)
    assert stored(stage) == [2, 1]


@step(retry=POLICY)
def pair(row: RowSent, note: NoteSent, world: World) -> RowStored:
    world.meet(row.n)
    return RowStored(row.n + note.n, row.key)


class Pairs(Pipeline):
    """Puts a row and its note together."""

    name = "parking-pairs"
    row = when(RowSent)
    note = when(NoteSent)
    join = by("key", within="1h")
    steps = [pair]
    since = "beginning"


def test_a_joined_set_is_parked_whole_and_runs_once():
    stage, world = stage_of(Pairs, n1=4)
    stage.tell(RowSent(1, "a"))
    stage.tell(NoteSent(10, "a"))
    stage.wait("3s")
    assert states(stage) == ["parked"]
    stage.restart()
    stage.tell(RowSent(1, "a"))  # told again
    stage.wait("10m")

    assert (stored(stage), world.asked, states(stage)) == ([11], [1] * 5, ["done"])


@step(retry=POLICY)
def insert(row: RowSent, database: Database, world: World) -> RowStored:
    database.execute("INSERT INTO kept (n) VALUES (:n)", {"n": row.n})
    world.meet(row.n)
    return RowStored(row.n, row.key)


class Insert(Pipeline):
    """Keeps rows in our own database."""

    name = "parking-insert"
    row = when(RowSent)
    steps = [insert]
    since = "beginning"


def test_an_effect_in_our_database_is_rolled_back_while_parked_and_there_once_after():
    stage, _ = stage_of(Insert, n1=4)
    stage.sql("CREATE TABLE kept (n INTEGER)")
    stage.tell(*rows(1, 2))
    stage.wait("3s")
    assert (stage.sql("SELECT n FROM kept"), states(stage)) == ([], ["parked", "parked"])
    stage.restart()
    stage.wait("10m")
    assert (stage.sql("SELECT n FROM kept"), stored(stage)) == ([(1,), (2,)], [1, 2])


@step(retry=POLICY)
def count(row: RowSent, world: World) -> int:
    world.asked.append(-row.n)
    return row.n * 2


@step(retry=POLICY)
def give(row: RowSent, doubled: int, world: World, attempt: Attempt) -> RowStored:
    world.meet(row.n)
    return RowStored(doubled, row.key)


class Steps(Pipeline):
    """Two steps."""

    name = "parking-steps"
    row = when(RowSent)
    steps = [count, give]
    since = "beginning"


def test_a_step_that_has_given_its_result_is_not_asked_again_by_park_restart_or_redrive():
    stage, world = stage_of(Steps, n1=7)
    stage.tell(*rows(1))
    stage.wait("3s")
    stage.restart()
    stage.wait("20d")
    assert states(stage) == ["dead"]
    again(stage)
    stage.wait("10s")

    assert (world.asked.count(-1), stored(stage)) == (1, [2])
    assert (stage.runs[0].steps[0]["name"], stage.runs[0].steps[0]["reused"]) == ("count", True)


def test_a_run_that_is_cancelled_between_two_attempts_goes_on_after_its_kept_step_when_it_is_redriven():
    stage, world = stage_of(Steps, n1=1)
    stage.tell(*rows(1))
    run = next(iter(stage._worker.intake.in_flight.values())).id
    stage.command(Command(run_id_of(run), CANCEL, "", run, "ann@desk", "wrong table", at=1))
    stage.wait("2s")

    (letter,) = stage.dead
    assert (letter.reason, letter.message, letter.step) == ("cancelled", "cancelled by ann@desk: wrong table", "give")
    assert letter.exception_class == "farandole.Cancelled"
    (entry,) = stage.runs
    assert (entry.state, entry.detail["actor"], [s["state"] for s in entry.steps]) == (
        "dead", "ann@desk", ["done", "cancelled"],
    )  # fmt: skip
    assert (world.asked, stored(stage)) == ([-1, 1], [])

    again(stage)
    assert (world.asked, stored(stage)) == (
        [-1, 1, 1],
        [2],
    )  # the first step was not asked again, and life 1 is another
    assert conservation(stage) == one_effect(stage) == []


def test_a_run_that_ends_its_process_each_time_can_be_cancelled_before_it_begins_again():
    stage, world = stage_of(Store, n1=1)
    stage.tell(*rows(1))
    run = next(iter(stage._worker.intake.in_flight.values())).id
    stage, world = stage_of(Store)  # the same topics, from their beginning
    stage.command(Command(run_id_of(run), CANCEL, "", run, "ann@desk", "it kills us", at=1))
    stage.tell(*rows(1, 2))
    assert ([letter.reason for letter in stage.dead], world.asked, stored(stage)) == (["cancelled"], [2], [2])


def test_a_command_for_a_run_that_has_ended_does_nothing():
    stage, _ = stage_of(Store)
    stage.tell(*rows(1))
    wish(stage, CANCEL)
    assert (states(stage), stage.dead, stored(stage)) == (["done"], [], [1])


@pytest.mark.parametrize("first", ["told again", "sent again"])
def test_an_event_that_is_sent_again_and_told_again_in_one_batch_runs_once(monkeypatch, first: str):
    told, _ = stage_of(Store)
    told.tell(*rows(1))
    [run] = told.runs
    stage, world = stage_of(Store)
    if first == "sent again":  # the retry topic is read before the other one
        monkeypatch.setattr(stage._source, "_next", dict(reversed(stage._source._next.items())))
    with monkeypatch.context() as batch:
        batch.setattr(stage, "_turn", lambda: None)
        stage.tell(*rows(1))
    lost = replace(stage._log.topics["parking.row.sent.v1"][0], offset=77)  # where it was first told, and missed
    delivery = Delivery(REEMITTED, run.id, run.keys[0], lost.topic, lost.topic_id, 0, lost.offset, lost.timestamp)
    stage._log.append(retry_record("retry.parking-store", 1, lost, delivery))
    stage.wait("0s")
    assert (stored(stage), world.asked) == ([1], [1])
