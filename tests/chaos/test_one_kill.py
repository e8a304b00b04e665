"""One crash at the one point where a safeguard is all that stands between it and a wrong answer."""

from __future__ import annotations

import signal
import socket
import struct
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from farandole.errors import FarandoleError
from farandole.event import Record
from farandole.kafka import sink
from farandole.kafka.sink import Session
from tests.chaos.checker import Scene, read
from tests.chaos.world import World

pytestmark = pytest.mark.chaos


def killed_at(stack, folder: Path, pipeline: str, point: str) -> World:
    """A world whose only instance was killed at the point, with all its events still to do."""
    world = World(
        stack.bootstrap_servers, stack.registry_url, folder, f"sqlite:///{folder}/books.db", (pipeline,), partitions=2
    )
    world.create()
    world.produce(40, twice=0, bad=0)
    process = world.start(pipeline, FARANDOLE_KILL_AT=point)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        world.produce(5, twice=0, bad=0)
        time.sleep(0.2)
    assert process.poll() == -signal.SIGKILL, f"{point} was never passed"
    return world


@pytest.mark.parametrize("pipeline", ["Rows", "Calls"])
def test_what_sql_decided_is_published_by_the_successor(stack, tmp_path: Path, pipeline: str):
    world = killed_at(stack, tmp_path, pipeline, {"Rows": "sql.committed:3", "Calls": "outbox.committed:3"}[pipeline])
    world.start(pipeline)
    world.wait_drained(60)
    world.stop()
    assert world.judged(pipeline) == []


def test_what_kafka_knows_is_not_run_again_for_a_copy(stack, tmp_path: Path):
    # the first four say where each partition begins, and carry nothing
    world = killed_at(stack, tmp_path, "Events", "txn.committed:6")
    world.again(sorted(world.kinds) * 2)
    world.start("Events")
    world.wait_drained(60)
    world.stop()
    assert world.judged("Events") == []


# ---- a late end of a transaction


def asked(address: str, request: bytes) -> bytes:
    """One request to a broker, and its answer after the number that tells them apart."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))[0]
        return connection.recv(size, socket.MSG_WAITALL)[4:]


def producer_of(address: str, transactional_id: str) -> tuple[int, int]:
    """Producer id and epoch, as the coordinator has them: DescribeTransactions, version 0."""
    name = transactional_id.encode()
    request = struct.pack(">hhih", 65, 0, 7, -1) + b"\x00" + b"\x02" + bytes([len(name) + 1]) + name + b"\x00"
    answer = asked(address, request)
    at = answer.index(name) + len(name)  # behind it: its state, its timeout, when it started
    state = answer[at] - 1
    at += 1 + state + 4 + 8
    return struct.unpack(">qh", answer[at : at + 10])


def end_late(address: str, transactional_id: str, producer: tuple[int, int], *, commit: bool) -> int:
    """EndTxn, version 1, as the client sends it; the broker's verdict."""
    name = transactional_id.encode()
    body = struct.pack(">h", len(name)) + name + struct.pack(">qh?", *producer, commit)
    answer = asked(address, struct.pack(">hhih", 26, 1, 7, -1) + body)
    return struct.unpack(">ih", answer[:6])[1]


def test_a_late_end_of_an_earlier_transaction_ends_no_later_one(stack, monkeypatch):
    """The network delivers the abort of one transaction in the middle of the next one of the same partition."""
    address, topic, name = stack.bootstrap_servers, stack.unique("late"), stack.unique("session")
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, 1, 1, config={"max.message.bytes": "1000"})])[topic].result()
    consumer = Consumer({"bootstrap.servers": address, "group.id": stack.unique("group")})
    membership = consumer.consumer_group_metadata()
    session = Session(name, {"bootstrap.servers": address})
    session.publish([Record(topic, b"k", b"first")], None, membership, "")
    with pytest.raises(FarandoleError):  # the broker refuses it, and the transaction is aborted
        session.publish([Record(topic, b"k", b"good"), Record(topic, b"k", b"x" * 5000)], None, membership, "")
    then = producer_of(address, name)
    verdicts = []

    def late(point: str, **_: float) -> None:
        if point == "txn.ledger_produced":
            verdicts.append(end_late(address, name, then, commit=False))

    monkeypatch.setattr(sink, "point", late)
    session.publish([Record(topic, b"k", b"second")], None, membership, "")
    session.drop()
    consumer.close()

    assert verdicts == [47]  # an epoch that is over
    found = read(Scene(address, "", "", {}, {}), [topic])[topic]
    assert [message.value() for message in found] == [b"first", b"second"]
