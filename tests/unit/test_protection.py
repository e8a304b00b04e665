"""What holds a pipeline back, played on a stage: breakers, the retry budget, and the dead-letter guard."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from farandole import Pipeline, Retry, step, when
from farandole.breaker import Breaker
from farandole.control import RESUME, Command, pipeline_id
from farandole.errors import DatabaseUnreachable
from farandole.event import Record
from farandole.owned import RUNNING, STOPPED, stopped
from farandole.testing import Stage, conservation, one_effect
from tests.unit.test_stage import FileCounted, FileLanded

PLACE = ("stage.file.landed.v1", 0)


class ApiDown(Exception):
    pass


class BadFile(Exception):
    pass


class Api:
    """What the steps depend on; in tests always a fake."""


@dataclass
class FakeApi:
    clock: Any = None
    down: bool = False
    bad: set[str] = field(default_factory=set)
    calls: list[tuple[float, str]] = field(default_factory=list)

    def count(self, uri: str) -> int:
        self.calls.append((self.clock.monotonic(), uri))
        if self.down or uri in self.bad:
            raise ApiDown("nobody there")
        return len(uri)


@step(needs={"counting-api": ApiDown})
def count(file: FileLanded, api: Api) -> FileCounted:
    return FileCounted(file.uri, api.count(file.uri))


class Counts(Pipeline):
    """Count the rows of every file, as the API says."""

    file = when(FileLanded)
    steps = [count]
    since = "now"


@step(retry=Retry(3, backoff="1s"))
def look(file: FileLanded) -> str:
    if file.source == "tired":
        raise BadFile(file.uri)
    return file.uri


@step(retry=1, needs={"other-api": KeyError})
def check(found: str, file: FileLanded) -> FileCounted:
    if file.source == "bad":
        raise BadFile("rows are missing")
    if file.source == "other":
        raise KeyError(file.uri)
    return FileCounted(found, 1)


class Checks(Pipeline):
    """Look at every file, then check it."""

    file = when(FileLanded)
    steps = [look, check]
    since = "now"


class Unguarded(Pipeline):
    """The same, where failures are expected."""

    file = when(FileLanded)
    steps = [look, check]
    since = "now"
    guard = "off"


def files(numbers, source="erp"):
    return [FileLanded(f"s3://{n}", source, "csv") for n in numbers]


@pytest.fixture
def stage():
    """A stage of Counts with its API at hand as `api`."""
    api = FakeApi()
    made = Stage(Counts, {Api: api})
    made.api, api.clock = api, made.clock
    return made


def facts(stage):
    return [(e.fact, e.detail["name"]) for e in stage.ledger if e.fact and e.fact.startswith("breaker.")]


def breaker(stage, name="counting-api") -> Breaker:
    return stage._store.breakers.load()[0].get(name, Breaker(name))


# --- a dependency that is down


def test_a_dependency_that_is_down_is_asked_five_times_and_then_left_alone(stage):
    stage.api.down = True
    stage.tell(*files(range(100)))
    assert len(stage.api.calls) == 5
    assert stage.dead == []
    assert breaker(stage).state == "open"
    assert facts(stage) == [("breaker.opened", "counting-api")]


def test_while_it_is_down_one_run_goes_to_see_after_each_pause(stage):
    stage.api.down = True
    stage.tell(*files(range(100)))
    stage.wait("130s")
    asked = [at for at, _ in stage.api.calls[4:]]
    pauses = [late - soon for soon, late in pairwise(asked)]
    assert len(pauses) == 8
    for least, pause in zip([1, 2, 4, 8, 16, 30, 30, 30], pauses, strict=True):
        assert least <= pause <= least + 1


def test_when_it_is_back_everything_is_done_once_and_no_attempt_was_burnt(stage):
    stage.api.down = True
    stage.tell(*files(range(100)))
    stage.wait("10m")
    stage.api.down = False
    stage.wait("40s")
    assert len(stage.sent) == 100
    assert stage.dead == []
    assert {s["attempts"] for run in stage.runs for s in run.steps} == {1}
    assert facts(stage) == [("breaker.opened", "counting-api"), ("breaker.closed", "counting-api")]
    assert breaker(stage) == Breaker("counting-api")
    assert conservation(stage) == []
    assert one_effect(stage) == []


def test_the_facts_say_since_when_and_why(stage):
    stage.api.down = True
    stage.tell(*files(range(6)))
    stage.api.down = False
    stage.wait("5s")
    opened, closed = (e.detail for e in stage.ledger if e.fact and e.fact.startswith("breaker."))
    assert opened == {"name": "counting-api", "since": "2013-01-01T00:00:00.000Z", "error": "ApiDown: nobody there"}
    assert closed == {**opened, "seconds": "1.000"}


def test_what_comes_while_it_is_down_is_not_read(stage):
    stage.api.down = True
    stage.tell(*files(range(6)))
    stage.tell(*files(range(6, 10)))
    assert stage._source.held(PLACE)
    assert stage._worker.owned[PLACE].seen == 6


def test_four_failures_and_an_answer_keep_it_closed(stage):
    stage.api.bad = {f"s3://{n}" for n in range(4)}
    stage.tell(*files(range(4)))
    stage.tell(*files(range(4, 8)))
    assert len(stage.sent) == 4
    stage.api.bad = set()
    stage.wait("2s")
    assert len(stage.sent) == 8
    assert facts(stage) == []


def test_a_service_that_starts_while_it_is_down_waits_too(stage):
    stage.api.down = True
    stage.tell(*files(range(6)))
    calls = len(stage.api.calls)
    stage.restart()
    assert len(stage.api.calls) == calls


def test_an_instance_that_died_as_the_probe_leaves_it_to_whoever_comes(stage):
    stage.api.down = True
    stage.tell(*files(range(6)))
    stage.clock.advance(5)
    stage._store.breakers.change("counting-api", lambda b, now: b.asked(now, "somebody else"))
    stage.restart()
    stage.api.down = False
    stage.tell()
    stage.clock.advance(9)
    stage._turn()
    assert stage.sent == []
    stage.clock.advance(1.1)
    stage._turn()
    stage.wait("2s")
    assert len(stage.sent) == 6


def test_an_event_that_fails_alone_again_and_again_has_its_attempts_and_is_dead(stage):
    stage.api.bad = {"s3://poison"}
    stage.tell(FileLanded("s3://poison", "erp", "csv"))
    for n in range(60):
        stage.tell(*files([n]))
        stage.wait("1s")
    assert len(stage.sent) == 60
    assert [letter.exception_class.rpartition(".")[2] for letter in stage.dead] == ["ApiDown"]
    assert facts(stage) == []


def test_an_event_that_opened_it_alone_does_not_shut_out_the_others(stage):
    stage.api.bad = {"s3://poison"}
    stage.tell(FileLanded("s3://poison", "erp", "csv"))
    stage.wait("30s")
    assert breaker(stage).state == "open"
    stage.tell(*files(range(10)))
    stage.wait("40s")
    assert len(stage.sent) == 10
    assert facts(stage)[:2] == [("breaker.opened", "counting-api"), ("breaker.closed", "counting-api")]


def test_a_step_further_on_stops_before_what_is_down():
    stage = Stage(Checks)
    stage.tell(*files(range(8), "other"))
    taken = [run for run in stage._worker.intake.in_flight.values() if run.step == 1]
    assert len(taken) == 5
    assert facts(stage) == [("breaker.opened", "other-api")]


# --- the database


def test_a_database_that_is_away_loses_no_failure_and_is_asked_once_a_second(stage, monkeypatch):
    asked = []
    change = stage._store.breakers.change

    def away(*given):
        asked.append(stage.clock.monotonic())
        raise DatabaseUnreachable("away")

    monkeypatch.setattr(stage._store.breakers, "change", away)
    stage.api.down = True
    stage.tell(*files(range(20)))
    assert len(stage.api.calls) == 5
    stage.wait("5s")
    assert len(asked) <= 7
    monkeypatch.setattr(stage._store.breakers, "change", change)
    stage.wait("10s")
    assert breaker(stage).state != "closed"
    assert facts(stage) == [("breaker.opened", "counting-api")]


# --- the retry budget


def test_retries_beyond_the_budget_hold_the_pipeline_back():
    stage = Stage(Checks)
    stage.tell(*files(range(150), "tired"))
    assert facts(stage) == [("breaker.opened", "retries")]
    before = stage._worker.protection._retries
    stage.wait("60s")
    assert stage._worker.protection._retries - before <= 60


def test_a_few_retries_hold_nothing_back():
    stage = Stage(Checks)
    for n in range(12):
        stage.tell(*files(f"{n}-{m}" for m in range(90)), *files((f"{n}-bad-{m}" for m in range(9)), "tired"))
        stage.wait("1s")
    stage.wait("5s")
    assert len(stage.sent) == 1080
    assert len(stage.dead) == 108
    assert facts(stage) == []


def test_a_good_run_gives_the_budget_back():
    stage = Stage(Checks)
    stage.tell(*files(range(120), "tired"))
    assert facts(stage) == [("breaker.opened", "retries")]
    stage.wait("3s")
    stage.tell(*files(range(200, 210)))
    stage.wait("20s")
    assert len(stage.sent) == 10


# --- the dead-letter guard


def resume(stage):
    """As `farandole resume` does, a second later."""
    stage.clock.advance(1)
    stage._worker.protection.guard.reset(stage.clock.millis())
    stage._turn()


def why_not(stage):
    return stopped(list(stage._worker.owned.values()))


def test_a_partition_stops_when_everything_dies_of_one_cause():
    stage = Stage(Checks)
    stage.tell(*files(range(500), "bad"))
    assert len(stage.dead) == 21
    [fact] = [e for e in stage.ledger if e.fact == "guard.stopped"]
    assert (fact.detail["dead"], fact.detail["of"]) == ("21", "21")
    assert fact.detail["fingerprint"] == stage.dead[0].fingerprint
    assert fact.detail["at"] == "stage.file.landed.v1[0]"
    assert why_not(stage).exit_code == 3
    assert "21 of 21 outcomes were dead" in str(why_not(stage))
    assert "farandole resume checks" in str(why_not(stage))


def test_records_that_cannot_be_read_stop_it_too():
    stage = Stage(Checks)
    for _ in range(50):
        stage._log.append(Record(PLACE[0], None, b"\x00no", []))
    stage._turn()
    assert len(stage.dead) == 21
    assert {letter.stage for letter in stage.dead} == {"decode"}


def test_it_stays_stopped_over_a_restart():
    stage = Stage(Checks)
    stage.tell(*files(range(500), "bad"))
    stage.restart()
    assert len(stage.dead) == 21
    assert stage._worker.owned[PLACE].phase == STOPPED


def test_it_goes_on_where_it_stopped_when_a_person_resumes_it():
    stage = Stage(Checks)
    stage.tell(*files(range(300), "bad"), *files(range(300, 310)))
    resume(stage)
    assert len(stage.dead) == 42
    for _ in range(20):
        resume(stage)
    assert len(stage.dead) == 300
    assert len(stage.sent) == 10
    assert why_not(stage) is None
    assert conservation(stage) == []
    assert one_effect(stage) == []


def test_a_resume_that_was_given_while_the_service_was_down_counts():
    stage = Stage(Checks)
    stage.tell(*files(range(50), "bad"))
    stage.clock.advance(1)
    stage._desk.given.append(Command(pipeline_id("checks"), RESUME, "checks", at=stage.clock.millis()))
    stage.restart()
    assert len(stage.dead) == 42
    assert why_not(stage) is not None


def test_a_resume_from_before_it_stopped_changes_nothing():
    stage = Stage(Checks)
    stage.tell(*files(range(50), "bad"))
    stage._worker.protection.guard.reset(before=1)
    stage._turn()
    assert why_not(stage) is not None


def test_another_version_goes_on():
    stage = Stage(Checks)
    stage.tell(*files(range(30), "bad"))
    stage._worker.books.version = "2"
    stage._worker._anew(stage._worker.owned[PLACE], 0.0)
    stage._turn()
    assert len(stage.dead) == 30
    assert stage._worker.owned[PLACE].phase == RUNNING
    assert [e.detail["by"] for e in stage.ledger if e.fact == "guard.released"] == ["version 2"]


def test_five_poison_records_in_a_thousand_stop_nothing():
    stage = Stage(Checks)
    for n in range(5):
        stage.tell(*files([f"bad-{n}"], "bad"), *files(f"{n}-{m}" for m in range(199)))
    assert len(stage.dead) == 5
    assert len(stage.sent) == 995
    assert why_not(stage) is None


def test_a_pipeline_that_expects_it_is_not_stopped():
    stage = Stage(Unguarded)
    stage.tell(*files(range(500), "bad"))
    assert len(stage.dead) == 500
    stage.tell(*files(range(600, 650), "tired"))
    stage.wait("1m")
    assert len(stage.dead) == 550
    assert facts(stage) == []
