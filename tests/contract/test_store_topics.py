"""The topics that a pipeline has known, on SQLite and on PostgreSQL."""

from __future__ import annotations

from farandole.store import KnownTopic

TOPIC = "lake.file.landed.v1"
FIRST, SECOND = KnownTopic("T1", 3, 3, 3), KnownTopic("T2", 0, 3, 3)


def test_of_a_topic_that_was_never_seen_nothing_is_known(store):
    assert store.topics.of(TOPIC) == []


def test_the_uuids_of_a_topic_are_known_to_every_instance_oldest_first(store, another_store):
    store.topics.learn(TOPIC, FIRST)
    another_store().topics.learn(TOPIC, SECOND)
    store.topics.learn("other.v1", KnownTopic("T3", 1, 1, 1))
    assert store.topics.of(TOPIC) == another_store().topics.of(TOPIC) == [FIRST, SECOND]


def test_of_two_instances_that_see_a_topic_at_once_the_first_one_counts(store, another_store):
    store.topics.learn(TOPIC, FIRST)
    another_store().topics.learn(TOPIC, FIRST._replace(partitions=9))
    assert store.topics.of(TOPIC) == [FIRST]


def test_how_many_partitions_the_ledger_was_told_of_is_remembered(store):
    store.topics.learn(TOPIC, FIRST)
    store.topics.announce("T1", 6)
    assert store.topics.of(TOPIC) == [FIRST._replace(announced=6)]
