"""Instances that come and go under load: one, then eight, then two."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.world import World

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("count", "pace"), [(20_000, 800), pytest.param(200_000, 2000, marks=pytest.mark.soak)])
def test_one_instance_then_eight_then_two_under_load(stack, tmp_path: Path, count: int, pace: int):
    world = World(
        stack.bootstrap_servers,
        stack.registry_url,
        tmp_path,
        f"sqlite:///{tmp_path}/books.db",
        ("Events",),
        partitions=12,
    )
    world.create()
    sender = threading.Thread(target=world.produce, args=(count,), kwargs={"pace": pace, "bad": 0.001})
    sender.start()
    fleet = Fleet(world, {"Events": 1})
    try:
        world.wait_at_work()
        stretch = count / pace / 3
        time.sleep(stretch / 2)
        fleet.wanted["Events"] = 8
        time.sleep(stretch)
        fleet.wanted["Events"] = 2
        sender.join()
        world.wait_drained(300)
    finally:
        fleet.stop()
    assert fleet.ends == {}, "an instance ended that was not told to"
    assert world.judged("Events") == []
