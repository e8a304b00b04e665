"""The coordinator of a group goes away for longer than a transaction lives, in the middle of one."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from farandole.event import Record
from farandole.kafka import sink
from farandole.kafka.sink import Commit, Session, Spoiled
from tests.chaos.conftest import Cluster
from tests.chaos.faults import broker

pytestmark = pytest.mark.chaos


def coordinator_of(admin: AdminClient, name: str, topic: str) -> int:
    """The broker that leads the partition of the coordinators' topic where a name has its place: Java's hash of it."""
    number = 0
    for letter in name:
        number = (31 * number + ord(letter)) & 0xFFFFFFFF
    partitions = admin.list_topics(topic, timeout=20).topics[topic].partitions
    return partitions[(number & 0x7FFFFFFF) % len(partitions)].leader


def name_at(admin: AdminClient, topic: str, *, away_from: int | None = None) -> str:
    while True:
        name = f"lost-{uuid.uuid4().hex[:8]}"
        if away_from is None or coordinator_of(admin, name, topic) != away_from:
            return name


def until_forgotten(session: Session, number: int) -> None:
    """Until the client of a session has heard that a broker is away, and has let go of it."""
    there = {number}
    while number in there:
        time.sleep(0.1)
        with contextlib.suppress(KafkaException):
            there = set(session._producer.list_topics(timeout=5).brokers)


@pytest.mark.timeout(180)
def test_a_commit_whose_coordinator_is_forgotten_ends_and_the_next_one_succeeds(cluster: Cluster, monkeypatch):
    """The client waits for ever for a coordinator that left the metadata in between: librdkafka 5456 and 5511."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    topic = name_at(admin, "")
    admin.create_topics([NewTopic(topic, 1, 3)])[topic].result()
    group = name_at(admin, "__consumer_offsets")
    settings = {"bootstrap.servers": cluster.proxied}
    consumer = Consumer({**settings, "group.id": group})
    membership = consumer.consumer_group_metadata()
    Session(name_at(admin, ""), settings).publish([], Commit(topic, 0, 1, ""), membership, "")  # now it has one
    lost = coordinator_of(admin, group, "__consumer_offsets")
    name = name_at(admin, "__transaction_state", away_from=lost)
    session = Session(name, settings)
    session.publish([Record(topic, b"k", b"first")], Commit(topic, 0, 1, ""), membership, "")

    def killed(point: str, **_: float) -> None:
        if point == "txn.ledger_produced":
            cluster.stack.kill(broker(lost))
            until_forgotten(session, lost)

    def commit() -> None:
        with contextlib.suppress(Spoiled):  # now and then the client finds the new coordinator, and commits
            session.publish([Record(topic, b"k", b"second")], Commit(topic, 0, 2, "then"), membership, "")

    monkeypatch.setattr(sink, "COMMIT_TIMEOUT", 5.0)
    monkeypatch.setattr(sink, "point", killed)
    under_way = threading.Thread(target=commit, daemon=True)
    under_way.start()
    under_way.join(60)
    assert not under_way.is_alive(), "the commit never ends"
    monkeypatch.undo()
    session.publish([Record(topic, b"k", b"third")], Commit(topic, 0, 3, "now"), membership, "")
    [at] = consumer.committed([TopicPartition(topic, 0)], 20)
    assert (at.offset, at.metadata) == (3, "now")
