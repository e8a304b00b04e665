"""Plan and apply against a real broker and a real registry."""

from __future__ import annotations

import json
import threading
import time

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer

from farandole.cli.topology import topology as command
from farandole.errors import BrokerUnreachable, FarandoleError, RegistryUnreachable, SettingsError
from farandole.kafka.admin import Admin
from farandole.kafka.registry import Registry
from farandole.topics import SEED_MARK
from farandole.topology.actual import Actual
from farandole.topology.apply import apply
from farandole.topology.desired import Desired, WantedGroup, WantedSubject, WantedTopic
from farandole.topology.evolution import conflicts
from farandole.topology.plan import make_plan
from farandole.topology.topology import Topology

SETTINGS = {"cleanup.policy": "delete", "retention.ms": "86400000", "message.timestamp.type": "CreateTime"}
SOON = time.time_ns() // 1_000_000 - 60_000  # within retention, so that no cleaner comes between
RECORD = {"type": "record", "name": "Happened", "fields": [{"name": "x", "type": "string", "doc": "what"}]}


@pytest.fixture(scope="module")
def admin(stack):
    return Admin(stack.bootstrap_servers)


@pytest.fixture(scope="module")
def registry(stack):
    client = Registry(stack.registry_url)
    yield client
    client.close()


@pytest.fixture
def name(stack):
    return stack.unique("topo") + ".v1"


def topic(name, partitions=2, **settings):
    return WantedTopic(name, partitions, 1, {**SETTINGS, **settings})


def topology(admin, registry, *, topics=(), subjects=(), groups=()):
    return Topology(Desired(tuple(topics), tuple(subjects), tuple(groups)), admin, registry)


def bring_about(wanted, **arguments):
    told = []
    wanted.apply(wanted.plan(**arguments), made=told.append)
    return [change.act for change in told]


def produce(stack, name, count):
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers})
    for number in range(count):
        producer.produce(name, b"x", partition=number % 2, timestamp=SOON + number)
    producer.flush()


def test_a_second_apply_has_nothing_to_do(admin, registry, name):
    wanted = topology(
        admin,
        registry,
        topics=[topic(name)],
        subjects=[WantedSubject(f"{name}-value", RECORD)],
        groups=[WantedGroup(f"group-{name}", {name: "beginning"})],
    )

    first = bring_about(wanted)
    second = bring_about(wanted)

    assert first == ["create topic", "register schema", "seed offsets"]
    assert second == []
    assert registry.compatibility(f"{name}-value") == "BACKWARD_TRANSITIVE"


def test_a_topic_keeps_its_identity_and_records_through_every_apply(stack, admin, registry, name):
    bring_about(topology(admin, registry, topics=[topic(name)]))
    produce(stack, name, 4)
    before = admin.topic_ids([name])

    acts = bring_about(
        topology(admin, registry, topics=[topic(name, 3, **{"retention.ms": "-1"})]), accept_reorder=True
    )

    assert acts == ["alter topic", "add partitions"]
    assert admin.topic_ids([name]) == before
    assert admin.configs([name])[name]["retention.ms"] == "-1"
    assert admin.ends([(name, 0), (name, 1), (name, 2)], committed=False) == {(name, 0): 2, (name, 1): 2, (name, 2): 0}


def test_more_partitions_are_refused_and_then_nothing_at_all_is_done(admin, registry, name):
    bring_about(topology(admin, registry, topics=[topic(name)]))
    wanted = topology(admin, registry, topics=[topic(name, 5, **{"retention.ms": "-1"})])

    with pytest.raises(FarandoleError, match="move record keys"):
        wanted.apply(wanted.plan())

    assert admin.partitions([name]) == {name: 2}
    assert admin.configs([name])[name]["retention.ms"] == "86400000"


def test_a_new_group_begins_where_its_declaration_says(stack, admin, registry, name):
    bring_about(topology(admin, registry, topics=[topic(name)]))
    produce(stack, name, 10)

    for begin in ("beginning", "now", SOON + 4):
        group = WantedGroup(f"{begin}-{name}", {name: begin})
        bring_about(topology(admin, registry, topics=[topic(name)], groups=[group]))

    found = {begin: admin.committed(f"{begin}-{name}") for begin in ("beginning", "now", SOON + 4)}
    assert {begin: [o.offset for _, o in sorted(c.items())] for begin, c in found.items()} == {
        "beginning": [0, 0],
        "now": [5, 5],
        SOON + 4: [2, 2],
    }
    assert {o.metadata for c in found.values() for o in c.values()} == {SEED_MARK}


def test_offsets_that_a_group_has_committed_are_never_moved(stack, admin, registry, name):
    bring_about(topology(admin, registry, topics=[topic(name)]))
    produce(stack, name, 10)
    admin.seed(f"group-{name}", {(name, 1): 3}, "by somebody")

    bring_about(topology(admin, registry, topics=[topic(name)], groups=[WantedGroup(f"group-{name}", {name: "now"})]))

    committed = admin.committed(f"group-{name}")
    assert (committed[name, 1].offset, committed[name, 1].metadata) == (3, "by somebody")
    assert committed[name, 0].offset == 5


def test_a_group_with_members_is_left_alone(stack, admin, registry, name):
    bring_about(topology(admin, registry, topics=[topic(name)]))
    assigned = threading.Event()
    member = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": name, "group.protocol": "consumer"})
    member.subscribe([name], on_assign=lambda *_: assigned.set())
    try:
        for _ in range(60):
            member.poll(0.5)
            if assigned.is_set():
                break
        plan = topology(admin, registry, topics=[topic(name)], groups=[WantedGroup(name, {name: "now"})]).plan()
    finally:
        member.close()

    assert assigned.is_set()
    assert plan.changes == ()


def test_an_incompatible_schema_is_refused_with_the_field_and_the_remedy(admin, registry, name):
    subject = f"{name}-value"
    bring_about(topology(admin, registry, topics=[topic(name)], subjects=[WantedSubject(subject, RECORD)]))
    broken = {**RECORD, "fields": [*RECORD["fields"], {"name": "y", "type": "int"}]}

    (change,) = (
        topology(admin, registry, topics=[topic(name)], subjects=[WantedSubject(subject, broken)]).plan().changes
    )

    assert change.target == subject
    assert "`y`" in change.refused
    assert "default" in change.hint


def test_a_field_with_a_default_becomes_the_next_version(admin, registry, name):
    subject = f"{name}-value"
    bring_about(topology(admin, registry, subjects=[WantedSubject(subject, RECORD)]))
    newer = {**RECORD, "fields": [*RECORD["fields"], {"name": "y", "type": "int", "default": 0}]}

    bring_about(topology(admin, registry, subjects=[WantedSubject(subject, newer)]))

    assert registry.versions(subject) == (RECORD, newer)


EVOLUTIONS = [
    ({"name": "x", "type": "long"}, {"name": "x", "type": "int"}),
    ({"name": "x", "type": "int"}, {"name": "x", "type": "long"}),
    ({"name": "x", "type": ["null", "string"], "default": None}, {"name": "x", "type": "string"}),
    ({"name": "x", "type": "string"}, {"name": "x", "type": ["null", "string"], "default": None}),
    ({"name": "y", "type": "string", "aliases": ["x"]}, {"name": "x", "type": "string"}),
    (
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["A"]}},
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
    ),
    (
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"}},
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "A"}},
    ),
    (
        {"name": "x", "type": {"type": "array", "items": "string"}},
        {"name": "x", "type": {"type": "array", "items": "int"}},
    ),
    (
        {"name": "x", "type": {"type": "map", "values": "double"}},
        {"name": "x", "type": {"type": "map", "values": "int"}},
    ),
]


@pytest.mark.parametrize(("new", "old"), EVOLUTIONS)
def test_our_verdict_on_a_schema_is_the_registrys(registry, name, new, old):
    subject = f"{name}-value"
    older, newer = ({"type": "record", "name": "Happened", "fields": [field]} for field in (old, new))
    registry.set_compatibility(subject, "BACKWARD_TRANSITIVE")
    registry.register(subject, older)

    ours = conflicts(newer, older)
    taken, _ = registry.compatible(subject, newer)

    assert (not ours) == taken


def test_a_broker_that_is_away_is_named_with_its_address():
    with pytest.raises(BrokerUnreachable) as raised:
        Admin("127.0.0.1:1", timeout=1).cluster_id()
    assert "127.0.0.1:1" in raised.value.place
    assert "farandole up" in raised.value.hint


def test_a_registry_that_is_away_is_told_apart_from_the_broker(admin, name):
    subject = WantedSubject(f"{name}-value", RECORD)
    with (
        topology(admin, Registry("http://127.0.0.1:1"), subjects=[subject]) as wanted,
        pytest.raises(RegistryUnreachable),
    ):
        wanted.plan()


def test_wrong_credentials_are_told_apart_from_a_broker_that_is_away(stack):
    user = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "nobody",
        "sasl.password": "nothing",
    }
    with pytest.raises(SettingsError) as raised:
        Admin(stack.bootstrap_servers, user, timeout=3).cluster_id()
    assert "KAFKA_SASL_USERNAME" in raised.value.hint


def test_a_setting_the_broker_does_not_take_is_told_with_the_topic(admin, name):
    plan = make_plan(Desired((topic(name, **{"segment.bytes": "many"}),)), Actual())
    with pytest.raises(FarandoleError, match=name):
        apply(plan, admin, None)


def test_the_commands_plan_apply_and_leave_with_the_right_codes(stack, tmp_path, monkeypatch, name):
    (tmp_path / "topology/clusters").mkdir(parents=True)
    (tmp_path / "schemas/avro").mkdir(parents=True)
    event_type = f"t{stack.unique('x')}.thing.happened.v1"
    (tmp_path / "topology/topics.yaml").write_text("defaults: {partitions: 1, retention: 1d}\n")
    (tmp_path / "topology/clusters/local.yaml").write_text("replication: 1\nmin_insync_replicas: 1\n")
    (tmp_path / f"schemas/avro/{event_type}.avsc").write_text(json.dumps(RECORD))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", stack.bootstrap_servers)
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", stack.registry_url)

    def run(*arguments):
        result = CliRunner().invoke(command, arguments, standalone_mode=False)
        assert result.exception is None, result.exception
        return result.return_value, result.output

    code, words = run("plan", "--detailed-exitcode")
    assert code == 2
    assert event_type in words
    code, words = run("apply")
    assert code == 0
    assert "0 deleted" in words
    assert run("plan", "--detailed-exitcode") == (
        0,
        "Nothing to do: what stands is what the repository says.\n",
    )
