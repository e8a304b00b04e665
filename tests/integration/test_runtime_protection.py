"""A dependency that is down, and a bad deploy: the pipeline waits, or stops, and sets nothing aside that it need not."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from itertools import pairwise

import pytest

from farandole.control import RESUME
from tests.integration.runtime_world import Service, World, until
from tests.integration.test_runtime_control import give


def facts(world: World, pipeline: str, kind: str) -> list[dict[str, str]]:
    """The facts of one kind, each with its name, in the order of the ledger."""
    entries = [e for e in world.entries(pipeline) if (e["fact"] or "").startswith(kind)]
    assert len({e["id"] for e in entries}) == len(entries)
    return [{"fact": e["fact"], **e["detail"]} for e in entries]


class Load:
    """Numbers that keep coming, some hundred a second, until it is stopped."""

    def __init__(self, world: World) -> None:
        self.world, self.sent = world, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._stop.wait(0.05):
            self.world.send(range(self.sent, self.sent + 10))
            self.sent += 10

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def both(world: World) -> list[Service]:
    """Two instances of Asking, each with something to read: partitions of the retry topic are shared out among them."""
    world.partitions = 3
    world.create_topics({world.declaration("Asking").retry_topic: 1})
    world.create("Asking")
    services = [world.run("Asking"), world.run("Asking")]
    until(lambda: all(any(topic == world.module.SENT for topic, _ in s.worker.owned) for s in services))
    return services


def outage(world: World, seconds: float) -> None:
    """Two instances under load, and what they depend on away for a while."""
    services = both(world)
    api = world.module.api
    load = Load(world)
    until(lambda: len(api.calls) > 200)

    api.down = True
    until(lambda: world.said("breaker.opened"))
    time.sleep(1.5)  # the other instance has heard of it; the first probe may be over
    shut = len(api.calls)
    time.sleep(seconds)
    probes = api.calls[shut:]
    api.down = False
    until(lambda: world.said("breaker.closed"), 40)
    time.sleep(1)
    load.stop()
    world.wait_drained("Asking", 60)
    for service in services:
        service.stop()

    pauses = [late - soon for (soon, *_), (late, *_) in pairwise(probes)]
    assert len(probes) <= 2 + seconds / 2
    assert all(pause >= min(30, 2 ** (n + 1)) * 0.95 for n, pause in enumerate(pauses)), pauses
    assert not any(answered for _, _, answered in probes)

    assert world.letters("Asking") == []
    assert world.outputs() == [2 * n for n in range(load.sent)]
    done = world.runs("Asking", "done")
    assert len(done) == load.sent
    assert {s["attempts"] for run in done for s in run["steps"]} == {1}
    in_order(world)

    opened, closed = facts(world, "Asking", "breaker.")
    assert (opened["fact"], closed["fact"]) == ("breaker.opened", "breaker.closed")
    assert opened["name"] == closed["name"] == "doubling-api"
    assert opened["since"] == closed["since"]
    assert opened["error"] == "ConnectionRefusedError: nobody listens there"
    assert seconds <= float(closed["seconds"]) <= seconds + 35
    assert (len(world.said("breaker.opened")), len(world.said("breaker.closed"))) == (1, 1)


def in_order(world: World) -> None:
    """Of each record key the numbers were done in the order in which they were sent."""
    by_key = defaultdict(list)
    for what, n, key in world.module.done:
        assert what == "asked"
        by_key[key].append(n)
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def test_a_dependency_that_is_down_under_load_costs_no_letter_and_no_attempt(world):
    outage(world, 10)


@pytest.mark.soak
def test_a_dependency_that_is_down_for_two_minutes_costs_no_letter_and_no_attempt(world):
    outage(world, 120)


def test_an_instance_that_dies_as_the_probe_leaves_it_to_the_others(world):
    first, second = both(world)
    api = world.module.api
    api.down = True
    world.send(range(200))
    until(lambda: world.said("breaker.opened"))
    api.quick.clear()
    prober = until(lambda: next((s for s in (first, second) if probing(s)), None), 20)
    prober.worker.protection.look = lambda *_, **__: None  # as dead: it tells nothing any more
    api.down = False
    api.quick.set()
    until(lambda: world.said("breaker.closed"), 40)
    prober.stop()
    world.wait_drained("Asking")
    assert world.outputs() == [2 * n for n in range(200)]


def probing(service) -> bool:
    return any(view.probe is not None for view in service.worker.protection._views.values())


# --- the guard


def test_a_bad_deploy_stops_before_one_in_a_hundred_is_a_letter_and_goes_on_after_the_fix(world, monkeypatch):
    world.create("Deployed")
    world.send(range(5000))
    world.module.deployed["broken"] = True
    broken = world.run("Deployed")
    until(lambda: len(world.said("partition.stopped")) == world.partitions)
    letters = world.letters("Deployed")
    assert 21 * world.partitions == len(letters) < 50
    told = facts(world, "Deployed", "guard.stopped")
    assert [(f["dead"], f["of"]) for f in told] == [("21", "21")] * world.partitions
    assert len({f["fingerprint"] for f in told}) == 1
    broken.stop()
    assert len(world.letters("Deployed")) == len(letters)

    again = world.run("Deployed")  # the same version: it knows better than to try
    until(lambda: len(world.said("partition.stopped")) == 2 * world.partitions)
    again.stop()
    assert len(world.letters("Deployed")) == len(letters)

    monkeypatch.setenv("FARANDOLE_VERSION", "fixed")
    world.module.deployed["broken"] = False
    world.drain("Deployed")
    assert len(world.letters("Deployed")) == len(letters)
    assert len(world.outputs()) == len(set(world.outputs())) == 5000 - len(letters)
    assert {f["by"] for f in facts(world, "Deployed", "guard.released")} == {"version fixed"}


def test_a_stopped_pipeline_cannot_be_drained_and_goes_on_when_a_person_resumes_it(world):
    world.create("Deployed")
    world.send(range(1000))
    process = world.start("Deployed", "--until-drained", RUNTIME_BROKEN="1")
    assert process.wait(60) == 3
    assert "guard.stopped: 21 of 21 outcomes were dead" in world.log()
    assert f"farandole resume {world.group('Deployed')}" in world.log()

    service = world.run("Deployed")
    until(lambda: len(world.said("partition.stopped")) == world.partitions)
    give(world, RESUME, "Deployed", reason="fixed")
    world.wait_drained("Deployed")
    service.stop()
    assert len(world.outputs()) == 1000 - len(world.letters("Deployed"))
    assert {f["by"] for f in facts(world, "Deployed", "guard.released")} == {"a person"}


def test_several_instances_that_were_to_be_drained_end_when_a_person_is_needed(world):
    world.create("Deployed")
    world.send(range(1000))
    process = world.start("Deployed", "--until-drained", "--instances", "2", RUNTIME_BROKEN="1")
    assert process.wait(90) == 3


def test_five_poison_records_in_a_thousand_do_not_stop_it(world):
    world.create("Catching")
    world.send(range(1000))
    world.drain("Catching")
    assert world.facts("Catching") == {}
