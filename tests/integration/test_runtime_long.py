"""Long work: no rebalance, no second execution; told to end in its middle; and a service that hangs."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from tests.integration.runtime_world import until

QUICK_POLLS = json.dumps({"max.poll.interval.ms": "10000"})


def lines(world, event):
    """What services of this world said under a name."""
    told = (json.loads(line) for line in world.log().splitlines() if line.startswith("{"))
    return [line for line in told if line["event"] == event]


def one(world, n, *, kind="good", amount=0, key=None):
    told = world.number(n, kind=kind, amount=amount, key=key)
    world.put(world.module.SENT, world.frame(world.module.SENT, told), told["key"], world.headers(f"n{n}"))
    world.flush()


def test_a_service_whose_polling_thread_hangs_says_so_and_ends(world):
    world.create("Double")
    one(world, 1)
    process = world.start("Double", FARANDOLE_KAFKA=QUICK_POLLS)
    until(lambda: world.outputs() == [2], why=world.log)
    one(world, 2, kind="wedge")
    asked = time.monotonic()
    assert process.wait(45) == 1
    assert time.monotonic() - asked > 17
    (line,) = lines(world, "service.hangs")
    assert line["why"].startswith("its polling thread stands still: no poll in 20 s")
    assert "in of" in world.log()
    assert "Thread 0x" in world.log()


def long_work(world, seconds, **environment):
    """One key works for so long while others go on. One instance, one execution, no rebalance."""
    world.create("Long")
    process = world.start("Long", **environment)
    until(lambda: world.owns(process), why=world.log)
    one(world, 1, amount=seconds, key="long")
    until(lambda: "carry 1" in world.done(), why=world.log)
    end, n = time.monotonic() + seconds - 2, 10
    while time.monotonic() < end:
        one(world, n, key=f"k{n % 3}")
        until(lambda n=n: 2 * n in world.outputs(), 10, world.log)
        n += 1
        time.sleep(min(1.0, seconds / 100))
    assert 2 not in world.outputs()
    until(lambda: 2 in world.outputs(), 20, world.log)
    world.wait_drained("Long")

    assert process.poll() is None
    told = Counter(line["event"] for line in map(json.loads, world.log().splitlines()))
    assert told == {"partitions.taken": told["partitions.taken"]}, told
    assert sum(len(line["partitions"]) for line in lines(world, "partitions.taken")) == 2 * world.partitions
    assert Counter(world.done())["carry 1"] == 1
    assert Counter(world.done())["weigh 1"] == 1


@pytest.mark.soak
def test_a_step_longer_than_the_clients_interval_causes_no_rebalance_and_runs_once(world):
    long_work(world, 35, FARANDOLE_KAFKA=QUICK_POLLS)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_step_of_six_and_a_half_minutes_at_default_settings_causes_no_rebalance_and_runs_once(world):
    long_work(world, 390)


def test_told_to_end_in_a_long_step_it_ends_the_step_within_its_grace(world):
    world.create("Long")
    one(world, 1, amount=3)
    process = world.start("Long")
    until(lambda: "carry 1" in world.done(), why=world.log)
    process.terminate()
    assert process.wait(20) == 0
    assert world.done() == ["weigh 1", "carry 1", "carried 1"]
    assert world.outputs() == [2]


def test_a_step_longer_than_the_grace_is_handed_over_and_what_was_done_before_is_not_asked_again(world):
    world.create("Long")
    one(world, 1, amount=8)
    process = world.start("Long", FARANDOLE_SHUTDOWN_GRACE="1s")
    until(lambda: "carry 1" in world.done(), why=world.log)
    asked = time.monotonic()
    process.terminate()
    assert process.wait(20) == 0
    assert time.monotonic() - asked < 6
    assert world.outputs() == []
    world.start("Long")
    until(lambda: world.outputs() == [2], why=world.log)
    assert world.done() == ["weigh 1", "carry 1", "carry 1", "carried 1"]
    steps = world.runs("Long", "done")[0]["steps"]
    assert [(s["name"], s["reused"]) for s in steps] == [("weigh", True), ("carry", False)]
    world.wait_drained("Long")
