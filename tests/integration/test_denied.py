"""A pipeline that may not read its topic or write its ledger looks quiet: the sweep says that it is denied."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from farandole.topics import LEDGER
from tests.conftest import own_servers
from tests.integration.runtime_world import until
from tests.integration.test_findings import sweep
from tests.integration.test_why import Case, ask
from tests.integration.why_world import why_world

GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
NOBODY, MERGER = "User:ANONYMOUS", "User:merger"
READ, WRITE, ALL = AclOperation.READ, AclOperation.WRITE, AclOperation.ALL


@pytest.fixture(scope="module")
def stack():
    """A broker with an authorizer, and a registry."""
    with own_servers() as servers:
        servers.launcher.start_kafka(properties=GUARDED)
        yield servers


@contextmanager
def acls(world, *bindings):
    """ACLs until the end of the block: resource, operation, principal, and whether it is allowed."""
    admin = AdminClient({"bootstrap.servers": world.bootstrap, "log_level": 0})
    made = [
        AclBinding(kind, name, ResourcePatternType.LITERAL, who, "*", operation, permission)
        for kind, name, operation, who, permission in bindings
    ]
    for future in admin.create_acls(made).values():
        future.result()
    try:
        yield
    finally:
        gone = [
            AclBindingFilter(
                kind, name, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
            )
            for kind, name in dict.fromkeys((kind, name) for kind, name, *_ in bindings)
        ]
        for future in admin.delete_acls(gone).values():
            future.result()


def allowed(kind, name, who=NOBODY, operation=ALL):
    return kind, name, operation, who, AclPermissionType.ALLOW


def denied(kind, name, operation, who=NOBODY):
    return kind, name, operation, who, AclPermissionType.DENY


def said(world):
    (swept,) = sweep(world, world.declaration("Double"))
    return swept, [one.says for one in swept.findings.standing if one.kind == "denied"]


def test_who_may_not_read_the_topic_or_write_the_ledger_is_told_once_and_when_it_may_again(world):
    world.create("Double")
    world.send(range(5))
    world.drain("Double")
    topic = ResourceType.TOPIC
    assert said(world)[1] == [], "nobody is denied anything"
    with acls(
        world,
        allowed(topic, world.module.SENT), denied(topic, world.module.SENT, READ),
        allowed(topic, LEDGER), denied(topic, LEDGER, WRITE),
    ):  # fmt: skip
        swept, told = until(lambda: (now := said(world))[1][1:] and now)
        who = "who connects as this command or service does may not"
        assert told[:2] == [f"{who} Read topic {world.module.SENT}", f"{who} Write topic {LEDGER}"]
        assert not swept.whole
        assert not said(world)[0].findings.changed
    swept, told = until(lambda: not (now := said(world))[1] and now)
    assert len(swept.findings.ended) >= 2


def test_a_topic_that_may_not_even_be_looked_at_is_told_as_denied(world):
    world.create("Double")
    world.drain("Double")
    with acls(world, denied(ResourceType.TOPIC, world.module.SENT, ALL)):
        swept, told = until(lambda: (now := said(world))[1] and now)
        assert told == [f"who connects as this command or service does may not Read topic {world.module.SENT}"]
        assert "not allowed to describe topic" in swept.note
        again, _ = said(world)
        assert not again.findings.changed
        double = world.declaration("Double")
        *_, listened = sweep(world, double, everybody=[double])
        assert "not allowed to describe topic" in listened.note, "one that may not be looked at ends no sweep"
        assert again.entry().id.split(":")[-1].startswith("day-"), "it was told before"


def test_a_principal_of_the_pipelines_own_is_known_by_its_group(world):
    world.create("Double")
    group, topic = world.group("Double"), ResourceType.TOPIC
    own = [
        allowed(ResourceType.GROUP, group, MERGER, READ), allowed(ResourceType.GROUP, group),
        allowed(topic, world.module.SENT, MERGER, READ), allowed(topic, world.module.SENT),
    ]  # fmt: skip
    with acls(world, *own):
        assert said(world)[1] == []
    with acls(world, *own[:2], own[3]):
        _, told = until(lambda: (now := said(world))[1] and now)
        assert told == [f"{MERGER} may not Read topic {world.module.SENT}"]


def test_why_names_the_denial_whether_the_question_can_be_answered_or_not(stack, tmp_path):
    with why_world(stack, tmp_path) as world:
        day, topic, group = world.day(), ResourceType.TOPIC, (ResourceType.GROUP, world.group("Plain"))
        event = world.sent("plain", day)
        world.projected()
        case = Case("Plain", day)
        code, told = ask(world, case)
        assert (code, told["cause"]) == (3, "no-instance")
        with acls(world, allowed(*group, MERGER, READ), allowed(*group), allowed(topic, world.module.SENT)):
            _, told = until(lambda: (now := ask(world, case))[1]["cause"] == "denied" and now)
            assert told["says"] == f"{MERGER} may not Read topic {world.module.SENT}"
            assert event in json.dumps(told["proof"])
        with acls(world, denied(topic, world.module.SENT, ALL)):
            code, told = until(lambda: (now := ask(world, case))[1]["cause"] == "denied" and now)
            assert code == 3
            assert told["says"].endswith(f"may not Read topic {world.module.SENT}")
        until(lambda: ask(world, case)[1]["cause"] == "no-instance")
