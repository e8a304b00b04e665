"""A stage and a real Kafka give the same: outputs by id, runs by id and state, letters, filtered records."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from farandole.testing import Stage, conservation, one_effect
from tests.chaos.world import KEYS, World

COUNT = 300


@pytest.mark.parametrize("pipeline", ["Events", "Calls"])
def test_what_a_stage_does_is_what_a_service_does(
    stack, tmp_path: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch
):
    url = f"sqlite:///{tmp_path}/{{pipeline}}.db"
    world = World(stack.bootstrap_servers, stack.registry_url, tmp_path, url, (pipeline,))
    world.create()
    monkeypatch.setenv("CHAOS_RECEIVER", str(tmp_path / "received-on-stage"))
    world.produce(COUNT, twice=0.2, bad=0.03, skip=0.1)
    try:
        service = world.start(pipeline, FARANDOLE_COMMIT_INTERVAL="50ms")
        world.wait_drained(60)
    finally:
        world.stop()
    assert service.returncode == 0
    seen = world.history(pipeline)

    monkeypatch.setenv("CHAOS_WORLD", world.name)  # the pipelines' topics are named after it when they are imported
    monkeypatch.delitem(sys.modules, "tests.chaos.pipelines", raising=False)
    declared = importlib.import_module("tests.chaos.pipelines")
    stage = Stage(getattr(declared, pipeline))
    for n, kind in world.kinds.items():
        event = declared.NumberSent(n, f"k{n % KEYS}", kind, 1)
        stage.tell(event, event, id=f"{world.name}-{n}", source="/chaos")
    stage.wait("1s")

    on_kafka = {e.id: (e.state, e.outputs) for e in seen.ledger if e.state in ("done", "dead")}
    assert {run.id: (run.state, tuple(o["id"] for o in run.outputs)) for run in stage.runs} == on_kafka
    assert {dict(r.headers)["ce_id"].decode() for r in stage.records} == {output.id for output in seen.outputs}
    assert {letter.run_id for letter in stage.dead} == {letter.run for letter in seen.letters}
    filtered = {at for entry in seen.ledger for at in entry.filtered}
    assert len({event.n for event, _ in stage.filtered}) == len(world.numbers("skip")) <= len(filtered)
    assert (conservation(stage), one_effect(stage)) == ([], [])
