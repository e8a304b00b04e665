"""What is idle and drained has lag 0 by the broker's own count: markers and aborted records behind the last event count.

Only so can whoever scales services by lag let them sleep.
"""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.integration.runtime_world import until


class Storyteller:
    """A producer with transactions, as an upstream pipeline is."""

    def __init__(self, world):
        self.world = world
        self.producer = Producer(
            {"bootstrap.servers": world.bootstrap, "transactional.id": uuid.uuid4().hex, "log_level": 0}
        )
        self.producer.init_transactions()

    def tell(self, numbers, *, partition, amount=0, commit=True):
        """One transaction."""
        world, topic = self.world, self.world.module.SENT
        self.producer.begin_transaction()
        for n in numbers:
            told = world.number(n, amount=amount)
            self.producer.produce(
                topic, world.frame(topic, told), told["key"].encode(), partition, headers=world.headers(f"n{n}")
            )
        self.producer.flush()
        (self.producer.commit_transaction if commit else self.producer.abort_transaction)()


def gaps_to_the_end(world, pipeline):
    """By partition of everything that the pipeline reads: the end, transactions included, less what is committed."""
    declaration = world.declaration(pipeline)
    topics = [*declaration.topics, declaration.retry_topic]
    consumer = Consumer({"bootstrap.servers": world.bootstrap, "group.id": declaration.name, "log_level": 0})
    try:
        wanted = [TopicPartition(t, p) for t in topics for p in range(world.partitions)]
        committed = consumer.committed(wanted, 10)
        ends = [consumer.get_watermark_offsets(at, 10)[1] for at in wanted]
        return {(at.topic, at.partition): end - at.offset for at, end in zip(committed, ends, strict=True)}
    finally:
        consumer.close()


def settled(world, pipeline):
    gaps = {}

    def at_the_end():
        gaps.update(gaps_to_the_end(world, pipeline))
        return not any(gaps.values())

    until(at_the_end, why=lambda: gaps)
    return gaps


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_drained_service_has_committed_the_end_of_every_partition(world, protocol):
    world.partitions = 3  # of which the last one sees only what was aborted
    world.create("Double")
    teller = Storyteller(world)
    for n in range(0, 1000, 100):
        teller.tell(range(n, n + 50), partition=0)
        teller.tell(range(n + 50, n + 100), partition=1)
        teller.tell(range(5000, 5010), partition=n // 100 % 3, commit=False)
    service = world.run("Double", group_protocol=protocol)
    until(lambda: len(world.outputs()) == 1000)

    assert len(settled(world, "Double")) == 6
    teller.tell([7777], partition=2, commit=False)  # and nothing after it, while the service is idle
    settled(world, "Double")
    service.stop()
    settled(world, "Double")
    assert len(world.runs("Double", "done")) == 1000


def test_runs_that_were_parked_leave_no_lag_on_the_retry_topic(world):
    world.partitions = 2
    world.create("Busy")
    teller = Storyteller(world)
    teller.tell(range(20), partition=0, amount=4)  # refused four times: parked, and done from there
    teller.tell(range(20, 40), partition=1)
    service = world.run("Busy")
    until(lambda: len(world.outputs()) == 40)

    left = settled(world, "Busy")
    retry = world.declaration("Busy").retry_topic
    assert {p: world._ends(retry)[p] > 0 for p in (0, 1)} == {0: True, 1: True}
    assert left[(retry, 0)] == left[(retry, 1)] == 0
    service.stop()


def test_a_service_that_is_drained_and_ends_leaves_no_lag(world):
    world.create("Double")
    teller = Storyteller(world)
    teller.tell(range(50), partition=0)
    teller.tell(range(50, 60), partition=1, commit=False)
    process = world.start("Double", "--until-drained")

    assert process.wait(60) == 0
    assert not any(gaps_to_the_end(world, "Double").values())
    assert world.outputs() == [2 * n for n in range(50)]
