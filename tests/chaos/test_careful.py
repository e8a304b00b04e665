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
    made = World(stack.bootstrap_servers, stack.registry_url, tmp_path, f"sqlite:///{tmp_path}/books.db", ("Events",))
    made.create()
    try:
        yield made
    finally:
        made.stop()


def test_a_record_that_kills_the_process_is_quarantined_within_four_restarts(world: World):
    world.produce(200, twice=0, bad=0, skip=0)
    world.tell(200, "kill")
    world.produce(200, twice=0, bad=0, skip=0)

    deaths, process = 0, world.start("Events")
    deadline = time.monotonic() + 90
    while world.lag("Events") and time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.returncode == -signal.SIGKILL
            deaths, process = deaths + 1, world.start("Events")
        time.sleep(0.3)

    world.wait_drained(10)
    world.stop()
    history = world.history("Events")
    assert world.judged("Events") == []
    assert [letter.at for letter in history.letters] == [x.at for x in history.landed if x.kind == "kill"]
    assert sorted(output.what for output in history.outputs) == sorted(world.numbers("good"))
    assert 1 <= deaths <= 4
