"""What a service makes of commands: when it holds, what it says, what it keeps for runs."""

from __future__ import annotations

import pytest

from farandole.clock import ManualClock
from farandole.control import CANCEL, PAUSE, RELEASE, RESUME, Command, pipeline_id, run_id_of
from farandole.declaration import Declaration
from farandole.errors import ATTENTION
from farandole.lanes import Lanes
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.outcome import Books
from farandole.owned import RUNNING, STOPPED, Owned
from farandole.steering import KEPT, Steering


class Told:
    """Hears what a test says."""

    def __init__(self):
        self.news = None

    def take(self):
        news, self.news = self.news, None if self.news is None else []
        return news


@pytest.fixture
def world():
    return World()


class World:
    def __init__(self):
        self.entries, self.said, self.worked = [], [], []
        declaration = Declaration("merge", "", "now", (), ())
        books = Books(declaration, self.encode, ManualClock(), 3, 1, 1, "1", "here")
        self.heard = Told()
        self.lanes = Lanes(self.worked.append, 0, ManualClock())
        self.resumed = []
        self.steering = Steering(
            self.heard, self.lanes, books, lambda event, **said: self.said.append((event, said)), self.resumed.append
        )
        self.owned = Owned("in.v1", 0, 1, phase=RUNNING)

    def encode(self, topic, record):
        self.entries.append(record)
        return topic.encode()

    def hear(self, *commands):
        self.heard.news = list(commands)
        self.steering.look([self.owned])

    @property
    def waits(self):
        return not self.lanes._gate.is_set()


def act(kind, at=1000, **said):
    return Command(pipeline_id("merge"), kind, "merge", actor="ada", reason="why not", at=at, **said)


def of_run(kind, run="r1", at=1000):
    return Command(run_id_of(run), kind, "", run, "ada", at=at)


def test_nothing_begins_before_it_is_known_what_is_wanted(world):
    world.steering.look([world.owned])
    assert (world.steering.held, world.waits, world.steering.paused) == (True, True, None)
    world.hear()
    assert (world.steering.held, world.waits) == (False, False)


def test_a_pause_holds_and_a_resume_lets_go_and_both_are_said_and_written(world):
    world.hear(act(PAUSE))
    assert (world.steering.held, world.waits) == (True, True)
    world.hear(act(RESUME, at=2000))
    assert (world.steering.held, world.waits) == (False, False)
    assert [event for event, _ in world.said] == ["pipeline.paused", "pipeline.resumed"]
    assert world.said[0][1] == {"actor": "ada", "reason": "why not", "at": "1970-01-01T00:00:01.000Z"}
    assert [(e["fact"], e["id"]) for e in world.entries] == [
        ("pipeline.paused", "fact:merge:pipeline.paused:1000"),
        ("pipeline.resumed", "fact:merge:pipeline.resumed:2000"),
    ]
    records = [r for ended in world.owned.ended for r in ended.records]
    assert [(r.topic, r.partition) for r in records] == [(LEDGER_TOPIC, 3)] * 2


def test_a_resume_lets_go_on_what_was_stopped_before_it(world):
    world.hear(act(PAUSE), act(RESUME, at=2000))
    assert world.resumed == [2000]


def test_a_fact_waits_for_a_partition_that_can_write_it(world):
    world.owned.phase = "taking"
    world.hear(act(PAUSE))
    assert world.entries == []
    world.owned.phase = RUNNING
    world.steering.look([world.owned])
    assert [e["fact"] for e in world.entries] == ["pipeline.paused"]


def test_a_resume_of_a_pipeline_that_was_not_paused_is_no_news_to_the_log(world):
    world.hear(act(RESUME))
    assert world.said == []


def test_a_paused_pipeline_that_was_to_be_drained_asks_for_attention(world):
    world.hear(act(PAUSE))
    error = world.steering.left_over([world.owned])
    assert error.exit_code == ATTENTION
    assert error.message == "merge is paused: by ada at 1970-01-01T00:00:01.000Z (why not)"
    assert "farandole resume merge" in error.hint


def test_a_drained_pipeline_with_a_stopped_partition_says_which(world):
    world.hear()
    assert world.steering.left_over([world.owned]) is None
    world.owned.phase, world.owned.why = STOPPED, "data.truncated"
    assert "in.v1[0] data.truncated" in world.steering.left_over([world.owned]).message


def test_commands_for_runs_are_given_once_and_kept_for_runs_that_come_later(world):
    release, cancel = of_run(RELEASE, at=1000), of_run(CANCEL, "r2", at=1000)
    world.hear(release, cancel)
    assert world.steering.take() == [release, cancel]
    assert world.steering.take() == []
    assert world.steering.standing("r1", since=999) == release
    assert world.steering.standing("r1", since=1000) is None
    assert world.steering.standing("r9", since=0) is None


def test_commands_for_runs_that_nobody_takes_are_bounded(world):
    world.hear(*(of_run(CANCEL, f"r{n}") for n in range(KEPT + 10)))
    assert world.steering.standing("r0", 0) is None
    assert world.steering.standing(f"r{KEPT + 9}", 0) is not None
    assert len(world.steering.take()) <= KEPT + 1
