"""What topology files may say, and how a mistake in them is told."""

from __future__ import annotations

import json

import pytest

from farandole.declaration import Declaration, Retry, Step, Subscription
from farandole.errors import DeclarationError
from farandole.topology.desired import read_desired

DEFAULTS = "defaults: {partitions: 6, retention: 30d}\n"
LOCAL = "replication: 1\nmin_insync_replicas: 1\n"
RECORD = {"type": "record", "name": "Happened", "fields": []}


@pytest.fixture
def repository(tmp_path):
    """A repository with one event type; give the text of its files."""

    def write(topics: str = DEFAULTS, cluster: str = LOCAL, event_types=("a.b.happened.v1",)):
        (tmp_path / "topology/clusters").mkdir(parents=True, exist_ok=True)
        (tmp_path / "schemas/avro").mkdir(parents=True, exist_ok=True)
        (tmp_path / "topology/topics.yaml").write_text(topics)
        (tmp_path / "topology/clusters/local.yaml").write_text(cluster)
        for name in event_types:
            (tmp_path / f"schemas/avro/{name}.avsc").write_text(json.dumps(RECORD))
        return tmp_path

    return write


def pipeline(name="p", listens="a.b.happened.v1", since="beginning", backoff="1s..30s"):
    step = Step("step", "handlers:step", retry=Retry(backoff=backoff))
    return Declaration(name, "", since, (Subscription("it", listens),), (step,), source="services/p/pipeline.yaml:1")


def topics_of(desired):
    return {topic.name: topic for topic in desired.topics}


def test_an_event_type_has_a_topic_with_the_defaults(repository):
    topic = topics_of(read_desired(repository(), []))["a.b.happened.v1"]

    assert (topic.partitions, topic.replication) == (6, 1)
    assert topic.settings == {
        "cleanup.policy": "delete",
        "message.timestamp.type": "CreateTime",
        "retention.ms": "2592000000",
        "min.insync.replicas": "1",
        "unclean.leader.election.enable": "false",
    }


def test_the_ledger_is_compacted_and_takes_the_brokers_time(repository):
    said = DEFAULTS + "topics: {farandole.ledger.v1: {partitions: 12, retention: 400d}}\n"
    ledger = topics_of(read_desired(repository(said, event_types=["farandole.ledger.v1"]), []))["farandole.ledger.v1"]

    assert ledger.partitions == 12
    assert ledger.settings["cleanup.policy"] == "compact,delete"
    assert ledger.settings["message.timestamp.type"] == "LogAppendTime"
    assert ledger.settings["min.compaction.lag.ms"] == "3600000"
    assert ledger.settings["retention.ms"] == str(400 * 86_400_000)
    assert ledger.settings["delete.retention.ms"] == str(7 * 86_400_000)


def test_every_repository_has_the_topics_that_steer_its_services(repository):
    desired = read_desired(repository(), [])
    control, audit = (topics_of(desired)[f"farandole.{name}.v1"] for name in ("control", "audit"))

    assert (control.partitions, control.settings["cleanup.policy"]) == (1, "compact")
    assert (audit.settings["cleanup.policy"], audit.settings["retention.ms"]) == ("delete", "-1")
    assert {"farandole.control.v1-value", "farandole.audit.v1-value"} <= {s.name for s in desired.subjects}


def test_letters_are_kept_longer_than_anything_can_be_parked(repository):
    topics = topics_of(read_desired(repository(), [pipeline(backoff="1m..40d")]))

    assert topics["retry.p"].settings["retention.ms"] == str(47 * 86_400_000)
    assert topics["dlq.p"].settings["retention.ms"] == str(30 * 86_400_000)
    assert topics["dlq.p"].settings["message.timestamp.type"] == "LogAppendTime"
    assert topics["dlq.p"].inputs == ("a.b.happened.v1",)


def test_a_group_begins_its_own_retries_at_the_beginning_whatever_it_says(repository):
    (group,) = read_desired(repository(), [pipeline(since="now")]).groups
    assert group.begins == {"a.b.happened.v1": "now", "retry.p": "beginning"}


def test_since_may_be_a_time_which_is_utc_unless_it_says_otherwise(repository):
    groups = read_desired(
        repository(), [pipeline("p", since="2013-01-01"), pipeline("q", since="2013-01-01T01:00+01:00")]
    )
    assert [group.begins["a.b.happened.v1"] for group in groups.groups] == [1_356_998_400_000] * 2


@pytest.mark.parametrize(
    ("topics", "place", "words", "hint"),
    [
        ("", ":1", "lacks `partitions`", "partitions: 6"),
        ("defaults: {partitions: 6}\n", ":1", "lacks `retention`", "30d"),
        ("defaults:\n  partitions: 6\n  retention: 30\n", ":3", "no span of time", "30d"),
        ("defaults:\n  partitions: six\n  retention: 30d\n", ":2", "no number of partitions", "6"),
        (
            "defaults: {partitions: 6, retention: 30d}\ntopics:\n  a.b.hapened.v1: {}\n",
            ":3",
            "has a topic",
            "a.b.happened.v1",
        ),
        (DEFAULTS + "topics:\n  a.b.happened.v1:\n    partition: 3\n", ":4", "unknown key `partition`", "`partitions`"),
        (
            DEFAULTS + "topics:\n  a.b.happened.v1:\n    settings:\n      retention.ms: 1\n",
            ":5",
            "not set here",
            "retention",
        ),
        (DEFAULTS + "topics:\n  dlq.p:\n    retention: 3d\n", ":4", "too short", "30d"),
        ("defaults: {partitions: 6\nretention: 30d}\n  x", ":2", "malformed YAML", "indentation"),
        ("- a\n", ":1", "no mapping", "name: value"),
        (DEFAULTS + "topic: {}\n", ":2", "unknown key `topic`", "`topics`"),
    ],
)
def test_a_mistake_in_topics_is_told_with_its_line_and_remedy(repository, topics, place, words, hint):
    root = repository(topics)
    with pytest.raises(DeclarationError) as raised:
        read_desired(root, [pipeline()])
    assert raised.value.place.endswith(f"topics.yaml{place}")
    assert words in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ("replication: 1\n", "min_insync_replicas"),
        ("replication: 1\nmin_insync_replicas: 2\n", "can never be in sync"),
        ("replication: none\nmin_insync_replicas: 1\n", "number of replicas"),
    ],
)
def test_a_mistake_in_a_cluster_is_told(repository, cluster, words):
    with pytest.raises(DeclarationError, match=words):
        read_desired(repository(cluster=cluster), [])


def test_an_unknown_cluster_is_told_with_those_that_there_are(repository):
    with pytest.raises(DeclarationError) as raised:
        read_desired(repository(), [], cluster="prod")
    assert "local" in raised.value.hint


def test_a_missing_topics_file_is_told(tmp_path):
    with pytest.raises(DeclarationError, match="missing"):
        read_desired(tmp_path, [])


def test_a_pipeline_that_listens_for_what_has_no_schema_is_told_with_the_nearest(repository):
    with pytest.raises(DeclarationError) as raised:
        read_desired(repository(), [pipeline(listens="a.b.hapened.v1")])
    assert raised.value.place == "services/p/pipeline.yaml:1"
    assert "a.b.happened.v1" in raised.value.hint


def test_a_since_that_is_no_time_is_told(repository):
    with pytest.raises(DeclarationError, match="no time"):
        read_desired(repository(), [pipeline(since="yesterday")])


TICKED = "clock.ticked.v1"


def test_the_newest_tick_of_a_schedule_outlives_retention(repository):
    def settings_of(said: str) -> dict[str, str]:
        return topics_of(read_desired(repository(DEFAULTS + said, event_types=[TICKED]), []))[TICKED].settings

    assert settings_of("") == {
        "cleanup.policy": "compact",
        "message.timestamp.type": "CreateTime",
        "retention.ms": "2592000000",
        "min.compaction.lag.ms": "2592000000",
        "min.insync.replicas": "1",
        "unclean.leader.election.enable": "false",
    }
    assert settings_of("topics: {clock.ticked.v1: {retention: forever}}\n")["cleanup.policy"] == "delete"


def test_a_schedule_that_is_wrong_stops_topology(repository):
    root = repository(event_types=[TICKED])
    (root / "topology/schedules.yaml").write_text("schedules:\n  nightly: {cron: x, zone: UTC, since: 2026-01-01}\n")

    with pytest.raises(DeclarationError) as caught:
        read_desired(root, [])

    assert caught.value.place.endswith("topology/schedules.yaml:2:19")
    assert "five fields" in caught.value.hint
