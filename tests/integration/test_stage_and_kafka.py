"""A stage and a real Kafka give the same: outputs by id, runs by id and state, letters, filtered records."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from farandole.testing import Stage, conservation, one_effect
from tests.chaos.world import World

COUNT = 300


@pytest.mark.parametrize("pipeline", ["Events", "Calls"])
def test_what_a_stage_does_is_what_a_service_does(
    stack, tmp_path: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch
):
    world = World(stack, tmp_path, pipeline, f"sqlite:///{tmp_path}/books.db")
    world.create()
    monkeypatch.setenv("CHAOS_RECEIVER", str(tmp_path / "received-on-stage"))
    world.produce(COUNT, twice=0.2, bad=0.03, skip=0.1)
    try:
        service = world.start(FARANDOLE_COMMIT_INTERVAL="50ms")
        world.wait_drained(60)
    finally:
        world.stop()
    assert service.returncode == 0
    entries, filtered = world.ledger()

    monkeypatch.setenv("CHAOS_WORLD", world.name)  # the pipelines' topics are named after it when they are imported
    monkeypatch.delitem(sys.modules, "tests.chaos.pipelines", raising=False)
    declared = importlib.import_module("tests.chaos.pipelines")
    stage = Stage(getattr(declared, pipeline))
    for n in range(COUNT):
        kind = "bad" if n in world.bad else "skip" if n in world.skipped else "good"
        event = declared.NumberSent(n, f"k{n % 997}", kind)
        stage.tell(event, event, id=f"{world.name}-{n}", source="/chaos")
    stage.wait("1s")

    on_kafka = {run: (e[-1]["state"], e[-1]["keys"], [o["id"] for o in e[-1]["outputs"]]) for run, e in entries.items()}
    assert {run.id: (run.state, run.keys, [o["id"] for o in run.outputs]) for run in stage.runs} == on_kafka
    sent = {dict(m.headers())["ce_id"] for m in world.read(world.output)}
    assert {dict(r.headers)["ce_id"] for r in stage.records} == sent
    letters = {dict(m.headers())["farandole-dlq-fingerprint"] for m in world.read(f"dlq.{world.group}")}
    assert {letter.fingerprint.encode() for letter in stage.dead} == letters
    assert len({event.n for event, _ in stage.filtered}) == len(world.skipped) <= filtered
    assert (conservation(stage), one_effect(stage)) == ([], [])
