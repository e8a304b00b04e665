"""A record that ends the process whenever it is in hand: found, quarantined whole, and nobody else pays for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.world import World

pytestmark = pytest.mark.chaos


@pytest.fixture
def world(stack, tmp_path: Path) -> Iterator[World]:
    made = World(stack, tmp_path, "Events", f"sqlite:///{tmp_path}/books.db")
    made.create()
    try:
        yield made
    finally:
        made.stop()


def test_a_record_that_kills_the_process_is_quarantined_within_four_restarts(world: World):
    world.produce(200, twice=0, bad=0, skip=0)
    world.tell(100_000, "kill")
    world.produce(200, twice=0, bad=0, skip=0)

    deaths, process = 0, world.start()
    deadline = time.monotonic() + 90
    while world.lag() and time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.returncode == -signal.SIGKILL
            deaths, process = deaths + 1, world.start()
        time.sleep(0.3)

    world.wait_drained(10)
    letters = world.read(f"dlq.{world.group}")
    numbers = sorted(world.decode(world.output, m.value())["n"] for m in world.read(world.output))
    assert [world.decode(world.input, m.value())["n"] for m in letters] == [100_000]
    assert dict(letters[0].headers())["farandole-dlq-reason"] == b"decode.killed-process"
    assert numbers == sorted(2 * n for n in world.good)
    assert 1 <= deaths <= 4
