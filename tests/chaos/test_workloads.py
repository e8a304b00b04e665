"""Inputs that are themselves the fault: each event told fifty times under any key, and poison at every stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.world import World

pytestmark = pytest.mark.chaos


def world_of(stack, folder: Path, pipeline: str) -> World:
    database = stack.postgres_url() if pipeline == "Rows" else f"sqlite:///{folder}/books.db"
    world = World(stack.bootstrap_servers, stack.registry_url, folder, database, (pipeline,))
    world.create()
    return world


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pipeline", ["Rows", "Calls"])
def test_an_event_told_fifty_times_under_any_record_key_and_on_any_partition_runs_once(stack, tmp_path: Path, pipeline):
    world = world_of(stack, tmp_path, pipeline)
    world.storm(60, times=50)
    for _ in range(2):
        world.start(pipeline)
    world.wait_drained(200)
    world.stop()
    history = world.history(pipeline)
    assert len(history.landed) == 60 * 50
    assert world.judged(pipeline) == []


def test_poison_at_every_stage_is_set_aside_whole_and_everything_else_is_done(stack, tmp_path: Path):
    """Bytes that are no event, a criterion that cannot be told, a step that fails, an output that is refused."""
    world = world_of(stack, tmp_path, "Events")
    world.produce(1000, garbage=0.03, odd=0.03, bad=0.03, huge=0.005, skip=0.05)
    world.start("Events")
    world.wait_drained(120)
    world.stop()
    history = world.history("Events")
    assert world.judged("Events") == []
    kinds = {landed.at: landed.kind for landed in history.landed}
    assert {kinds[letter.at] for letter in history.letters} == {"garbage", "odd", "bad", "huge"}
