"""A stopped pipeline whose group is set back by Kafka's own tool, started from its jars."""

from __future__ import annotations

import subprocess
from collections import Counter

import pytest

from farandole.stack.jars import Depot
from farandole.stack.progress import Progress
from farandole.stack.servers import java
from tests.integration.runtime_world import until

each_many = pytest.mark.parametrize("many", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])


def reset_to_earliest(world, pipeline):
    """`kafka-consumer-groups --reset-offsets --to-earliest --execute`, once the broker has missed the last member."""
    words = [java(), "-cp", Depot.of_environment().kafka_tools(Progress()),
             "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", world.bootstrap,
             "--group", world.group(pipeline), "--topic", world.module.SENT,
             "--reset-offsets", "--to-earliest", "--execute"]  # fmt: skip

    said = []

    def done():
        told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        said.append(told.stdout + told.stderr)
        return told.returncode == 0 and "Error" not in told.stdout and told.stdout.count(world.module.SENT) == 2

    until(done, 60, lambda: said[-1])


def settled(world, many, *pipelines):
    world.create(*pipelines)
    world.send(range(many))
    for pipeline in pipelines:
        service = world.run(pipeline)
        world.wait_drained(pipeline, 180)
        service.stop()


@each_many
@pytest.mark.timeout(600)
def test_settled_events_run_once_more_in_one_new_epoch_and_downstream_converges(world, many):
    settled(world, many, "Double", "Mart")
    before = dict(world.module.largest)
    world.module.largest.clear()  # what stands there afterwards comes of the replay alone
    reset_to_earliest(world, "Double")

    world.run("Double")
    world.run("Mart")
    until(lambda: "replay.finished" in world.facts("Double"), 240, lambda: world.facts("Double"))
    world.wait_drained("Mart", 180)

    runs = Counter(e["epoch"] for e in world.runs("Double", "done"))
    assert runs == {0: many, 1: many}
    facts = [e for e in world.entries("Double") if e["fact"] == "replay.detected"]
    assert len({e["id"] for e in facts}) == 1
    assert facts[-1]["detail"]["epoch"] == "1"
    ids = Counter(dict(m.headers())["ce_id"] for m in world.records(world.module.DOUBLED))
    assert (len(ids), set(ids.values())) == (2 * many, {1})
    assert len(world.runs("Mart", "done")) == 2 * many
    assert (world.module.largest, len(before)) == (before, 17)


@each_many
@pytest.mark.timeout(600)
def test_where_a_rewind_means_nothing_the_events_come_to_no_effect(world, many):
    pipeline = "Again"
    settled(world, many, pipeline)
    reset_to_earliest(world, pipeline)

    world.run(pipeline)
    until(lambda: "rewind.ignored" in world.facts(pipeline), 60)
    world.send([many])
    world.wait_drained(pipeline, 60)

    assert Counter(e["epoch"] for e in world.runs(pipeline, "done")) == {0: many + 1}
    assert len(world.outputs()) == many + 1
    assert "replay.detected" not in world.facts(pipeline)
