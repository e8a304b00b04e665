"""Whatever an author's code does, the service lives on or is started anew, and every event has its outcome."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from farandole.store import open_store
from tests.integration.runtime_world import until

HARMLESS = ("error", "bare", "system-exit", "keyboard", "memory", "wrong", "wrong-event", "recursion")


def told(world, what):
    return [line.split() for line in world.done() if line.startswith(f"{what} ")]


@pytest.mark.parametrize("pipeline", ["Wild", "Caged"])
def test_whatever_a_step_raises_or_returns_is_its_runs_failure_and_never_the_services_end(world, pipeline):
    world.create(pipeline)
    for n, kind in enumerate(HARMLESS):
        world.send([n], kind=kind)
    world.send(range(100, 120))
    process = world.start(pipeline)
    world.wait_drained(pipeline, 90)
    assert process.poll() is None
    letters = {world.decode(world.module.SENT, m.value())["kind"]: dict(m.headers()) for m in world.letters(pipeline)}
    assert {kind: h["farandole-dlq-exception-class"].decode() for kind, h in letters.items()} == {
        "error": "ValueError",
        "bare": "tests.integration.runtime_pipelines.Bare",
        "system-exit": "SystemExit",
        "keyboard": "KeyboardInterrupt",
        "memory": "MemoryError",
        "wrong": "farandole.errors.UndeclaredOutput",  # its annotation promises an event
        "wrong-event": "farandole.errors.UndeclaredOutput",
        "recursion": "RecursionError",
    }
    for kind in ("error", "bare", "system-exit", "keyboard", "recursion"):
        assert b"in behave" in letters[kind]["farandole-dlq-stacktrace"], kind
    assert world.outputs() == [2 * n for n in range(100, 120)]
    assert len(world.runs(pipeline, "done")) == 20
    retried = {"error", "memory", "recursion"}  # an Exception is tried again; what is none is not
    attempts = Counter(int(n) for _, n, _ in told(world, "behave") if int(n) < 100)
    assert attempts == {n: 3 if kind in retried else 1 for n, kind in enumerate(HARMLESS)}


def test_code_in_c_that_keeps_the_interpreters_lock_stops_everything_for_a_while_and_loses_nothing(world):
    world.create("Wild")
    world.quick_session("Wild")
    world.send(range(100, 300))
    world.send([1], kind="lock", amount=9_000_000)  # three sessions of this group
    world.send(range(300, 500))
    process = world.start("Wild")
    world.wait_drained("Wild", 90)
    assert process.poll() is None
    assert world.outputs() == sorted([2, *(2 * n for n in range(100, 500))])
    assert Counter(int(n) for _, n, _ in told(world, "behave")) == dict.fromkeys([1, *range(100, 500)], 1)


def test_a_hundred_attempts_that_go_on_in_vain_end_the_service_and_the_next_one_goes_on(world):
    world.create("Staying")
    world.quick_session("Staying")
    world.send(range(100), kind="stay")
    assert world.start("Staying").wait(90) == 1
    assert '"service.overrun"' in world.log()
    assert "isolate=True" in world.log()
    world.send(range(100, 110))
    second = world.start("Staying")
    world.wait_drained("Staying", 60)
    assert second.poll() is None
    assert world.outputs() == [2 * n for n in range(100, 110)]
    assert Counter(e["state"] for e in world.runs("Staying")) == {"dead": 100, "done": 10}


def test_an_instance_that_slept_through_its_session_cancels_what_was_under_way_and_another_does_it_once(world):
    world.create("WeighThenWait")
    world.quick_session("WeighThenWait")
    world.send([1], amount=20)  # longer than the zombie sleeps
    zombie = world.start("WeighThenWait")
    until(lambda: told(world, "begun"), why=world.log)
    zombie.send_signal(signal.SIGSTOP)
    world.start("WeighThenWait")
    until(lambda: len(told(world, "begun")) == 2, 60, world.log)
    zombie.send_signal(signal.SIGCONT)
    until(lambda: told(world, "cancelled"), 60, world.log)
    world.wait_drained("WeighThenWait", 60)
    assert world.outputs() == [2]
    assert len(told(world, "weigh")) == 1
    [run] = world.runs("WeighThenWait")
    assert [(s["name"], s["reused"]) for s in run["steps"]] == [("weigh", True), ("wait_long", False)]


def test_a_claim_of_one_that_has_a_successor_costs_its_partitions_and_not_its_service(world, monkeypatch):
    monkeypatch.setattr("farandole.worker.FENCED_PAUSE", 1.0)
    world.create("Double")
    service = world.run("Double")

    def tell(n):
        value = world.frame(world.module.SENT, world.number(n))
        world.put(world.module.SENT, value, None, world.headers(f"n{n}"))  # without a record key: it is claimed
        world.flush()

    tell(1)
    until(lambda: world.outputs() == [2])
    store = open_store(world.database, world.group("Double"))
    for (topic, partition), owned in list(service.worker.owned.items()):
        store.inbox.take_over(topic, owned.lane.topic_id, partition, "successor")
    tell(2)
    until(lambda: world.said("partition.fenced"), 30, lambda: service.error)
    until(lambda: world.outputs() == [2, 4], 30, lambda: service.error)
    store.close()
    service.stop()
