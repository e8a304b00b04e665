"""A group that was set back while its service was stopped: exactly that range again, once, in an epoch of its own."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from tests.integration.runtime_world import until


def set_back(world, pipeline, offsets):
    """As Kafka's own tool does it: a committed offset without metadata, while the group is empty."""
    at = [TopicPartition(world.module.SENT, partition, offset) for partition, offset in offsets.items()]
    asked = ConsumerGroupTopicPartitions(world.group(pipeline), at)
    for future in world.admin.alter_consumer_group_offsets([asked]).values():
        future.result()


def settled(world, pipeline="Double", count=100):
    world.create(pipeline)
    if pipeline == "Rows":
        engine = sa.create_engine(world.database)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE effect (n BIGINT)")
        engine.dispose()
    world.send(range(count), partition=0)
    world.send(range(count, 2 * count), partition=1)
    world.drain(pipeline)
    return world


def again(world, pipeline, epoch=1):
    """The numbers that ran in an epoch, each with how often."""
    runs = [e for e in world.runs(pipeline, "done") if e["epoch"] == epoch]
    return Counter((e["triggers"][0]["partition"], e["triggers"][0]["offset"]) for e in runs)


def finished(world, pipeline, epoch=1):
    until(
        lambda: "replay.finished" in world.facts(pipeline),
        60,
        lambda: (world.log()[-3000:], len(again(world, pipeline))),
    )
    assert world.facts(pipeline)["replay.finished"]["epoch"] == str(epoch)


@pytest.mark.parametrize("pipeline", ["Double", "Rows"])
def test_what_was_set_back_is_processed_again_once_and_announced_once(world, pipeline):
    settled(world, pipeline)
    set_back(world, pipeline, {0: 0, 1: 40})
    world.run(pipeline)
    world.send([1000], partition=0)
    finished(world, pipeline)
    world.wait_drained(pipeline)

    facts = [e for e in world.entries(pipeline) if e["kind"] == "fact" and e["fact"] == "replay.detected"]
    assert [fact["detail"]["offsets"] for fact in facts] == ["160"]
    ran = again(world, pipeline)
    assert set(ran.values()) == {1}
    assert Counter(p for p, _ in ran) == {0: 100, 1: 60}
    assert len(again(world, pipeline, 0)) == 201
    ids = Counter(dict(m.headers())["ce_id"] for m in world.records(world.module.DOUBLED))
    assert set(ids.values()) == {1}
    assert len(ids) == 201 + 160


def test_a_replay_that_is_killed_three_times_does_each_event_once(world):
    settled(world, "Double", 400)
    set_back(world, "Double", {0: 0, 1: 0})
    for point in ("txn.outputs_produced:2", "txn.committed:3", "settle.after_commit:4"):
        assert world.start("Double", FARANDOLE_KILL_AT=point, FARANDOLE_COMMIT_RECORDS="50").wait(60) == -9
    world.start("Double")
    finished(world, "Double")

    ran = again(world, "Double")
    assert (len(ran), set(ran.values())) == (800, {1})
    ids = Counter(dict(m.headers())["ce_id"] for m in world.records(world.module.DOUBLED))
    assert (len(ids), set(ids.values())) == (1600, {1})
    assert len({e["id"] for e in world.entries("Double") if e["fact"] == "replay.detected"}) == 1


def test_set_back_again_after_it_was_done_is_another_epoch(world):
    settled(world, "Double", 20)
    for epoch in (1, 2):
        set_back(world, "Double", {0: 0})
        service = world.run("Double")
        until(lambda epoch=epoch: len(again(world, "Double", epoch)) == 20, 60)
        until(
            lambda epoch=epoch: any(
                e["detail"].get("epoch") == str(epoch)
                for e in world.entries("Double")
                if e["fact"] == "replay.finished"
            )
        )
        service.stop()
    assert len(again(world, "Double", 0)) == 40
