"""What arrives when nobody waits for it any more: a request that was sent again, an answer that came to nothing."""

from __future__ import annotations

import contextlib
import time
import uuid

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from farandole.event import Record
from farandole.kafka import sink
from farandole.kafka.sink import Commit, Session, Spoiled
from farandole.kafka.source import Key, Source
from tests.chaos.checker import Scene, read
from tests.chaos.conftest import Cluster
from tests.chaos.proxy import end_of_transaction, first

pytestmark = pytest.mark.chaos


def until_coordinated(consumer: Consumer, topic: str) -> None:
    """Until the group has its coordinator: the first who asks for one has the brokers make the groups' topic."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(KafkaException):
            consumer.committed([TopicPartition(topic, 0)], 20)
            return
    raise AssertionError("the group has no coordinator")


@pytest.mark.timeout(180)
def test_an_end_of_a_transaction_that_arrives_late_does_not_end_the_next_one(cluster: Cluster, monkeypatch):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    name = f"late-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, 1, 3)])[name].result()
    settings = {"bootstrap.servers": cluster.proxied}
    consumer = Consumer({**settings, "group.id": name})
    until_coordinated(consumer, name)
    membership = consumer.consumer_group_metadata()
    session = Session(name, settings)
    session.publish([Record(name, b"k", b"first")], Commit(name, 0, 1, ""), membership, "")
    before = sum(proxy.arrived for proxy in cluster.proxies)  # the servers are shared, and others lose requests too
    for proxy in cluster.proxies:
        proxy.late = first(end_of_transaction)
    session.publish([Record(name, b"k", b"second")], Commit(name, 0, 2, ""), membership, "")

    def spoiled_once_it_has_come(point: str, **_: float) -> None:
        if point == "txn.ledger_produced":
            end = time.monotonic() + 20
            while sum(proxy.arrived for proxy in cluster.proxies) == before:
                assert time.monotonic() < end, "the late one does not come"
                time.sleep(0.05)
            raise Spoiled("so it ends")

    monkeypatch.setattr(sink, "point", spoiled_once_it_has_come)
    with pytest.raises(Spoiled):
        session.publish([Record(name, b"k", b"third")], Commit(name, 0, 3, ""), membership, "")
    monkeypatch.undo()
    session.publish([Record(name, b"k", b"fourth")], Commit(name, 0, 4, ""), membership, "")
    found = read(Scene(cluster.bootstrap, "", "", {}, {}), [name])[name]
    assert [message.value() for message in found] == [b"first", b"second", b"fourth"]


@pytest.mark.timeout(180)
def test_a_partition_that_is_placed_while_the_brokers_are_slow_to_answer_is_read_without_a_gap(cluster: Cluster):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    name = f"slow-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, 1, 3)])[name].result()
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 0, "log_level": 0})
    for proxy in cluster.proxies:
        proxy.delay = 0.3  # each way: what was asked at the assignment is answered when the partition is long placed
    source = Source(name, [name], {"bootstrap.servers": cluster.proxied}, "consumer")
    given: list[Key] = []
    source.subscribe(given.extend, lambda _: None, lambda _: None)
    offsets, sent, end = [-1], 0, time.monotonic() + 120
    while offsets[-1] < 199 and time.monotonic() < end:
        offsets += [record.offset for record in source.poll(100, 0.02)]
        for key in given:
            source.place(key, 0)
        if (given or sent) and sent < 200:
            producer.produce(name, b"v")
            producer.poll(0)
            sent += 1
        given.clear()
    source.close()
    assert offsets == list(range(-1, 200))
