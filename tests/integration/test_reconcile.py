"""What was missed is found by its offset and sent again, once, to the pipeline that missed it; nothing else is."""

from __future__ import annotations

import sqlite3

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from farandole.reconciler.cluster import Limits
from farandole.reconciler.reconciler import open_reconciler
from tests.integration.runtime_world import until


def sweep(world, *pipelines, **limits):
    """One sweep of a reconciler whose memory lasts from one sweep of the world to the next."""
    settings = world.settings(database_url=f"sqlite:///{world.folder}/{{pipeline}}.db")
    with open_reconciler(settings, [world.declaration(name) for name in pipelines]) as reconciler:
        return [row for swept in reconciler.sweep(Limits(**limits)) for row in swept.rows()]


def lose(world, pipeline, partition, count, topic=None):
    """Move a stopped pipeline's position over so many records, in SQL and in Kafka: they are lost to it."""
    topic = topic or world.module.SENT
    group = world.group(pipeline)
    offset, mark = {**world.committed(pipeline), **retries(world, pipeline)}[topic, partition]
    at = TopicPartition(topic, partition, offset + count, mark)
    for future in world.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [at])]).values():
        future.result()
    with sqlite3.connect(f"{world.folder}/books.db") as books:
        moved = books.execute(
            "UPDATE position SET next_offset = ? WHERE pipeline = ? AND topic = ? AND partition = ? AND epoch = 0",
            (offset + count, group, topic, partition),
        )
        assert moved.rowcount == 1
    return range(offset, offset + count)


def retries(world, pipeline):
    found = world.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(world.group(pipeline))])
    return {
        (p.topic, p.partition): (p.offset, p.metadata)
        for future in found.values()
        for p in future.result().topic_partitions
    }


def forget_group(world, pipeline):
    for future in world.admin.delete_consumer_groups([world.group(pipeline)]).values():
        future.result()


def test_what_was_lost_is_settled_after_one_sweep_and_the_next_sends_nothing(world):
    world.create("Double")
    world.send(range(500), partition=0)
    world.send(range(500, 1000), partition=1)
    world.drain("Double")
    world.send(range(1000, 1100), partition=0)
    lose(world, "Double", 0, 11)  # one percent of all
    service = world.run("Double")
    world.wait_drained("Double")
    assert len(world.outputs()) == 1089, "the test has lost nothing"
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["missed"], row["reemitted"]) == (1100, 1089, 11, 11)
    until(lambda: len(world.outputs()) == 1100)
    assert world.outputs() == [2 * n for n in range(1100)]
    until(lambda: len(world.runs("Double", "done")) == 1100)
    until(lambda: sweep(world, "Double")[0]["done"] == 1100)
    service.stop()
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["missed"], row["reemitted"], row["pending"]) == (1100, 1100, 0, 0, 0)
    assert len(world.module.done) == 1100, "something ran twice"
    assert len(world.records(world.declaration("Double").retry_topic)) == 11


def test_a_group_whose_offsets_are_gone_misses_nothing_and_is_sent_nothing(world):
    world.create("Double")
    world.send(range(100))
    world.drain("Double")
    forget_group(world, "Double")
    (row,) = sweep(world, "Double")
    assert "it has no committed offset" in row["note"]
    assert row["missed"] == 0
    world.send(range(100, 120))
    world.drain("Double")
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["missed"], row["reemitted"]) == (120, 120, 0, 0)
    assert len(world.module.done) == 120
