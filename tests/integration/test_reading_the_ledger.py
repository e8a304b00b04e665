"""The ledger on a real broker: read whole, read on, read anew, and what happens when it is not what it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer

from farandole.clock import SystemClock
from farandole.errors import FarandoleError
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.database import drop_projection, open_projection
from farandole.ledger.entry import Entry, ledger_partition, ledger_schema
from farandole.ledger.projector import Projector
from farandole.ledger.queries import checked_at, facts, run_shown, runs
from farandole.ledger.rebuild import rebuild

START = datetime(2013, 1, 1, tzinfo=UTC)
PARTITIONS = 3


def until(fact: Callable[[], object], deadline: float = 20.0) -> None:
    """Wait for a fact."""
    clock, pause = SystemClock(), threading.Event()
    end = clock.monotonic() + deadline
    while not fact():
        assert clock.monotonic() < end, "it did not come true"
        pause.wait(0.05)


class Ledger:
    """A ledger topic of this test's own, its writer, and a projection of it."""

    def __init__(self, stack, folder):
        self.stack = stack
        self.topic = stack.unique("ledger")
        self.admin = Admin(stack.bootstrap_servers)
        self.create()
        self.registry = Registry(stack.registry_url)
        self.registry.register(f"{self.topic}-value", ledger_schema())
        self.codec = Codec(self.registry, {self.topic: ledger_schema()})
        self.database = open_projection(f"sqlite:///{folder}/projector.db")
        self.reader = TopicReader(stack.bootstrap_servers, self.topic)
        self.writer = Producer(
            {"bootstrap.servers": stack.bootstrap_servers, "transactional.id": self.topic, "log_level": 0}
        )
        self.writer.init_transactions()

    def create(self):
        settings = {"message.timestamp.type": "LogAppendTime"}
        self.admin.create(self.topic, partitions=PARTITIONS, replication=1, settings=settings)

    def write(self, *entries, commit=True):
        self.writer.begin_transaction()
        for entry in entries:
            self.put(self.codec.encode(self.topic, entry.record()), entry)
        self.writer.flush()
        if commit:
            self.writer.commit_transaction()
        else:
            self.writer.abort_transaction()

    def put(self, value, entry):
        self.writer.produce(self.topic, value, entry.key, partition=ledger_partition(entry.pipeline, PARTITIONS))

    def decode(self, record):
        return self.codec.decode(self.topic, record.value, record.headers)

    def project(self):
        projector = Projector(self.database, self.reader, self.decode)
        projector.run(threading.Event(), until_drained=True)
        return projector.projected

    def ask(self, question, *args, **more):
        with self.database.reading() as conn:
            return question(conn, *args, **more)

    def close(self):
        self.reader.close()
        self.database.close()
        self.registry.close()


@pytest.fixture
def ledger(stack, tmp_path):
    made = Ledger(stack, tmp_path)
    yield made
    made.close()


def a_run(run_id, state="done", pipeline="merge", **more):
    origin = {
        "signal": "file",
        "topic": "lake.file.landed.v1",
        "topic_id": "T1",
        "partition": 2,
        "offset": 41,
        "event_id": f"event-of-{run_id}",
        "event_source": "/producer",
        "event_type": "lake.file.landed.v1",
        "digest": b"12345678",
        "derived": True,
    }
    return Entry("run", pipeline, run_id, state=state, triggers=[origin], started_at=START, ended_at=START, **more)


def test_what_was_committed_is_projected_and_what_was_aborted_is_not(ledger):
    ledger.write(a_run("r1"), a_run("r2", pipeline="landing"), a_run("r3", pipeline="mart-delays"))
    ledger.write(a_run("r4"), commit=False)

    assert ledger.project() == 3
    assert {r["id"] for r in ledger.ask(runs)} == {"r1", "r2", "r3"}
    (origin,) = ledger.ask(run_shown, "r1")["triggers"]
    assert (origin["topic"], origin["partition"], origin["offset"], origin["derived"]) == (
        "lake.file.landed.v1",
        2,
        41,
        True,
    )


def test_a_restarted_projector_reads_on_from_where_its_tables_are(ledger):
    ledger.write(a_run("r1", "parked"))
    ledger.project()
    ledger.write(a_run("r1", "done"), a_run("r2"))

    assert ledger.project() == 2
    assert ledger.ask(run_shown, "r1")["state"] == "done"
    assert ledger.project() == 0


def test_a_dropped_projection_is_rebuilt_to_the_same_answers(ledger):
    ledger.write(*(a_run(f"r{n}", "dead" if n % 7 == 0 else "done", pipeline=f"p{n % 5}") for n in range(500)))
    ledger.write(*(a_run(f"r{n}", "done", pipeline=f"p{n % 5}", life=1) for n in range(0, 500, 14)))
    ledger.project()
    before = ledger.ask(runs, limit=1000)

    drop_projection(ledger.database)
    open_projection(str(ledger.database.url)).close()

    assert ledger.project() == 500 + 36
    assert ledger.ask(runs, limit=1000) == before
    assert len(before) == 500


def test_a_rebuild_compares_what_was_there_with_what_the_ledger_says(ledger):
    ledger.write(*(a_run(f"r{n}", pipeline=f"p{n % 5}") for n in range(200)))
    ledger.project()

    assert rebuild(ledger.database, ledger.reader, ledger.decode).same is True

    with ledger.database.writing() as conn:
        conn.exec_driver_sql("UPDATE run SET state = 'dead' WHERE id = 'r7'")
    found = rebuild(ledger.database, ledger.reader, ledger.decode)

    assert found.same is False
    assert {name for name, after in found.after.items() if after != found.before[name]} == {"run"}
    assert ledger.ask(run_shown, "r7")["state"] == "done"


def test_a_projection_of_a_ledger_that_was_created_anew_is_rebuilt_without_a_comparison(ledger):
    ledger.write(a_run("r1"))
    ledger.project()
    with ledger.database.writing() as conn:
        conn.exec_driver_sql("UPDATE ledger_position SET topic_id = 'another'")

    found = rebuild(ledger.database, ledger.reader, ledger.decode)

    assert (found.same, found.after["run"].rows) == (None, 1)


def test_a_projection_that_is_dropped_under_a_running_projector_is_read_anew_by_it(ledger):
    ledger.write(*(a_run(f"r{n}") for n in range(100)))
    stop = threading.Event()
    projector = Projector(ledger.database, ledger.reader, ledger.decode)
    thread = threading.Thread(target=projector.run, args=(stop,))
    thread.start()
    try:
        until(lambda: projector.projected == 100)
        drop_projection(ledger.database)
        open_projection(str(ledger.database.url)).close()  # as a rebuild does, which reads on from nothing
        ledger.write(a_run("last"))
        until(lambda: len(ledger.ask(runs, limit=1000)) == 101)
        drop_projection(ledger.database)
        ledger.write(a_run("really-last"))
        until(lambda: projector.projected >= 100 + 101 + 102)
        assert len(ledger.ask(runs, limit=1000)) == 102
    finally:
        stop.set()
        thread.join()


def test_a_bounded_read_does_not_count_what_stands_beyond_its_end_as_read(ledger):
    at = ledger_partition("merge", PARTITIONS)
    ledger.write(*(a_run(f"r{n}") for n in range(5)))
    ledger.write(*(a_run(f"s{n}") for n in range(5)))

    read = [raw.offset for batch in ledger.reader.read({at: 0}, until={at: 3}) for raw in batch]

    assert (read, ledger.reader.positions) == ([0, 1, 2], {at: 3})


def test_a_running_projector_takes_entries_as_they_come_and_stays_fresh_when_idle(ledger):
    stop = threading.Event()
    projector = Projector(ledger.database, ledger.reader, ledger.decode)
    thread = threading.Thread(target=projector.run, args=(stop,))
    thread.start()
    try:
        ledger.write(a_run("r1"))
        until(lambda: ledger.ask(runs))
        seen = ledger.ask(checked_at)
        until(lambda: ledger.ask(checked_at) > seen)
    finally:
        stop.set()
        thread.join(20)

    assert not thread.is_alive()


def test_somebody_elses_record_in_the_ledger_is_said_and_passed_by(ledger):
    ledger.writer.begin_transaction()
    ledger.put(b"no avro at all", a_run("foreign"))
    ledger.writer.commit_transaction()
    ledger.write(a_run("r1"))

    ledger.project()

    assert [f["detail"]["reason"] for f in ledger.ask(facts, "ledger.undecodable")] == ["decode.not-framed"]
    assert ledger.ask(run_shown, "r1")["state"] == "done"


def test_a_ledger_that_was_created_anew_is_not_mistaken_for_the_old_one(ledger):
    ledger.write(a_run("r1"))
    ledger.project()
    ledger.admin._client.delete_topics([ledger.topic])[ledger.topic].result()
    until(lambda: not ledger.admin.topics([ledger.topic]))
    ledger.create()
    ledger.reader.close()
    ledger.reader = TopicReader(ledger.stack.bootstrap_servers, ledger.topic)

    with pytest.raises(FarandoleError, match="created anew"):
        ledger.project()


def test_a_partition_follows_its_group_as_java_and_librdkafka_put_it(ledger):
    """The broker's clients agree with ours: `murmur2_random` of librdkafka is Java's default partitioner."""
    groups = ["merge", "mart-delays", "landing", "relationalize", "a", "ab", "abc", "abcd", "abcde", "é", "日本語"]
    producer = Producer({"bootstrap.servers": ledger.stack.bootstrap_servers, "partitioner": "murmur2_random"})
    placed = {}
    for group in groups:
        producer.produce(
            ledger.topic, b"", group, on_delivery=lambda _, m: placed.update({m.key().decode(): m.partition()})
        )
    producer.flush()

    assert placed == {group: ledger_partition(group, PARTITIONS) for group in groups}
