"""Pause means wait, resume goes on exactly there: for one instance or several, before a start and across it."""

from __future__ import annotations

import threading
import time

import pytest
from click.testing import CliRunner

from farandole.cli.runs import runs
from farandole.control import PAUSE, RESUME, Command, pipeline_id
from farandole.errors import FarandoleError
from farandole.ids import event_key, run_id
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.kafka.listener import Listener
from farandole.topics import own_schemas
from tests.integration.runtime_world import World, said, until
from tests.integration.test_runtime_joins import send_pairs
from tests.integration.test_runtime_long import alive
from tests.integration.test_runtime_parking import bring_back, letters


def give(world: World, kind: str, pipeline: str, *, reason: str = "the lake is full") -> None:
    """As `farandole pause` and `farandole resume` do."""
    group = world.group(pipeline)
    control = Control(world.bootstrap, Codec(world.registry, own_schemas()))
    control.give(Command(pipeline_id(group), kind, group, actor="ada", reason=reason, at=time.time_ns() // 1_000_000))


def paused(world: World, pipeline: str, instances: int = 1) -> None:
    until(lambda: len(world.said("pipeline.paused", pipeline)) >= instances, why=lambda: said[-5:])


def offsets(world: World, pipeline: str) -> dict:
    return {at: offset for at, (offset, _) in world.committed(pipeline).items()}


def facts(world: World, pipeline: str) -> dict[str, dict]:
    """The facts about steering, by id: as a compacted topic keeps them."""
    entries = [e for e in world.entries(pipeline) if (e["fact"] or "").startswith("pipeline.")]
    return {e["id"]: e for e in entries}


def test_a_paused_pipeline_reads_nothing_on_any_of_its_instances_and_resumes_exactly_there(world):
    world.create("Double", "Again")
    world.send(range(100))
    services = [world.run("Double"), world.run("Double")]
    world.wait_drained("Double")

    give(world, PAUSE, "Double")
    paused(world, "Double", 2)
    before = offsets(world, "Double")
    world.send(range(100, 1100))
    world.drain("Again")  # a neighbour on the same topic, to whom it means nothing

    assert offsets(world, "Double") == before
    assert (world.lag("Double"), len(world.runs("Double", "done"))) == (1000, 100)
    assert {o.seen - o.next_offset for s in services for o in s.worker.owned.values()} == {0}  # not even looked at

    give(world, RESUME, "Double", reason="emptied")
    world.wait_drained("Double")
    for service in services:
        service.stop()
    done = world.runs("Double", "done")
    assert sorted(r["triggers"][0]["event_id"] for r in done) == sorted(f"{world.name}-n{n}" for n in range(1100))
    ids = {r["id"].encode() for r in done}
    told = [dict(m.headers())["ce_runid"] for m in world.records(world.module.DOUBLED)]
    assert sorted(run for run in told if run in ids) == sorted(ids)  # each run told its number once
    told = facts(world, "Double")
    assert [(f["fact"], f["detail"]["actor"], f["detail"]["reason"]) for f in told.values()] == [
        ("pipeline.paused", "ada", "the lake is full"),
        ("pipeline.resumed", "ada", "emptied"),
    ]  # one id for each act, whichever instance wrote it


def test_what_is_under_way_ends_and_is_committed_and_what_has_not_begun_waits(world):
    world.create("Slow")
    world.module.gate.clear()
    world.send(range(40))
    service = world.run("Slow")
    until(lambda: len(world.module.done) == 2)  # it has two slots

    give(world, PAUSE, "Slow")
    paused(world, "Slow")
    world.module.gate.set()
    until(lambda: len(world.runs("Slow", "done")) == 2)
    service.worker.stopping.wait(0.5)  # a turn takes a hundredth of it

    assert len([d for d in world.module.done if d[0] == "begun"]) == 2
    assert service.worker.lanes.running == 38
    assert world.lag("Slow") >= 38

    give(world, RESUME, "Slow")
    world.wait_drained("Slow")
    service.stop()
    assert sorted(n for what, n in world.module.done if what == "ended") == list(range(40))


def test_a_service_that_is_stopped_while_paused_goes_at_once_and_loses_nothing(world):
    world.create("Slow")
    world.module.gate.clear()
    world.send(range(10))
    service = world.run("Slow")
    until(lambda: len(world.module.done) == 2)
    give(world, PAUSE, "Slow")
    paused(world, "Slow")
    world.module.gate.set()
    until(lambda: len(world.runs("Slow", "done")) == 2)
    service.stop()
    assert len(world.runs("Slow")) == 2

    give(world, RESUME, "Slow")
    world.drain("Slow")
    assert sorted(n for what, n in world.module.done if what == "ended") == list(range(10))


def test_a_pause_holds_for_whoever_starts_later_until_it_is_resumed(world):
    world.create("Double")
    world.send(range(1000))
    give(world, PAUSE, "Double")

    draining = world.start("Double", "--until-drained")
    assert draining.wait(60) == 3
    assert "is paused: by ada" in world.log()
    assert "the lake is full" in world.log()
    assert world.runs("Double") == []
    service = world.run("Double")
    paused(world, "Double")
    until(lambda: facts(world, "Double"))
    assert (world.lag("Double"), world.runs("Double"), world.done()) == (1000, [], [])

    give(world, RESUME, "Double")
    world.wait_drained("Double")
    service.stop()
    assert world.outputs() == [2 * n for n in range(1000)]


def test_nothing_begins_before_it_is_known_what_is_wanted(world, monkeypatch):
    listen, known = Listener._listen, threading.Event()
    monkeypatch.setattr(Listener, "_listen", lambda listener: known.wait(30) and listen(listener))
    world.create("Double")
    world.send(range(10))
    service = world.run("Double")
    until(lambda: world.said("partitions.taken"))
    service.worker.stopping.wait(1)
    assert (world.lag("Double"), world.module.done) == (10, [])
    known.set()
    world.wait_drained("Double")
    service.stop()
    assert world.outputs() == [2 * n for n in range(10)]


def test_a_pause_that_another_pipeline_was_given_does_not_concern_this_one(world):
    world.create("Double", "Again")
    world.send(range(10))
    give(world, PAUSE, "Again")
    world.drain("Double")
    assert world.said("pipeline.paused") == []


def test_an_attempt_that_waits_is_not_made_while_the_pipeline_is_paused(world):
    world.create("Waiting")
    world.send(range(20))  # their pauses are drawn by lot: some are over before the pause is heard, not all
    service = world.run("Waiting")
    until(lambda: len(world.module.done) >= 20)
    give(world, PAUSE, "Waiting")
    paused(world, "Waiting")
    service.worker.stopping.wait(0.2)  # what has begun ends
    made = list(world.module.done)
    service.worker.stopping.wait(2.5)  # longer than the longest backoff
    assert world.module.done == made
    assert len(made) < 40
    give(world, RESUME, "Waiting")
    world.wait_drained("Waiting")
    service.stop()
    assert sorted(world.module.done) == [("attempt", n, attempt) for n in range(20) for attempt in (1, 2)]


def test_a_join_is_not_given_up_for_a_partner_that_a_pause_keeps_unread(world):
    world.create("Pairs")
    world.module = world.load(RUNTIME_WITHIN="8s")  # the pause has to come before it is over, on a busy machine too
    send_pairs(world, range(5), sides=["LEFT"])
    service = world.run("Pairs")
    until(lambda: len(world.runs("Pairs", "waiting")) == 5)
    give(world, PAUSE, "Pairs")
    paused(world, "Pairs")
    send_pairs(world, range(5), sides=["RIGHT"])
    service.worker.stopping.wait(8 + 5)  # and two looks for joins whose time is up
    assert world.letters("Pairs") == []
    give(world, RESUME, "Pairs")
    until(lambda: len(world.values(world.module.PAIRED)) == 5, why=lambda: world.why("Pairs"))
    world.wait_drained("Pairs")
    service.stop()
    assert world.why("Pairs") == []


def test_a_cluster_without_the_control_topic_is_refused_at_the_start(world, monkeypatch):
    world.create("Double")
    monkeypatch.setattr("farandole.service.CONTROL", "farandole.control.v0")
    with pytest.raises(FarandoleError, match=r"control\.v0") as raised:
        world.run("Double")
    assert "topology apply" in raised.value.hint


def test_a_long_run_that_is_cancelled_under_way_is_a_letter_and_goes_on_after_its_first_step_when_redriven(
    world, monkeypatch
):
    world.create("Enduring")
    world.module.gate.clear()
    service = world.run("Enduring")
    world.send(range(3))
    begun = until(lambda: found if len(found := [d for d in world.module.done if d[0] == "begun"]) == 3 else None)
    run = next(run for _, n, run in begun if n == 1)

    for name, value in world.environment(FARANDOLE_ACTOR="ada").items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(runs, ["cancel", run, "--reason", "wrong table"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    [letter] = until(lambda: world.letters("Enduring"))

    told = dict(letter.headers())
    assert told["farandole-dlq-reason"] == b"cancelled"
    assert told["farandole-dlq-exception-class"] == b"farandole.Cancelled"
    assert told["__dlq.errors.message"] == b"cancelled by ada: wrong table"
    assert letter.value() == next(m.value() for m in world.records(world.module.SENT) if m.key() == letter.key())
    [dead] = world.runs("Enduring", "dead")
    assert (dead["id"], dead["detail"]["actor"], dead["detail"]["reason"]) == (run, "ada", "wrong table")
    assert [line["actor"] for line in world.said("run.cancel", "Enduring")] == ["ada"]
    assert [d for d in world.module.done if d[0] == "begun"] == begun  # not tried again

    world.module.gate.set()
    world.wait_drained("Enduring")
    assert world.outputs() == [0, 20]
    bring_back(world, "Enduring", letters(world, "Enduring")[0])
    until(lambda: world.outputs() == [0, 10, 20])
    service.stop()
    assert world.module.done.count(("weigh", 1)) == 1


@pytest.mark.parametrize("pipeline", ["Waits", "RiskyLong", "StaysLong"])
def test_a_step_that_cannot_be_asked_to_end_is_left_at_once_when_its_run_is_cancelled(world, monkeypatch, pipeline):
    """Async, in a process of its own, or in a thread of its own: for ten minutes, if nobody came."""
    world.create(pipeline)
    process = world.start(pipeline)
    world.send([1], amount=600)
    until(world.done, why=world.log)
    run = run_id(world.group(pipeline), 0, [event_key("/test", f"{world.name}-n1")])

    for name, value in world.environment().items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(
        runs, ["cancel", run, "--pipeline", world.group(pipeline), "--reason", "stale"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    [letter] = until(lambda: world.letters(pipeline), 10, world.log)
    assert dict(letter.headers())["farandole-dlq-reason"] == b"cancelled"
    assert ("cancelled 1" in world.done()) == (pipeline == "Waits")
    if pipeline == "RiskyLong":
        until(lambda: not alive(int(world.done()[0].split()[2])), 5)
    world.wait_drained(pipeline)
    assert process.poll() is None
