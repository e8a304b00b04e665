"""Causes of "it did not run", injected on the real broker: `farandole why` names each, with the ids that prove it."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from farandole.cli import cli
from farandole.control import PAUSE, Command, pipeline_id
from farandole.event import Interval, Record
from farandole.expectation import Expectation, waived
from farandole.find import find_declaration
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.kafka.emitter import Emitter
from farandole.topics import EXPECTATIONS, own_schemas
from farandole.why import CAUSES, FINE
from tests.integration.runtime_world import said, until
from tests.integration.why_world import why_world


@pytest.fixture(scope="module")
def world(stack, tmp_path_factory):
    with why_world(stack, tmp_path_factory.mktemp("why")) as made:
        yield made


@dataclass
class Case:
    """What was done, and what `why` has to say: of which pipeline (a service or a class), where, and with which proof."""

    asked: str
    day: datetime
    proof: str = ""
    where: str = ""
    says: str = ""


# ---- the causes; each leaves its pipeline as the question finds it


def ran(world):
    day = world.day()
    event = world.sent("plain", day)
    world.ran("Plain", "done")
    return Case("Plain", day, event)


def caught(world):
    day = world.day()
    event = world.sent("plain", day, "foreseen")
    world.ran("Plain", "caught")
    return Case("Plain", day, event)


def dead(world):
    day = world.day()
    event = world.sent("plain", day, "bad")
    world.ran("Plain", "dead")
    return Case("Plain", day, event, says="ValueError: the rows of plain")


def quarantined(world):
    day = world.day()
    world.put(world.module.BROKEN, b"no avro", "k", world.headers("broken"))
    world.flush()
    world.ran("Broken", "dead")
    return Case("Broken", day, f"{world.name}-broken", says="cannot be read")


def parked(world):
    day = world.day()
    event = world.sent("parks", day)
    service = world.run("Parks")
    until(lambda: world.runs("Parks", "parked"))
    service.stop()
    return Case("Parks", day, event, says="OSError: the lake is locked")


def paused(world):
    group, day = world.group("Silent"), world.day()
    event = world.sent("silent", day)
    control = Control(world.bootstrap, Codec(world.registry, own_schemas()))
    control.give(
        Command(
            pipeline_id(group), PAUSE, group, actor="ada", reason="the lake is moved", at=time.time_ns() // 1_000_000
        )
    )
    world.run("Silent")
    until(lambda: world.said("pipeline.paused", "Silent"))
    return Case("Silent", day, event, says="paused by ada")


def no_instance(world):
    day = world.day()
    world.ran("Lost")
    event = world.sent("lost", day)
    return Case("Lost", day, event)


def breaker_open(world):
    day = world.day()
    events = [world.sent("asks", day, key=f"k{n}") for n in range(8)]
    world.module.api["down"] = True
    service = world.run("Asks")
    until(lambda: "breaker.opened" in world.facts("Asks"), 20)
    world.committed("Asks")
    return Case("Asks", day, events[0], says="rates-api is down"), service.stop


def behind(world):
    day = world.day()
    world.module.gate.clear()
    service = world.run("Slow")
    until(lambda: world.said("partitions.taken", "Slow"))
    event = world.sent("slow", day)

    def end():
        world.module.gate.set()
        service.stop()

    return Case("Slow", day, event, says="1 instance"), end


def missed(world):
    day = world.day()
    world.ran("Lost")
    event = world.sent("lost", day)
    group, topic = world.group("Lost"), world.module.SENT
    end = world._ends(topic)[0]
    _, mark = world.committed("Lost")[topic, 0]
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, end, mark)])
    for future in world.admin.alter_consumer_group_offsets([moved]).values():
        future.result()
    with sqlite3.connect(f"{world.folder}/books.db") as books:
        books.execute("UPDATE position SET next_offset = ? WHERE pipeline = ? AND epoch = 0", (end, group))
    return Case("Lost", day, event)


def waiting(world):
    day = world.day()
    event = world.sent("pair", day, "left")
    world.ran("Pair", "waiting")
    return Case("Pair", day, event, says="right")


def duplicate(world):
    day, other = world.day(), world.day()
    world.sent("once", day, key="same")
    world.ran("Once", "done")
    event = world.sent("once", other, key="same")
    world.ran("Once")
    return Case("Once", other, event)


def before_beginning(world):
    day = world.day()
    event = world.sent("now", day)
    world.ran("Now")
    return Case("Now", day, event)


def rewind_ignored(world):
    day = world.day()
    event = world.sent("back", day)
    world.ran("Back")
    moved = ConsumerGroupTopicPartitions(world.group("Back"), [TopicPartition(world.module.SENT, 0, 0)])
    for future in world.admin.alter_consumer_group_offsets([moved]).values():
        future.result()
    service = world.run("Back")
    until(lambda: "rewind.ignored" in world.facts("Back"))
    world.sent("back", world.day())  # something to commit
    world.wait_drained("Back")
    service.stop()
    return Case("Back", day, event)


def filtered(world):
    day = world.day()
    event = world.sent("strict", day, "draft")
    world.ran("Strict")
    return Case("Strict", day, event, says="not (kind == 'final'): kind = 'draft'")


def is_waived(world):
    day = world.day()
    row = Expectation(
        f"{world.name} waived", "e", "desk", day + timedelta(hours=30), Interval(day, day + timedelta(days=2)), f"{day:%Y-%m-%d}",
        interval=Interval(day, day + timedelta(days=1)), pipeline=world.group("Desk"),
    )  # fmt: skip
    value = Codec(world.registry, own_schemas()).encode(EXPECTATIONS, waived(row, "ada", "the desk is closed").record())
    Emitter(world.bootstrap).send([Record(EXPECTATIONS, row.key, value, [])])
    return Case("Desk", day, row.id, says="waived by ada: the desk is closed")


def no_deadline(world):
    return Case("Desk", world.day() + timedelta(days=5))  # a Saturday


def not_due(world):
    return Case("Plain", datetime(2199, 1, 1, tzinfo=UTC))


def gap(world):
    day = world.day()
    topic = world.module.SHORT
    world.sent("short", day - timedelta(days=1), topic=topic)
    world.ran("Short", "done")
    world.sent("short", day, topic=topic)
    for future in world.admin.delete_records([TopicPartition(topic, 0, world._ends(topic)[0])]).values():
        future.result()
    service = world.run("Short")
    try:
        stands = lambda: (world.facts("Short"), world.committed("Short"), world._ends(topic), service.error, said[-9:])  # noqa: E731
        until(lambda: "data.gap" in world.facts("Short"), 60, stands)
    finally:
        service.stop()  # else it would run the next event before that is deleted
    return Case("Short", day, says=topic)


def no_topic(world):
    return Case("Nowhere", world.day(), says=world.module.NOWHERE)


def no_tick(world):
    return Case("ticked", world.day(), says="schedule nightly had to tick")


def sent_nothing(world):
    day = world.day()
    event = world.sent("chain", day, "quiet")
    declaration = find_declaration("first")
    world.drain(declaration)
    return Case("third", day, event, where="first")


def late(world):
    day = world.day()
    event = world.sent("plain", day - timedelta(days=1))
    world.ran("Plain")
    return Case("Plain", day, event)


def never_sent(world):
    return Case("Quiet", world.day())


def upstream_of_upstream(world):
    """The fault of the first of three is what the third one did not run of."""
    day = world.day()
    event = world.sent("chain", day, "bad")
    world.drain(find_declaration("first"))
    return Case("third", day, event, where="first", says="ValueError")


def upstream_is_late(world):
    """The first of three waits for a feed from outside, and has done what another feed sent about the same day."""
    day = world.day()
    world.sent("beside", day)
    world.drain(find_declaration("first"))
    return Case("third", day, where="first")


def blind(world):
    day = world.day()
    world.projected()
    event = world.sent("plain", day)
    world.ran("Plain")
    return Case("Plain", day, event)


INJECTED = {
    ran: "ran", caught: "caught", dead: "dead", quarantined: "quarantined", parked: "parked", paused: "paused",
    no_instance: "no-instance", breaker_open: "breaker-open", behind: "behind", missed: "missed", waiting: "waiting",
    duplicate: "duplicate", before_beginning: "before-beginning", rewind_ignored: "rewind-ignored", filtered: "filtered",
    is_waived: "waived", no_deadline: "no-deadline", not_due: "not-due", gap: "gap", no_topic: "no-topic",
    no_tick: "no-tick", sent_nothing: "sent-nothing", late: "late", never_sent: "never-sent",
    upstream_of_upstream: "dead", upstream_is_late: "late", blind: "blind",
}  # fmt: skip


def ask(world, case: Case):
    target = case.asked if case.asked in world.module.CHAIN else f"{world.module.__name__}:{case.asked}"
    about = ["--for", f"{case.day:%Y-%m-%d}"]
    told = CliRunner().invoke(cli, ["why", target, *about, "-o", "json"], standalone_mode=False, catch_exceptions=False)
    return told.return_value, json.loads(told.stdout)


@pytest.mark.parametrize(("inject", "cause"), INJECTED.items(), ids=lambda one: getattr(one, "__name__", one))
def test_the_cause_that_was_injected_is_the_one_that_is_named(world, inject, cause, monkeypatch):
    case = inject(world)
    case, end = case if isinstance(case, tuple) else (case, lambda: None)
    try:
        if cause != "blind":
            world.projected()
        else:
            monkeypatch.setattr("farandole.cli.asking.AGAIN", 1)
        code, told = ask(world, case)
    finally:
        end()

    assert told["cause"] == cause, told
    assert code == (0 if cause in FINE else 3)
    assert told["means"] == CAUSES[cause]
    assert case.says in told["says"]
    assert case.proof in json.dumps(told["proof"])
    if case.where:
        assert told["pipeline"] == find_declaration(case.where).name
        assert told["chain"][0]["pipeline"] == find_declaration(case.asked).name
