"""What was missed is found by its offset and sent again, once, to the pipeline that missed it; nothing else is."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from farandole.reconciler import resend
from farandole.reconciler.cluster import Limits
from farandole.reconciler.reconciler import open_reconciler
from farandole.reconciler.report import SERVICE
from tests.integration.dlq_office import Office
from tests.integration.runtime_world import ROOT, until


def reconciler(world, *pipelines, memory="reconciler"):
    """A reconciler whose memory lasts from one to the next of that name."""
    settings = world.settings(database_url=f"sqlite:///{world.folder}/{memory}.db")
    return open_reconciler(settings, [world.declaration(name) for name in pipelines])


def sweep(world, *pipelines, **limits):
    with reconciler(world, *pipelines) as one:
        return [row for swept in one.sweep(Limits(**limits)) for row in swept.rows()]


def lose(world, pipeline, partition, count, topic=None):
    """Move a stopped pipeline's position over so many records, in SQL and in Kafka: they are lost to it."""
    topic = topic or world.module.SENT
    group = world.group(pipeline)
    offset, mark = {**world.committed(pipeline), **retries(world, pipeline)}[topic, partition]
    at = TopicPartition(topic, partition, offset + count, mark)
    for future in world.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [at])]).values():
        future.result()
    with sqlite3.connect(f"{world.folder}/books.db") as books:
        moved = books.execute(
            "UPDATE position SET next_offset = ? WHERE pipeline = ? AND topic = ? AND partition = ? AND epoch = 0",
            (offset + count, group, topic, partition),
        )
        assert moved.rowcount == 1
    return range(offset, offset + count)


def retries(world, pipeline):
    found = world.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(world.group(pipeline))])
    return {
        (p.topic, p.partition): (p.offset, p.metadata)
        for future in found.values()
        for p in future.result().topic_partitions
    }


def forget_group(world, pipeline):
    for future in world.admin.delete_consumer_groups([world.group(pipeline)]).values():
        future.result()


def test_what_was_lost_is_settled_after_one_sweep_and_the_next_sends_nothing(world):
    world.create("Double")
    world.send(range(500), partition=0)
    world.send(range(500, 1000), partition=1)
    world.drain("Double")
    world.send(range(1000, 1100), partition=0)
    lose(world, "Double", 0, 11)  # one percent of all
    service = world.run("Double")
    world.wait_drained("Double")
    assert len(world.outputs()) == 1089, "the test has lost nothing"
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["missed"], row["reemitted"]) == (1100, 1089, 11, 11)
    until(lambda: len(world.outputs()) == 1100)
    assert world.outputs() == [2 * n for n in range(1100)]
    until(lambda: len(world.runs("Double", "done")) == 1100)
    until(lambda: sweep(world, "Double")[0]["done"] == 1100)
    service.stop()
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["missed"], row["reemitted"], row["pending"]) == (1100, 1100, 0, 0, 0)
    assert len(world.module.done) == 1100, "something ran twice"
    assert len(world.records(world.declaration("Double").retry_topic)) == 11


def test_a_group_whose_offsets_are_gone_misses_nothing_and_is_sent_nothing(world):
    world.create("Double")
    world.send(range(100))
    world.drain("Double")
    forget_group(world, "Double")
    (row,) = sweep(world, "Double")
    assert "it has no committed offset" in row["note"]
    assert row["missed"] == 0
    world.send(range(100, 120))
    world.drain("Double")
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["missed"], row["reemitted"]) == (120, 120, 0, 0)
    assert len(world.module.done) == 120


def test_the_offsets_of_a_group_that_sleeps_are_committed_once_more_as_they_stand(world):
    world.create("Double")
    world.send(range(50))
    world.drain("Double")
    before = retries(world, "Double")
    with reconciler(world, "Double") as one:
        first, second = ([swept.kept for swept in one.sweep()] for _ in range(2))
    assert first == [len(before)]
    assert second == [0], "once a day is enough"
    assert retries(world, "Double") == before
    world.send(range(50, 60))
    service = world.run("Double")
    until(lambda: len(world.outputs()) == 60)
    with reconciler(world, "Double") as one:
        assert [swept.kept for swept in one.sweep()] == [0], "it is awake"
    service.stop()
    assert world.facts("Double") == {}


def test_two_reconcilers_at_once_send_the_same_events_and_each_runs_once(world):
    world.create("Rows")
    with sqlite3.connect(f"{world.folder}/books.db") as books:
        books.execute("CREATE TABLE effect (n BIGINT)")
    world.send(range(40), partition=0)
    world.drain("Rows")
    world.send(range(40, 60), partition=0)
    lose(world, "Rows", 0, 7)
    world.drain("Rows")
    together = threading.Barrier(2, timeout=30)

    def at_once():
        with reconciler(world, "Rows", memory=threading.current_thread().name) as one:
            send = one._cluster.send

            def met(records):
                if any(record.topic.startswith("retry.") for record in records):
                    together.wait()  # both have looked before either has sent
                return send(records)

            one._cluster = replace(one._cluster, send=met)
            return [row["reemitted"] for swept in one.sweep() for row in swept.rows()]

    with ThreadPoolExecutor(2, "memory") as threads:
        found = [threads.submit(at_once) for _ in range(2)]
        assert [one.result() for one in found] == [[7], [7]]
    service = world.run("Rows")
    until(lambda: len(world.runs("Rows", "done")) == 60)
    until(lambda: sum(retries(world, "Rows")[world.declaration("Rows").retry_topic, p][0] for p in range(2)) >= 14)
    service.stop()
    with sqlite3.connect(f"{world.folder}/books.db") as books:
        assert books.execute("SELECT count(*), count(DISTINCT n) FROM effect").fetchone() == (60, 60)
    assert world.outputs() == [2 * n for n in range(60)]
    (row,) = sweep(world, "Rows")
    assert (row["landed"], row["done"], row["missed"], row["reemitted"]) == (60, 60, 0, 0)


def test_an_event_that_always_fails_is_sent_once_and_is_then_a_letter(world):
    world.create("Double")
    world.send(range(20), partition=0)
    world.drain("Double")
    world.send([20], kind="bad", partition=0)
    lose(world, "Double", 0, 1)
    service = world.run("Double")
    assert sweep(world, "Double")[0]["reemitted"] == 1
    until(lambda: world.runs("Double", "dead"))
    (row,) = until(lambda: [r for r in sweep(world, "Double") if not r["pending"]])
    assert (row["landed"], row["done"], row["dead"], row["missed"]) == (21, 20, 1, 0)
    service.stop()
    assert len(world.records(world.declaration("Double").retry_topic)) == 1
    assert [stage for stage, _ in world.why("Double")] == ["run"]


def test_what_comes_to_nothing_three_times_is_a_letter_that_can_be_redriven(world):
    world.partitions = 1
    world.create("Double")
    world.send(range(20))
    world.drain("Double")
    world.send([20])
    lose(world, "Double", 0, 1)
    retry = world.declaration("Double").retry_topic
    for number in range(1, 4):
        assert sweep(world, "Double")[0]["reemitted"] == 1
        assert sweep(world, "Double")[0]["pending"] == 1, "it is under way and was sent again"
        assert [dict(m.headers())["farandole-reemitted"] for m in world.records(retry)][-1] == str(number).encode()
        lose(world, "Double", 0, 1, topic=retry)
    (row,) = sweep(world, "Double")
    assert (row["missed"], row["reemitted"], row["given_up"]) == (1, 0, 1)
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["dead"], row["missed"]) == (21, 20, 1, 0)
    assert world.why("Double") == [("reconcile", "sent again 3 times, and it came to nothing")]
    service = world.run("Double")
    Office(world).ask("redrive", "--pipeline", world.group("Double"), "--yes")
    until(lambda: len(world.outputs()) == 21)
    service.stop()
    assert world.outputs() == [2 * n for n in range(21)]


def test_a_sweep_that_wants_to_send_too_much_sends_nothing_and_names_the_command(world):
    world.create("Double")
    world.send(range(20), partition=0)
    world.drain("Double")
    world.send(range(20, 140), partition=0)
    lose(world, "Double", 0, 101)
    (row,) = sweep(world, "Double")
    assert (row["missed"], row["reemitted"]) == (101, 0)
    assert f"farandole reconcile {world.group('Double')} --once --most 101" in row["note"]
    (row,) = sweep(world, "Double", plan=True, most=101)
    assert (row["missed"], row["reemitted"]) == (101, 0)
    assert world.records(world.declaration("Double").retry_topic) == []
    (row,) = sweep(world, "Double", most=101)
    assert row["reemitted"] == 101


def test_an_event_that_was_told_again_and_run_is_a_duplicate_and_not_missed(world):
    world.create("Double")
    world.send(range(20), partition=0)
    world.drain("Double")
    world.send([7], partition=0)  # the same id again
    lose(world, "Double", 0, 1)
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["duplicate"], row["missed"], row["reemitted"]) == (21, 20, 1, 0, 0)


def test_an_event_that_comes_to_something_while_it_is_looked_for_counts_as_what_it_came_to(world, monkeypatch):
    world.create("Double")
    world.send(range(20), partition=0)
    world.drain("Double")
    world.send([20], partition=0)
    lose(world, "Double", 0, 1)
    assert sweep(world, "Double")[0]["reemitted"] == 1
    look = resend.places_told

    def late(*asked):
        service = world.run("Double")
        until(lambda: len(world.runs("Double", "done")) == 21)
        service.stop()
        return look(*asked)

    monkeypatch.setattr(resend, "places_told", late)
    (row,) = sweep(world, "Double")
    assert (row["done"], row["duplicate"], row["missed"], row["pending"]) == (20, 0, 1, 1)
    (row,) = sweep(world, "Double")
    assert (row["done"], row["duplicate"], row["missed"], row["pending"]) == (21, 0, 0, 0)


def test_filtered_parked_and_quarantined_records_are_outcomes_and_a_lost_memory_changes_nothing(world):
    world.create("Double")
    world.send(range(10))
    world.send(range(10, 14), kind="skip")
    world.send([14], kind="bad")
    world.put(world.module.SENT, b"no avro at all")
    world.put(world.module.SENT, None, "k1")
    world.send(range(3))  # told again
    world.drain("Double")
    (row,) = sweep(world, "Double")
    assert (row["landed"], row["done"], row["dead"], row["filtered"], row["duplicate"]) == (20, 10, 2, 5, 3)
    assert row["filtered_by"] == {"not (kind != 'skip')": 4, "tombstone": 1}
    assert row["missed"] == 0
    for file in world.folder.glob("reconciler*"):
        file.unlink()
    assert sweep(world, "Double") == [row]


def test_what_stands_below_the_beginning_of_a_pipeline_was_never_meant_for_it(world, monkeypatch):
    world.partitions = 1
    world.module = world.load(RUNTIME_SINCE="now")
    world.create("Double")
    world.send(range(50))
    world.drain("Double")
    world.send(range(50, 60))
    lose(world, "Double", 0, 2)
    world.drain("Double")
    (row,) = sweep(world, "Double", plan=True)
    assert (row["landed"], row["done"], row["missed"]) == (10, 8, 2)


def test_a_table_and_a_group_that_were_both_lost_lose_no_event(world):
    """The pipeline begins anew at what is now the end; what landed meanwhile is found."""
    world.partitions = 1
    world.module = world.load(RUNTIME_SINCE="now")
    world.create("Double")
    world.send(range(90, 95))
    world.drain("Double")
    world.send(range(10))
    world.drain("Double")
    forget_group(world, "Double")
    for file in world.folder.glob("books.db*"):
        file.unlink()
    world.send(range(10, 15))
    world.drain("Double")
    assert len(world.outputs()) == 10, "the test has lost nothing"
    assert sweep(world, "Double")[0]["reemitted"] == 5
    service = world.run("Double")
    until(lambda: len(world.outputs()) == 15)
    service.stop()
    assert world.outputs() == [2 * n for n in range(15)]


def test_the_command_says_what_is_missing_and_leaves_with_three(world):
    world.create("Double")
    world.send(range(20), partition=0)
    world.drain("Double")
    world.send(range(20, 30), partition=0)
    lose(world, "Double", 0, 3)

    def asked(*words):
        arguments = ["tests.integration.runtime_pipelines:Double", "--once", *words, "-o", "json"]
        told = subprocess.run(
            [sys.executable, "-m", "farandole", "reconcile", *arguments],
            cwd=ROOT, env=world.environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return told.returncode, json.loads(told.stdout)

    code, (row,) = asked("--plan")
    assert (code, row["missed"], row["reemitted"]) == (3, 3, 0)
    code, (row,) = asked()
    assert (code, row["missed"], row["reemitted"], row["behind"]) == (0, 3, 3, 7)
    world.drain("Double")
    code, (row,) = asked()
    assert (code, row["landed"], row["done"], row["missed"]) == (0, 30, 30, 0)


READABLE = """
pipeline: {name}
about: What Double is to the reconciler.
since: beginning
when: {{number: {{event: {topic}}}}}
steps: [{{call: builtins:print}}]
"""


def test_of_two_pipelines_one_of_which_cannot_be_read_the_other_is_mended_and_the_one_is_named(world, tmp_path):
    world.create("Double")
    world.send(range(20), partition=0)
    world.drain("Double")
    world.send(range(20, 25), partition=0)
    lose(world, "Double", 0, 2)
    for name in ("broken", "whole", "reconciler"):
        (tmp_path / "services" / name).mkdir(parents=True)
    (tmp_path / "services/broken/pipeline.py").write_text("x = 1\n1 / 0\n")
    declared = READABLE.format(name=world.group("Double"), topic=world.module.SENT)
    (tmp_path / "services/whole/pipeline.yaml").write_text(declared)
    shutil.copy(ROOT / "services/reconciler/service.py", tmp_path / "services/reconciler/service.py")

    def asked(*words):
        return subprocess.run(
            [sys.executable, "-m", "farandole", *words],
            cwd=tmp_path, env=world.environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    service = asked("run", "reconciler", "--until-drained")
    assert service.returncode == 0, service.stderr
    (named,) = [line for line in service.stderr.splitlines() if "reconciler.unreadable" in line]
    assert "broken" in named
    assert "ZeroDivisionError" in named
    told = {
        e["detail"]["pipeline"]: e["detail"]
        for e in world.entries(SimpleNamespace(name=SERVICE))
        if e["fact"] == "sweep.done"
    }
    assert "services/broken/pipeline.py:2" in told["broken"]["note"]
    assert told[world.group("Double")]["reemitted"] == "2"

    command = asked("reconcile", "--once", "-o", "json")
    rows = {row["pipeline"]: row for row in json.loads(command.stdout)}
    assert command.returncode == 3, "there is something that a person should look at"
    assert "cannot be read" in rows["broken"]["note"]
    assert (rows[world.group("Double")]["missed"], rows[world.group("Double")]["pending"]) == (2, 2)
    assert asked("reconcile", "broken", "--once").returncode == 1
