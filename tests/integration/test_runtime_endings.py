"""Instances that come and go: told to end, ended at once, or joined by others under load; every event once."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.integration.runtime_world import until


def test_told_to_end_in_the_middle_of_work_it_ends_what_has_begun_and_nothing_is_lost_or_doubled(world):
    world.create("Slow")
    world.hold.touch()
    world.send(range(40))
    process = world.start("Slow")
    until(lambda: len(world.done()) == 2)  # two slots
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None  # it waits for what has begun
    world.hold.unlink()
    assert process.wait(30) == 0
    assert Counter(line.split()[0] for line in world.done()) == {"begun": 2, "ended": 2}
    until(lambda: len(world.outputs()) == 2)
    world.start("Slow")
    world.wait_drained("Slow")
    assert world.outputs() == [2 * n for n in range(40)]
    assert Counter(world.done()) == Counter(f"{what} {n}" for n in range(40) for what in ("begun", "ended"))
    assert len(world.runs("Slow", "done")) == 40


def test_told_twice_it_ends_at_once_and_the_next_one_does_the_work(world):
    world.create("Slow")
    world.hold.touch()
    world.send(range(10))
    process = world.start("Slow")
    until(lambda: len(world.done()) == 2)
    process.terminate()
    time.sleep(0.3)
    process.terminate()
    assert process.wait(5) == 143
    assert world.outputs() == []
    world.hold.unlink()
    world.quick_session("Slow")
    world.start("Slow")
    world.wait_drained("Slow", 60)
    assert world.outputs() == [2 * n for n in range(10)]


def test_until_drained_ends_by_itself_with_everything_settled(world):
    world.create("Double")
    world.send(range(200))
    assert world.start("Double", "--until-drained").wait(60) == 0
    assert world.lag("Double") == 0
    assert world.outputs() == [2 * n for n in range(200)]


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_instances_that_join_and_leave_under_load_do_each_event_once(world, protocol):
    world.partitions = 6
    world.create("Double")
    stage = iter(range(0, 4000, 500))
    sent = 0

    def load():
        nonlocal sent
        start = next(stage)
        world.send(range(start, start + 500))
        world.send(range(start, start + 50))  # told again
        sent = start + 500

    def shared(number):
        """Whether so many instances own all partitions between them."""
        owners = [s for s in world.services if s.running and any(o.phase == "running" for o in s.worker.owned.values())]
        owned = sum(len(s.worker.owned) for s in world.services if s.running)
        return len(owners) == number and owned == 2 * world.partitions  # of its input, and of its retry topic

    world.run("Double", group_protocol=protocol)
    load()
    until(lambda: shared(1))
    load()
    world.run("Double", group_protocol=protocol)
    world.run("Double", group_protocol=protocol)
    load()
    until(lambda: shared(3), 60)
    load()
    world.services[0].stop()
    load()
    world.services[1].stop()
    load()
    until(lambda: shared(1), 60)
    load()
    world.wait_drained("Double")
    world.services[2].stop()
    assert world.outputs() == [2 * n for n in range(sent)]
    ids = Counter(dict(m.headers())["ce_id"] for m in world.records(world.module.DOUBLED))
    assert max(ids.values()) == 1
    assert Counter(e["id"] for e in world.entries("Double") if e["kind"] == "run") == Counter(
        r["id"] for r in world.runs("Double", "done")
    )
    assert len(world.runs("Double", "done")) == sent
    assert world.why("Double") == []
    assert not world.facts("Double"), "no offset was lost, refused or regressed on the way"


def test_events_of_one_record_key_keep_their_order_while_instances_change(world):
    world.create("Double")
    topic = world.module.SENT
    for n in range(600):
        world.put(topic, world.frame(topic, world.number(n, key=f"k{n % 5}")), f"k{n % 5}", world.headers(f"n{n}"))
    world.flush()
    first = world.run("Double")
    until(lambda: len(world.outputs()) > 50)
    second = world.run("Double")
    until(lambda: second.worker.owned)
    first.stop()
    world.wait_drained("Double")
    second.stop()
    by_key: dict[bytes, list[int]] = {}
    for m in world.records(world.module.DOUBLED):
        by_key.setdefault(m.key(), []).append(world.decode(world.module.DOUBLED, m.value())["n"])
    assert sorted(by_key) == [b"k0", b"k1", b"k2", b"k3", b"k4"]
    assert all(numbers == sorted(numbers) and len(numbers) == 120 for numbers in by_key.values())
