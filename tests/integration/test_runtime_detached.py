"""Detached steps on the real broker: others go on, holders die, are told to end, or sleep through their lease."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import pytest

from farandole import detached
from tests.integration.runtime_world import until as within

LEASE = "2"


def until(told, timeout=60.0, why=str):
    """Processes take their time to start on a machine that has others to serve."""
    return within(told, timeout, why)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for name, value in (("LEASE", 2.0), ("BEAT", 0.4), ("LOOK", 0.1)):
        monkeypatch.setattr(detached, name, value)


def one(world, n, *, amount=0, key=None, kind="good"):
    told = world.number(n, kind=kind, amount=amount, key=key)
    world.put(world.module.SENT, world.frame(world.module.SENT, told), told["key"], world.headers(f"n{n}"))
    world.flush()


def lines(world, event):
    told = (json.loads(line) for line in world.log().splitlines() if line.startswith("{"))
    return [line for line in told if line["event"] == event]


def begun(world, n):
    """The processes that began the long step of a number, in order."""
    return [int(line.split()[3]) for line in world.done() if line.startswith(f"haul {n} ")]


def steps(world, pipeline, n):
    """The steps of the run that ended for a number, as the ledger has them."""
    mine = next(e for e in world.runs(pipeline, "done") if f"{world.name}-n{n}" in e["triggers"][0]["event_id"])
    return [(s["name"], s["state"], s["reused"]) for s in mine["steps"]]


def test_while_a_detached_step_is_under_way_its_offset_moves_on_and_only_its_record_key_waits(world):
    world.create("Haul")
    service = world.run("Haul")
    world.module.gate.clear()
    one(world, 1, amount=-1, key="long")
    done = world.module.done
    until(lambda: any(what == "haul" for what, *_ in done))
    for n in range(10, 30):
        one(world, n, key=f"k{n % 3}")
    one(world, 2, key="long")
    until(lambda: world.outputs() == [2 * n for n in range(10, 30)], why=world.outputs)
    world.wait_drained("Haul")  # of its own topic nothing is left
    assert {(e["state"], e["detail"].get("detached", "")) for e in world.runs("Haul", "parked")} == {
        ("parked", "haul"), ("parked", ""),
    }  # fmt: skip
    assert ("weigh", 2) not in done

    world.module.gate.set()
    until(lambda: world.outputs() == sorted([2, 4, *(2 * n for n in range(10, 30))]), why=world.outputs)
    order = [n for what, n, *_ in done if what == "told" and n in (1, 2)]
    assert order == [1, 2]
    assert Counter(done)["weigh", 1] == 1
    assert len([n for what, n, *_ in done if what == "haul" and n == 1]) == 1
    assert steps(world, "Haul", 1) == [("weigh", "done", True), ("haul", "done", False), ("told", "done", False)]
    service.stop()


def test_a_detached_step_that_fails_is_tried_again_and_given_up_as_any_other_is(world):
    world.create("Haul")
    service = world.run("Haul")
    one(world, 1, kind="once", key="a")
    one(world, 2, kind="bad", key="b")
    until(lambda: world.outputs() == [2], why=lambda: world.module.done)
    until(lambda: len(world.letters("Haul")) == 1)
    tried = [told for told in world.module.done if told[0] == "haul"]
    assert {n: [attempt for _, m, attempt, _ in tried if m == n] for n in (1, 2)} == {1: [1, 2], 2: [1, 2, 3]}
    assert "2 is too heavy" in world.why("Haul")[0][1]
    service.stop()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_holder_that_is_killed_is_followed_by_one_other_and_what_was_done_is_not_asked_again(world, stack, database):
    if database == "postgresql":
        world.database = stack.postgres_url()
    world.create("Haul")
    world.quick_session("Haul")
    first = world.start("Haul", RUNTIME_LEASE=LEASE)
    one(world, 1, amount=600, key="long")
    until(lambda: begun(world, 1), why=world.log)
    first.kill()
    world.send([5])
    second = world.start("Haul", RUNTIME_LEASE=LEASE)
    third = world.start("Haul", RUNTIME_LEASE=LEASE)
    until(lambda: len(begun(world, 1)) == 2, why=world.log)
    assert [line["holder"] for line in lines(world, "detached.begun")] == [1, 2]
    assert begun(world, 1)[1] in (second.pid, third.pid)
    time.sleep(3)
    assert len(begun(world, 1)) == 2
    assert Counter(world.done())["weigh 1"] == 1


def test_told_to_end_it_hands_a_detached_step_over_within_its_grace(world):
    world.create("HaulAsync")
    first = world.start("HaulAsync", RUNTIME_LEASE="600", FARANDOLE_SHUTDOWN_GRACE="1s")
    one(world, 1, amount=600, key="long")
    until(lambda: begun(world, 1) == [first.pid], why=world.log)
    second = world.start("HaulAsync", RUNTIME_LEASE="600", RUNTIME_QUICK="1")
    until(lambda: world.owns(second), why=world.log)
    asked = time.monotonic()
    first.send_signal(signal.SIGTERM)
    assert first.wait(15) == 0
    assert time.monotonic() - asked < 8
    assert f"dropped 1 {first.pid}" in world.done()
    until(lambda: world.outputs() == [2], why=world.log)  # without waiting for its lease to run out
    assert begun(world, 1) == [first.pid, second.pid]


def test_told_to_end_it_lets_a_detached_step_end_within_its_grace_and_the_result_is_kept(world):
    world.create("Haul")
    first = world.start("Haul", RUNTIME_LEASE=LEASE)
    one(world, 1, amount=3)
    until(lambda: begun(world, 1) == [first.pid], why=world.log)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    assert f"hauled 1 {first.pid}" in world.done()
    assert not lines(world, "detached.handed.over")
    world.start("Haul", RUNTIME_LEASE=LEASE)
    until(lambda: world.outputs() == [2], why=world.log)
    assert begun(world, 1) == [first.pid]
    assert steps(world, "Haul", 1) == [("weigh", "done", True), ("haul", "done", True), ("told", "done", False)]


def test_a_detached_step_goes_on_where_it_is_when_its_partition_goes_to_another_instance_and_back(world):
    world.partitions = 4
    world.create("Haul")
    first = world.start("Haul", RUNTIME_LEASE=LEASE)
    world.hold.write_text("")
    for n in range(1, 5):
        one(world, n, amount=-1, key=f"k{n}")
    until(lambda: all(begun(world, n) == [first.pid] for n in range(1, 5)), why=world.log)
    second = world.start("Haul", RUNTIME_LEASE=LEASE)
    until(lambda: world.owns(second), why=world.log)
    second.terminate()
    assert second.wait(20) == 0
    assert world.outputs() == []
    world.hold.unlink()
    until(lambda: world.outputs() == [2, 4, 6, 8], why=world.log)
    assert all(begun(world, n) == [first.pid] for n in range(1, 5))
    assert not lines(world, "lease.lost")


@pytest.mark.parametrize(("pipeline", "state", "times"), [("Haul", "done", 2), ("HaulOnce", "uncertain", 1)])
def test_a_holder_that_sleeps_through_its_lease_and_wakes_settles_nothing(world, pipeline, state, times):
    world.create(pipeline)
    world.quick_session(pipeline)
    first = world.start(pipeline, RUNTIME_LEASE=LEASE)
    one(world, 1, amount=3, key="long")
    until(lambda: begun(world, 1) == [first.pid], why=world.log)
    os.kill(first.pid, signal.SIGSTOP)
    second = world.start(pipeline, RUNTIME_LEASE=LEASE)
    until(lambda: world.runs(pipeline, state), why=world.log)
    assert begun(world, 1) == [first.pid, second.pid][:times]
    os.kill(first.pid, signal.SIGCONT)
    until(lambda: f"dropped 1 {first.pid}" in world.done() or f"hauled 1 {first.pid}" in world.done(), why=world.log)
    time.sleep(2)
    assert [e["state"] for e in world.runs(pipeline)] == [state]
    assert world.outputs() == ([2] if state == "done" else [])
    assert len([e for e in world.entries(pipeline) if e["kind"] == "run" and e["state"] == state]) == 1


def test_a_detached_run_that_a_person_cancels_ends_and_its_step_is_told_so(world):
    from farandole.control import CANCEL, Command, run_id_of
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.topics import own_schemas

    world.create("Haul")
    service = world.run("Haul")
    world.module.gate.clear()
    one(world, 1, amount=-1, key="long")
    until(lambda: any(what == "haul" for what, *_ in world.module.done))
    [run] = [e["id"] for e in until(lambda: world.runs("Haul", "parked"))]
    until(lambda: any(not item.running for item in service.worker.intake.parking._by_run.values()))
    control = Control(world.bootstrap, Codec(world.registry, own_schemas()))
    control.give(Command(run_id_of(run), CANCEL, world.group("Haul"), run, "ada", "it takes too long"))
    until(lambda: world.runs("Haul", "dead"))
    until(lambda: any(what == "dropped" for what, *_ in world.module.done))
    world.module.gate.set()
    service.stop()
    assert world.outputs() == []
