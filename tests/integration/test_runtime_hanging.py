"""Transactions that hang: a real producer begins one and never ends it. It is named, and who waits for it says so."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Producer

from farandole import watch
from farandole.kafka.admin import Admin
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from tests.integration.runtime_world import until


class Hanging:
    """A transaction of somebody else, with one record on a partition, until it is let go."""

    def __init__(self, world, topic, partition):
        settings = {"bootstrap.servers": world.bootstrap, "transaction.timeout.ms": 600_000, "log_level": 0}
        self.producer = Producer({**settings, "transactional.id": uuid.uuid4().hex})
        self.producer.init_transactions()
        self.producer.begin_transaction()
        self.producer.produce(topic, b"never ends", b"a key", partition, on_delivery=self._told)
        self.producer.flush()
        assert self.there
        self.open = True

    def _told(self, error, _message):
        self.there = error is None

    def let_go(self):
        if self.open:
            self.producer.abort_transaction()
            self.open = False


@pytest.fixture
def hang(world):
    """Begin a transaction on a partition; whatever still hangs at the end is let go."""
    begun = []

    def begin(topic, partition):
        begun.append(Hanging(world, topic, partition))
        return begun[-1]

    yield begin
    for one in begun:
        one.let_go()


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch):
    monkeypatch.setattr(watch, "LOOK", 0.3)
    monkeypatch.setattr(watch, "STUCK", 2.0)
    monkeypatch.setattr(watch, "FOREIGN_STUCK", 2.0)


def own_ledger(world):
    """The ledger partition of Double."""
    count = Admin(world.bootstrap).partitions([LEDGER_TOPIC])[LEDGER_TOPIC]
    return ledger_partition(world.group("Double"), count)


def stuck(world):
    return {(line["topic"], line["partition"]): line for line in world.said("lso.stuck")}


def test_a_transaction_that_hangs_in_the_ledger_is_named_with_the_remedy_and_stops_nobody_who_writes(world, hang):
    world.create("Double")
    at = own_ledger(world)
    world.send(range(10))
    service = world.run("Double")
    until(lambda: len(world.outputs()) == 10)
    stable = Admin(world.bootstrap).ends([(LEDGER_TOPIC, at)], committed=True)[LEDGER_TOPIC, at]
    hanging = hang(LEDGER_TOPIC, at)

    line = until(lambda: stuck(world).get((LEDGER_TOPIC, str(at))))
    assert int(line["offset"]) >= stable
    assert f"abort --topic {LEDGER_TOPIC} --partition {at} --start-offset {line['offset']}" in line["remedy"]
    assert world.bootstrap in line["remedy"]
    world.send(range(10, 20))
    until(lambda: len(world.outputs()) == 20)  # what only writes there goes on
    world.wait_drained("Double")
    hanging.let_go()
    until(lambda: "lso.stuck" in world.facts("Double"))  # written while it hung, and readable now
    assert world.facts("Double")["lso.stuck"]["partition"] == str(at)
    service.stop()


def test_a_takeover_that_waits_for_a_transaction_says_so_while_it_waits(world, hang, monkeypatch):
    monkeypatch.setattr("farandole.service.PATIENCE", 1.0)
    world.create("Double")
    world.send(range(10))
    world.drain("Double")
    hanging = hang(LEDGER_TOPIC, own_ledger(world))
    world.send([10])
    service = world.run("Double")

    [line, *_] = until(lambda: world.said("takeover.waits"))
    assert f"an open transaction holds {LEDGER_TOPIC}[{own_ledger(world)}]" in line["error"]
    until(lambda: stuck(world))
    assert world.outputs() == [2 * n for n in range(10)]
    hanging.let_go()
    until(lambda: len(world.outputs()) == 11)
    service.stop()
    assert world.outputs() == [2 * n for n in range(11)]


def test_a_transaction_that_hangs_in_another_ledger_partition_is_not_waited_for(world, hang):
    world.create("Double")
    world.send(range(10))
    hang(LEDGER_TOPIC, (own_ledger(world) + 1) % 12)
    world.drain("Double")
    assert world.outputs() == [2 * n for n in range(10)]
    assert not world.said("takeover.waits")


def test_a_transaction_that_hangs_in_an_input_is_named_and_what_stands_behind_it_waits(world, hang):
    world.create("Double")
    service = world.run("Double")
    world.send(range(10), partition=0)
    until(lambda: len(world.outputs()) == 10)
    hanging = hang(world.module.SENT, 0)
    world.send([10, 11], partition=0)
    world.send([12], partition=1)

    line = until(lambda: stuck(world).get((world.module.SENT, "0")))
    assert line["offset"] == "10"
    fact = until(lambda: world.facts("Double").get("lso.stuck"))
    assert (fact["topic"], fact["partition"], fact["offset"]) == (world.module.SENT, "0", "10")
    assert (world.module.SENT, "1") not in stuck(world)
    assert world.outputs() == [2 * n for n in [*range(10), 12]]
    hanging.let_go()
    until(lambda: len(world.outputs()) == 13)
    world.wait_drained("Double")
    service.stop()
