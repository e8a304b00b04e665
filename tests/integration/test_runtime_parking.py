"""Runs that leave their partition: they come back when they are due, in order, whoever owns them by then."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
import sqlalchemy as sa

from farandole import settle
from farandole.deadletter import DeadLetter
from farandole.delivery import REDRIVE, RESOLVE, Delivery, retry_record
from farandole.event import RawRecord
from tests.integration.runtime_world import until


def tell(world, numbers, *, amount=0, key="a", identity="n{}"):
    topic = world.module.SENT
    for n in numbers:
        told = world.number(n, amount=amount, key=key)
        world.put(topic, world.frame(topic, told), key, world.headers(identity.format(n)))
    world.flush()


def prepared(world, pipeline, *, partitions=2):
    world.partitions = partitions
    world.create(pipeline)
    world.quick_session(pipeline)
    if pipeline == "BusyRows":
        engine = sa.create_engine(world.database)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE effect (n BIGINT)")
        engine.dispose()
    return world


def effects(world):
    engine = sa.create_engine(world.database)
    with engine.connect() as connection:
        found = Counter(row[0] for row in connection.exec_driver_sql("SELECT n FROM effect"))
    engine.dispose()
    return found


def by_key(world):
    found = {}
    for message in world.records(world.module.DOUBLED):
        found.setdefault(message.key().decode(), []).append(world.decode(message.topic(), message.value())["n"] // 2)
    return found


def ended(world, pipeline, count):
    def told():
        return sum(e["state"] in ("done", "dead", "resolved") for e in world.runs(pipeline)) == count

    until(told, 60, lambda: (Counter(e["state"] for e in world.runs(pipeline)), world.log()[-3000:]))


def test_a_parked_key_holds_up_nobody_and_keeps_its_order(world):
    prepared(world, "Busy")
    tell(world, [1], amount=5)
    tell(world, [2, 3])
    tell(world, range(100, 200), key="b")
    service = world.run("Busy")
    until(lambda: len(by_key(world).get("b", [])) == 100)
    assert "a" not in by_key(world)
    tell(world, [4])
    ended(world, "Busy", 104)

    assert by_key(world) == {"a": [1, 2, 3, 4], "b": list(range(100, 200))}
    states = Counter(
        (e["state"], e["detail"].get("behind") is not None) for e in world.entries("Busy") if e["kind"] == "run"
    )
    assert states[("parked", True)] == 3
    service.stop()
    world.wait_drained("Busy")


def test_what_comes_before_sql_was_told_of_a_parked_run_stands_behind_it_all_the_same(world, monkeypatch):
    prepared(world, "Busy")
    told = threading.Event()
    told.set()
    monkeypatch.setattr(settle, "point", lambda name, **_: told.wait(20) if name == "settle.before_commit" else None)
    service = world.run("Busy")
    tell(world, [0], key="b")
    until(lambda: by_key(world) == {"b": [0]})
    told.clear()
    tell(world, [1], amount=5)
    until(lambda: world.records(f"retry.{world.group('Busy')}"))
    tell(world, [2])
    inputs = [o for o in service.worker.owned.values() if o.topic == world.module.SENT]
    until(lambda: sum(o.seen for o in inputs) == 3)
    told.set()
    ended(world, "Busy", 3)
    service.stop()

    assert by_key(world) == {"a": [1, 2], "b": [0]}


@pytest.mark.parametrize("pipeline", ["Busy", "BusyRows", "BusyCalls"])
def test_a_parked_run_outlives_its_holder_and_runs_once(world, stack, pipeline):
    if pipeline != "Busy":
        world.database = stack.postgres_url()
    prepared(world, pipeline)
    tell(world, range(3), amount=6, key="a")
    tell(world, range(10, 13), amount=6, key="b")
    first = world.start(pipeline)
    until(lambda: len(world.runs(pipeline, "parked")) == 6, why=world.log)
    first.kill()
    first.wait()
    second = world.start(pipeline)
    until(lambda: any(" 5" in line for line in world.done()), 60, world.log)
    second.kill()
    second.wait()
    world.start(pipeline)
    ended(world, pipeline, 6)

    assert by_key(world) == {"a": [0, 1, 2], "b": [10, 11, 12]}
    attempts = {e["steps"][-1]["attempts"] for e in world.runs(pipeline, "done")}
    assert attempts == {7}
    if pipeline == "BusyRows":
        assert effects(world) == dict.fromkeys((0, 1, 2, 10, 11, 12), 1)


@pytest.mark.parametrize("point", ["hold.written", "txn.offsets_sent", "txn.committed", "settle.after_commit"])
def test_a_kill_between_hold_and_transaction_holds_no_key_for_ever(world, point):
    prepared(world, "Busy", partitions=1)
    tell(world, [1], amount=4)
    tell(world, [2, 3])
    killed = world.start("Busy", FARANDOLE_KILL_AT=f"{point}:{1 if point.startswith('hold') else 2}")
    assert killed.wait(60) == -9
    world.start("Busy")
    tell(world, [4])
    ended(world, "Busy", 4)
    assert by_key(world) == {"a": [1, 2, 3, 4]}


def test_runs_are_due_when_they_say_whatever_stands_before_them(world):
    prepared(world, "Busy", partitions=1)
    for n in range(300):
        tell(world, [n], amount=4 if n % 3 else 3, key=f"k{n}")
    world.run("Busy")
    ended(world, "Busy", 300)

    late = []
    entries = [e for e in world.entries("Busy") if e["kind"] == "run"]
    for run in {e["id"] for e in entries}:
        own = [e for e in entries if e["id"] == run]
        for parked, then in pairwise(own):
            late.append((then["steps"][-1]["started_at"] - parked["due"]).total_seconds())
    assert max(late) < 2.0, max(late)
    assert min(late) > -0.1


def letters(world, pipeline):
    topic = world.declaration(pipeline).dead_letter_topic
    return [
        DeadLetter.of(RawRecord(topic, "", m.partition(), m.offset(), 0, m.key(), m.value(), m.headers()))
        for m in world.letters(pipeline)
    ]


def bring_back(world, pipeline, letter, kind=REDRIVE, **more):
    own = [h for h in letter.raw.headers if not h[0].startswith(("__dlq.", "farandole-dlq-"))]
    event = RawRecord("", "", 0, 0, 0, letter.raw.key, letter.raw.value, own)
    delivery = Delivery(
        kind, letter.run_id, letter.key, letter.topic, letter.topic_id, letter.partition, letter.offset,
        life=letter.life + 1, **more,
    )  # fmt: skip
    record = retry_record(world.declaration(pipeline).retry_topic, world.partitions, event, delivery)
    world.producer.produce(record.topic, record.value, record.key, record.partition, headers=record.headers)
    world.flush()


def test_letters_sent_back_twice_by_two_tools_run_once_each_under_kills(world):
    prepared(world, "Double")
    world.send(range(20), kind="bad")
    first = world.start("Double")
    ended(world, "Double", 20)
    world.module = world.load()
    for letter in letters(world, "Double") * 2:
        bring_back(world, "Double", letter)
    time.sleep(0.3)
    first.kill()
    first.wait()
    world.start("Double")
    until(lambda: sum(e["life"] == 1 for e in world.runs("Double", "dead")) == 20, 60, world.log)
    world.wait_drained("Double")

    assert Counter(letter.life for letter in letters(world, "Double")) == {0: 20, 1: 20}
    for letter in letters(world, "Double"):
        if letter.life == 1:
            bring_back(world, "Double", letter, RESOLVE, actor="ann@desk", reason="known")
    until(lambda: len(world.runs("Double", "resolved")) == 20, 30, world.log)
    assert {e["detail"]["reason"] for e in world.runs("Double", "resolved")} == {"known"}
