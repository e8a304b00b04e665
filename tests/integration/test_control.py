"""Commands on the real topic: who gives them, and what a reader finds."""

from __future__ import annotations

import pytest

from farandole.control import PAUSE, PLAN, PROGRESS, RESUME, Command, pipeline_id, plan_id
from farandole.errors import FarandoleError
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.topics import AUDIT, CONTROL, own_schemas


@pytest.fixture(scope="module")
def codec(stack):
    registry = Registry(stack.registry_url)
    for topic in (CONTROL, AUDIT):
        registry.register(f"{topic}-value", own_schemas()[topic])
    yield Codec(registry, own_schemas(), trusted=own_schemas())
    registry.close()


@pytest.fixture
def control(stack, codec):
    admin = Admin(stack.bootstrap_servers)
    for topic, policy in ((CONTROL, "compact"), (AUDIT, "delete")):
        admin.create(topic, partitions=1, replication=1, settings={"cleanup.policy": policy})
    return Control(stack.bootstrap_servers, codec)


def test_of_the_commands_with_one_id_the_newest_stands_and_the_audit_keeps_them_all(stack, codec, control):
    name = stack.unique("steered")
    paused = Command(pipeline_id(name), PAUSE, name, actor="ada", reason="the lake is full", at=1)
    resumed = Command(pipeline_id(name), RESUME, name, actor="bob", reason="it was emptied", at=2)

    control.give(paused)
    control.give(resumed)

    assert control.load(pipeline_id(name)) == {pipeline_id(name): resumed}
    with TopicReader(stack.bootstrap_servers, AUDIT) as reader:
        kept = [r for batch in reader.read(reader.starts(), until=reader.ends()) for r in batch]
    assert [Command.of(codec.decode(AUDIT, r.value)) for r in kept if r.key == paused.key] == [paused, resumed]


def test_notes_of_a_plan_are_found_by_the_beginning_of_their_id_until_they_are_forgotten(stack, control):
    plan = stack.unique("plan")
    notes = [
        Command(plan_id(plan), PLAN, "p", detail={"rate": "20"}),
        *(Command(plan_id(plan, part), PROGRESS, "p", ids=(f"letter-{part}",)) for part in range(3)),
    ]

    control.save(*notes)
    assert list(control.load(plan_id(plan)).values()) == notes

    control.forget([plan_id(plan, 1)])
    assert plan_id(plan, 1) not in control.load(plan_id(plan))


def test_a_cluster_without_the_topic_is_told_with_the_remedy(stack, codec, monkeypatch):
    monkeypatch.setattr("farandole.kafka.control.CONTROL", "farandole.control.v0")
    with pytest.raises(FarandoleError) as raised:
        Control(stack.bootstrap_servers, codec).save(Command("x", PLAN))
    assert "farandole.control.v0" in raised.value.message
    assert "topology apply" in raised.value.hint
