"""Topics that are deleted, created anew or grown, under a service and while it is away: never a silent jump."""

from __future__ import annotations

from collections import Counter

import pytest
from confluent_kafka.admin import NewPartitions, NewTopic

from farandole import takeover
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.topics import own_schemas
from farandole.topology.accept import accept
from tests.integration.runtime_world import until


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch):
    monkeypatch.setattr("farandole.watch.LOOK", 0.5)
    monkeypatch.setattr(takeover, "ADDED_PAUSE", 1.0)


def test_a_second_instance_takes_its_share_of_every_topic(world):
    """And not all that waits to be retried, while the first keeps all that is new."""
    world.create("Double")
    first, second = world.run("Double"), world.run("Double")
    shares = lambda: [Counter(topic for topic, _ in service.worker.owned) for service in (first, second)]  # noqa: E731
    topics = [world.module.SENT, world.declaration("Double").retry_topic]
    until(lambda: shares() == [dict.fromkeys(topics, 1)] * 2, 30, shares)


def topic_id(world):
    return Admin(world.bootstrap).topic_ids([world.module.SENT])[world.module.SENT]


def delete(world):
    for future in world.admin.delete_topics([world.module.SENT]).values():
        future.result()
    until(lambda: world.module.SENT not in world.admin.list_topics(timeout=10).topics)


def recreate(world):
    """Delete the topic and create it anew; the UUIDs of both."""
    before = topic_id(world)
    delete(world)
    create(world)
    return before, until(lambda: topic_id(world))


def create(world):
    for future in world.admin.create_topics([NewTopic(world.module.SENT, world.partitions, 1)]).values():
        future.result()
    admin = Admin(world.bootstrap)
    until(lambda: admin.partitions([world.module.SENT]).get(world.module.SENT) == world.partitions)


def grow(world, partitions):
    for future in world.admin.create_partitions([NewPartitions(world.module.SENT, partitions)]).values():
        future.result()
    until(lambda: Admin(world.bootstrap).partitions([world.module.SENT])[world.module.SENT] == partitions)
    world.producer.list_topics(world.module.SENT, 10)  # else it knows of them in minutes
    world.partitions = partitions


def say_yes(world):
    control = Control(world.bootstrap, Codec(world.registry, own_schemas()))
    return accept(Admin(world.bootstrap), control, world.module.SENT, actor="ann", reason="moved")


def plain(world, numbers, partition):
    """Records without any header: their identity is where they stand."""
    for n in numbers:
        told = world.number(n)
        world.put(world.module.SENT, world.frame(world.module.SENT, told), told["key"], partition=partition)
    world.flush()


def stopped(service, name):
    """The partitions that are stopped for a reason of that name."""
    return {o.partition for o in service.worker.owned.values() if o.phase == "stopped" and o.why.startswith(name)}


def running(service, topic):
    return {o.partition for o in service.worker.owned.values() if o.phase == "running" and o.topic == topic}


@pytest.fixture
def settled(world):
    """Double has settled a thousand events without ids on each of two partitions."""
    world.create("Double")
    plain(world, range(1000), 0)
    plain(world, range(1000, 2000), 1)
    world.drain("Double")
    world.module.done.clear()
    return world


def accepted_and_drained(world, service):
    assert say_yes(world) == topic_id(world)
    world.wait_drained("Double")
    service.stop()
    # the same numbers at the same offsets, and not one of them taken for what stood there before
    assert sorted(n for _, n in world.module.done) == list(range(2000))
    assert world.outputs() == sorted(2 * n for n in [*range(2000)] * 2)
    assert len(world.runs("Double", "done")) == 4000
    assert world.facts("Double")["topic.accepted"]["actor"] == "ann"


def test_a_topic_created_anew_while_the_service_was_away_stops_until_a_person_accepts_it(settled):
    world = settled
    old, new = recreate(world)
    plain(world, range(1000), 0)
    plain(world, range(1000, 2000), 1)
    service = world.run("Double")
    until(lambda: stopped(service, "topic.recreated") == {0, 1})

    fact = until(lambda: world.facts("Double").get("topic.recreated"))
    assert (fact["former"], fact["topic_id"], fact["position"]) == (old, new, "1000")
    gap = world.facts("Double")["data.gap"]
    assert (gap["topic_id"], gap["from"], gap["to"]) == (old, "1000", "unknown")
    assert next(iter(world.facts("Double"))) == "data.gap"
    [line] = [x for x in world.said("partition.stopped") if x["at"].endswith("[0]")]
    assert f"farandole topology accept {world.module.SENT}" in line["why"]
    assert world.module.done == []
    accepted_and_drained(world, service)


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_topic_created_anew_under_a_running_service_stops_until_a_person_accepts_it(settled, protocol):
    world = settled
    service = world.run("Double", group_protocol=protocol)
    until(lambda: running(service, world.module.SENT) == {0, 1})
    old, new = recreate(world)
    plain(world, range(1000), 0)
    plain(world, range(1000, 2000), 1)
    until(lambda: stopped(service, "topic.recreated") == {0, 1}, 60)

    fact = world.facts("Double")["topic.recreated"]
    assert (fact["former"], fact["topic_id"]) == (old, new)
    assert world.module.done == []
    accepted_and_drained(world, service)


def test_once_accepted_it_is_the_topic_that_is_known(settled):
    world = settled
    recreate(world)
    service = world.run("Double")
    until(lambda: stopped(service, "topic.recreated") == {0, 1})
    say_yes(world)
    until(lambda: running(service, world.module.SENT) == {0, 1})
    service.stop()
    facts = len(world.entries("Double"))
    world.send([5], partition=0)
    world.drain("Double")
    assert world.module.done == [("double", 5)]
    assert [e["kind"] for e in world.entries("Double")[facts:]] == ["run"]


def test_a_yes_to_another_topic_of_that_name_is_none(settled):
    world = settled
    recreate(world)
    say_yes(world)
    recreate(world)
    service = world.run("Double")
    until(lambda: stopped(service, "topic.recreated") == {0, 1})
    service.worker.takeover.identity.of([world.module.SENT])
    assert stopped(service, "topic.recreated") == {0, 1}
    service.stop()


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_topic_that_is_deleted_under_a_running_service_is_told_and_no_other_partition_minds(settled, protocol):
    world = settled
    service = world.run("Double", group_protocol=protocol)
    until(lambda: running(service, world.module.SENT) == {0, 1})
    delete(world)

    fact = until(lambda: world.facts("Double").get("topic.deleted"), 60)
    assert fact["topic"] == world.module.SENT
    assert world.said("topic.deleted")
    assert service.running
    until(lambda: not running(service, world.module.SENT), 60)
    assert running(service, service.declaration.retry_topic) == {0, 1}
    create(world)
    until(lambda: stopped(service, "topic.recreated") == {0, 1}, 60)
    service.stop()


def test_partitions_that_are_added_are_read_from_their_beginning_whatever_since_says(world, monkeypatch):
    monkeypatch.setenv("RUNTIME_SINCE", "now")
    world.module = world.load(RUNTIME_SINCE="now")
    world.partitions = 1
    world.create("Double")
    service = world.run("Double")
    until(lambda: running(service, world.module.SENT) == {0})
    world.send(range(10), partition=0)
    until(lambda: len(world.outputs()) == 10)
    assert not service.worker.intake.claiming
    service.stop()
    grow(world, 3)
    world.send(range(10, 20), partition=1)
    world.send(range(20, 30), partition=2)
    service = world.run("Double")

    until(lambda: len(world.outputs()) == 30)
    until(lambda: "keys.moved" in world.facts("Double"))
    assert (world.facts("Double")["keys.moved"]["old"], world.facts("Double")["keys.moved"]["new"]) == ("1", "3")
    assert service.worker.intake.claiming
    service.stop()
    assert world.outputs() == [2 * n for n in range(30)]
    entries = len(world.entries("Double"))
    world.drain("Double")  # it is told once, and begun once
    assert len(world.entries("Double")) == entries


def test_partitions_that_are_added_under_running_instances_lose_nothing_and_double_nothing(world):
    world.partitions = 2
    world.create("Double")
    services = [world.run("Double"), world.run("Double")]
    world.send(range(200))
    until(lambda: len(world.outputs()) == 200)
    grow(world, 6)
    for n in range(200, 1000):
        told, topic = world.number(n), world.module.SENT
        frame = world.frame(topic, told)
        for partition in {n % 2, n % 6}:  # by who knows the old number, and by who knows the new one
            world.put(topic, frame, told["key"], world.headers(f"n{n}"), partition)
    world.flush()

    until(lambda: len(world.outputs()) >= 1000, 60)
    until(lambda: all(o.phase == "running" for s in services for o in s.worker.owned.values()))
    until(lambda: sum(o.topic == world.module.SENT for s in services for o in s.worker.owned.values()) == 6)
    until(lambda: "keys.moved" in world.facts("Double"))
    assert all(s.worker.intake.claiming for s in services)
    until(lambda: all(not o.window and not o.ended for s in services for o in s.worker.owned.values()))
    for service in services:
        service.stop()
    assert world.outputs() == [2 * n for n in range(1000)]
