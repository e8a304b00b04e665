"""Clocks that are wrong, and jump: hosts are never compared, so nothing but labels may change."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.world import World

pytestmark = pytest.mark.chaos

JUMPS = (7200, -7200, 0, -600, 93_600, 600)
"""Seconds by which the clock of one instance is wrong.

It is moved inside the process, where the library reads it. libfaketime moves it for the client of Kafka too, whose waits
then never end: they are told to the system as moments of the true clock.
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pipeline", ["Events", pytest.param("Calls", marks=pytest.mark.soak)])
def test_clocks_that_jump_in_the_middle_of_work_change_nothing(stack, tmp_path: Path, pipeline: str):
    world = World(stack.bootstrap_servers, stack.registry_url, tmp_path, stack.postgres_url(), (pipeline,))
    world.create()
    luck, clock = random.Random(33), tmp_path / "clock"
    clock.write_text("-7200")
    fleet = Fleet(world, {pipeline: 1}, CHAOS_CLOCK=str(clock))
    try:
        world.wait_at_work()
        right = world.start(pipeline)  # beside it one that knows the time
        for jump in JUMPS:
            clock.write_text(str(jump))
            world.produce(200, seed=len(world.kinds))
            time.sleep(2)
            if luck.random() < 0.5:
                fleet.instances()[0][1].kill()
        world.wait_drained(120)
        assert right.poll() is None
    finally:
        fleet.stop()
    assert world.judged(pipeline) == []
    believed = set(clock.with_suffix(".told").read_text().split())
    assert len(believed) >= 3, f"its clock was only ever wrong by {believed}"
