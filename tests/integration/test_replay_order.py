"""A replay that a person orders: exact offsets, beside live work, each event once in an epoch of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from farandole.control import order_id
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.topics import own_schemas
from tests.integration.runtime_world import ROOT, until

EARLY, LATE = "2000-01-01", "2100-01-01"


def asked(world, *arguments, code=0):
    """What the command line answers."""
    done = subprocess.run(
        [sys.executable, "-m", "farandole", *arguments],
        cwd=ROOT, env=world.environment(), capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def ordered(world, pipeline, *options, since=EARLY, to=LATE):
    """Order a replay; the plan and the order's id."""
    target = f"tests.integration.runtime_pipelines:{pipeline}"
    plan, order = asked(world, "replay", target, "--from", since, "--to", to, "--yes", *options)
    return plan, order["order"]


def status(world, order):
    (row,) = asked(world, "replay", "status", order)
    return row


def settled(world, pipeline="Double", count=100):
    world.create(pipeline)
    world.send(range(count), partition=0)
    world.send(range(count, 2 * count), partition=1)
    world.drain(pipeline)


def again(world, pipeline="Double", epoch=1):
    """The offsets that ran in an epoch, each with how many runs."""
    runs = [e for e in world.runs(pipeline, "done") if e["epoch"] == epoch]
    return Counter((e["triggers"][0]["partition"], e["triggers"][0]["offset"]) for e in runs)


def finished(world, pipeline="Double", timeout=60):
    until(
        lambda: "replay.finished" in world.facts(pipeline),
        timeout,
        lambda: (world.log()[-3000:], len(again(world, pipeline))),
    )


def outside_counts(world, topic):
    """How often each id stands on a topic."""
    return Counter(dict(m.headers())["ce_id"] for m in world.records(topic))


def test_a_plan_says_what_then_happens_and_each_event_runs_once_in_a_new_epoch(world):
    settled(world)
    world.send([500], kind="skip", partition=0)
    world.drain("Double")

    plan, order = ordered(world, "Double", "--reason", "the rule was wrong")
    world.run("Double")
    finished(world)

    assert (plan["events"], plan["runs"], plan["before"]) == (200, 200, {"done": 200})
    assert sum(plan["filtered"].values()) == 1
    ran = again(world)
    assert (len(ran), set(ran.values())) == (200, {1})
    ids = outside_counts(world, world.module.DOUBLED)
    assert (len(ids), set(ids.values())) == (400, {1})
    fact = world.facts("Double")["replay.ordered"]
    assert (fact["reason"], fact["events"], fact["order"]) == ("the rule was wrong", "201", order)
    assert (status(world, order)["state"], status(world, order)["epoch"]) == ("done", 1)


def test_what_was_not_asked_for_is_filtered_with_the_reason(world):
    world.create("Double")
    world.send(range(34), partition=0)
    world.drain("Double")
    time.sleep(0.02)
    moment = datetime.now(UTC).isoformat()
    time.sleep(0.02)
    world.send(range(34, 68), partition=0)
    world.drain("Double")

    plan, _ = ordered(world, "Double", "--key", "k3", since=moment)
    world.run("Double")
    finished(world)

    assert plan["events"] == 2
    assert set(again(world).values()) == {1}
    assert sorted(v["n"] for v in world.values(world.module.DOUBLED))[-2:] == [2 * 66, 2 * 67]
    assert len(again(world)) == 2
    assert world.filtered("Double")["replay.other-key"] == 32


def test_live_events_go_first(world):
    settled(world, "Double", 3000)
    ordered(world, "Double")
    world.run("Double")
    until(lambda: len(again(world)) > 50, 60)

    began = time.monotonic()
    world.send([99_000, 99_001], partition=1)
    until(lambda: {198_000, 198_002} <= set(world.outputs()), 30)
    took = time.monotonic() - began

    assert "replay.finished" not in world.facts("Double")
    assert took < 3, f"a live event took {took:.1f} s behind a replay"
    finished(world)
    assert (len(again(world)), set(again(world).values())) == (6000, {1})


def test_killed_in_the_middle_and_started_again_none_is_lost_and_none_runs_twice(world):
    settled(world, "Double", 400)
    ordered(world, "Double")
    for point in ("txn.outputs_produced:2", "txn.committed:3", "settle.after_commit:4"):
        process = world.start("Double", FARANDOLE_KILL_AT=point, FARANDOLE_COMMIT_RECORDS="50")
        assert process.wait(60) == -9
    world.start("Double")
    finished(world)

    ran = again(world)
    assert (len(ran), set(ran.values())) == (800, {1})
    ids = outside_counts(world, world.module.DOUBLED)
    assert (len(ids), set(ids.values())) == (1600, {1})
    assert {e["epoch"] for e in world.runs("Double")} == {0, 1}


def test_an_order_is_carried_out_once_however_often_it_is_heard(world):
    settled(world, "Double", 20)
    ordered(world, "Double")
    world.run("Double")
    finished(world)

    world.drain("Double")
    time.sleep(3)

    assert {e["epoch"] for e in world.runs("Double")} == {0, 1}
    assert len({e["id"] for e in world.entries("Double") if e["fact"] == "replay.ordered"}) == 1


def test_tables_that_are_lost_bring_no_replay_back_and_give_no_number_twice(world):
    settled(world, "Double", 20)
    _, forgotten = ordered(world, "Double", "--key", "k5")
    service = world.run("Double")
    until(lambda: status(world, forgotten)["state"] == "done", 60)
    _, kept = ordered(world, "Double")
    until(lambda: status(world, kept)["state"] == "done", 60)
    until(lambda: len({e["id"] for e in world.entries("Double") if e["fact"] == "replay.finished"}) == 2, 60)
    service.stop()
    codec = Codec(world.registry, own_schemas(), trusted=own_schemas())
    Control(world.bootstrap, codec).forget([order_id(forgotten)])
    for file in world.folder.glob("books.db*"):
        file.unlink()

    world.run("Double")
    until(lambda: status(world, kept)["state"] == "done", 90)
    time.sleep(3)
    done = len(world.outputs())
    assert (status(world, kept)["epoch"], done) == (2, 40 + 3 + 40)

    ordered(world, "Double", "--key", "k3")
    until(lambda: len(again(world, epoch=3)) == 3, 60)
    assert set(outside_counts(world, world.module.DOUBLED).values()) == {1}


def test_a_replay_waits_goes_on_and_ends_when_it_is_told_to(world):
    settled(world, "Double", 400)
    _, order = ordered(world, "Double", "--rate", "100/s")
    world.run("Double")
    until(lambda: len(again(world)) > 20, 60)

    asked(world, "replay", "pause", order, "--reason", "the lake is busy")
    until(lambda: "replay.paused" in world.facts("Double"))
    time.sleep(2)
    waiting = len(again(world))
    time.sleep(3)
    assert len(again(world)) == waiting < 800
    assert status(world, order)["state"] == "paused"

    asked(world, "replay", "resume", order)
    until(lambda: len(again(world)) > waiting, 30)
    asked(world, "replay", "cancel", order, "--reason", "enough")
    until(lambda: "replay.cancelled" in world.facts("Double"))
    time.sleep(2)
    ended = len(again(world))
    time.sleep(3)
    assert len(again(world)) == ended < 800
    assert "replay.finished" not in world.facts("Double")
    assert set(again(world).values()) == {1}
    asked(world, "replay", "resume", order, code=1)


@pytest.mark.parametrize(("cascade", "second", "third"), [("none", 0, 0), ("direct", 30, 0), ("all", 30, 30)])
def test_a_replay_reaches_as_far_as_it_is_told_to(world, cascade, second, third):
    world.create("Double", "Second", "Third")
    world.send(range(30))
    for pipeline in ("Double", "Second", "Third"):
        world.run(pipeline)
    until(lambda: len(world.runs("Third", "done")) == 30, 60)

    ordered(world, "Double", "--cascade", cascade)
    finished(world)
    for pipeline in ("Second", "Third"):
        world.wait_drained(pipeline)

    assert len(again(world)) == 30
    done = Counter(name for name, _ in world.module.done if name in ("second", "third"))
    assert (done["second"] - 30, done["third"] - 30) == (second, third)
    refused = {p: world.filtered(p).get("cascade.none", 0) for p in ("Second", "Third")}
    assert refused == {"Second": 30 - second, "Third": second - third}
    assert world.letters("Second") == world.letters("Third") == []
