"""Who may open a session: it fences whoever holds the partition, so a zombie must not."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from farandole.errors import Fenced
from farandole.event import Record
from farandole.kafka.sink import Commit, Session


@pytest.fixture
def topic(stack):
    name = stack.unique("sessions")
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})  # kept: its futures end with it
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    return name


@pytest.fixture
def membership(stack):
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": stack.unique("sessions")})
    yield consumer.consumer_group_metadata()
    consumer.close()


def superseded() -> None:
    raise Fenced("another instance took this partition over")


def session(stack, name: str) -> Session:
    return Session(name, {"bootstrap.servers": stack.bootstrap_servers})


def test_a_zombie_that_is_told_of_its_successor_opens_nothing_and_the_successor_goes_on(stack, topic, membership):
    name = stack.unique("session")
    zombie, owner = session(stack, name), session(stack, name)
    zombie.open()
    owner.open()
    zombie.check = superseded
    with pytest.raises(Fenced):
        zombie.reopen()
    owner.publish([Record(topic, b"k", b"v")], None, membership, "")
    assert (zombie.opened, owner.opened) == (1, 1)


def test_a_session_opened_while_a_successor_came_publishes_nothing(stack, topic, membership):
    answers = iter([None, "superseded"])
    late = session(stack, stack.unique("session"))
    late.check = lambda: superseded() if next(answers) else None
    with pytest.raises(Fenced):
        late.publish([Record(topic, b"k", b"v")], None, membership, "")
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": stack.unique("sessions")})
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)
    consumer.close()
    assert (low, high) == (0, 0)


def test_the_successor_s_session_fences_its_predecessor(stack, topic, membership):
    name = stack.unique("session")
    first, second = session(stack, name), session(stack, name)
    first.open()
    second.open()
    with pytest.raises(Fenced):
        first.publish([Record(topic, b"k", b"v")], None, membership, "")


def test_a_session_whose_client_had_nothing_to_say_is_used_again(stack, topic, membership):
    kept = session(stack, stack.unique("session"))
    for offset in range(20):
        kept.publish([Record(topic, b"k", b"v")], Commit(topic, 0, offset, ""), membership, "")
    assert kept.opened == 1
