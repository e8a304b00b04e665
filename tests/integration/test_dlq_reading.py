"""Dead letters counted, filtered, exported, made into tests; those of other writers among them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from farandole.deadletter import Failure, LetterContext, letter_of
from farandole.event import RawRecord, Record
from farandole.ids import event_key, run_id
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.ledger.entry import Entry, ledger_partition
from farandole.letters import imported
from farandole.topics import LEDGER, own_schemas
from tests.integration.dlq_office import Office
from tests.integration.runtime_world import ROOT
from tests.unit.test_deadletter import CONNECT, SPRING

MEBIBYTES = 1 << 20


@pytest.fixture
def office(world):
    return Office(world)


def lines(office, *entries):
    codec = Codec(office.world.registry, own_schemas(), trusted=own_schemas())
    at = ledger_partition(entries[0].pipeline, len(office.world._ledger_start))
    return [Record(LEDGER, e.key, codec.encode(LEDGER, e.record()), [], at) for e in entries]


def test_forty_thousand_letters_of_three_causes_are_three_lines_in_bounded_memory(world, office):
    world.create("Picky")
    group, topic = world.group("Picky"), world.declaration("Picky").dead_letter_topic
    causes = [Failure(f"E{n}", f"cause {n}", "run", "pick", "trace\n" * 50, f"f{n}" * 8) for n in range(3)]
    value = os.urandom(6000)

    def letters():
        for n in range(41_204):
            raw = RawRecord(world.module.SENT, "T", n % 2, n, 1000, b"k", value, [])
            yield letter_of(raw, causes[n % 3], LetterContext(topic, 2, group, f"1.{n % 2}", f"run-{n}", 0, b"k"))

    emitter = Emitter(world.bootstrap)
    emitter.send(letters())
    emitter.send(lines(office, *(Entry("run", group, f"run-{n}", state="done", life=1) for n in range(0, 1500, 3))))

    begun = time.perf_counter()
    counting = office.start("groups", group, "-o", "jsonl")
    most, looked_at = 0, psutil.Process(counting.pid)
    while counting.poll() is None:  # what the kernel counts until its end has the memory of its parent in it
        with contextlib.suppress(psutil.NoSuchProcess):
            most = max(most, looked_at.memory_info().rss)
        time.sleep(0.02)
    said = counting.stdout.read()
    counting.stdout.close()
    lasted = time.perf_counter() - begun

    world.admin.delete_topics([topic])[topic].result()  # other tests would read them, too
    found = [json.loads(line) for line in said.splitlines()]
    assert [(c["exception"], c["letters"], c["open"], c["settled"]) for c in found] == [
        ("E0", 13_735, 13_235, 500),
        ("E1", 13_735, 13_735, 0),
        ("E2", 13_734, 13_734, 0),
    ]
    assert found[0]["versions"] == "1.0, 1.1"
    assert found[0]["first_seen"] <= found[0]["last_seen"]
    assert lasted < 60
    assert 0 < most < 400 * MEBIBYTES  # who keeps them all takes half as much again, and more with more


def test_letters_are_listed_by_cause_key_time_and_state(world, office):
    world.create("Picky")
    world.send(range(5), kind="bad")
    world.send(range(5, 8), kind="odd")
    world.drain("Picky")
    group = world.group("Picky")
    cause = next(c for c in office.ask("groups", group) if c["exception"] == "KeyError")

    def listed(*words):
        return sorted(row["key"] for row in office.ask("list", group, *words))

    assert listed("--group", cause["fingerprint"][:6]) == ["k5", "k6", "k7"]
    assert listed("--key", "k3") == listed("--key", "0x6b33") == ["k3"]
    assert listed("--state", "open", "--limit", "3") == listed("--limit", "3")
    assert len(listed("--state", "open")) == 8
    assert listed("--state", "settled", "--state", "resolved") == []
    assert listed("--until", "1h") == []
    assert len(listed("--since", "1h")) == 8
    assert [c["letters"] for c in office.ask("groups", "--since", "1h", group)] == [5, 3]
    assert "KeyError" in office.see("groups", group)
    assert "neither a span" in str(office.refused("list", "--since", "yesterday"))


def test_letters_that_connect_and_spring_wrote_are_counted_shown_and_redriven(world, office):
    world.create("Picky")
    group, source = world.group("Picky"), world.module.SENT
    topic = world.declaration("Picky").dead_letter_topic
    for n, dialect in ((1, CONNECT), (2, SPRING)):
        told = [(name, source.encode() if name.endswith(("-topic", ".topic")) else value) for name, value in dialect]
        own = world.headers(f"n{n}")
        world.put(topic, world.frame(source, world.number(n)), f"k{n}", [*own, *told])
    world.flush()

    causes = office.ask("groups", group)
    assert {c["exception"] for c in causes} == {
        "org.apache.kafka.connect.errors.DataException",
        "java.lang.IllegalStateException",
    }
    spring = next(row for row in office.ask("list", group) if row["key"] == "k2")
    assert (spring["event"], spring["state"]) == (f"{source} p3:100003", "open")
    key = event_key("/test", f"{world.name}-n2")
    assert spring["run_id"] == run_id(group, 0, [key])
    (shown,) = office.ask("show", spring["id"], *office.own("Picky"))
    assert (shown["value"]["n"], shown["pipeline"]) == (2, group)

    world.run("Picky")
    *_, last = office.ask("redrive", *office.own("Picky"), "--yes")

    assert (last["state"], last["settled"]) == ("finished", 2)
    assert world.outputs() == [2, 4]
    assert Counter(row["state"] for row in office.ask("list", group)) == {"settled": 2}
    # the same event told by its producer afterwards is a duplicate of the redriven one
    world.send([2])
    world.wait_drained("Picky")
    assert world.outputs() == [2, 4]


def test_letters_in_a_topic_of_another_name_go_back_to_the_pipeline_that_is_named(world, office):
    world.create("Picky")
    topic = f"{world.name}.orders.DLT"
    world.create_topics({topic: 1})
    told = [(n, world.module.SENT.encode() if n.endswith("-topic") else v) for n, v in SPRING]
    world.put(topic, world.frame(world.module.SENT, world.number(5)), "k5", told)
    world.flush()
    world.run("Picky")

    assert office.ask("groups", "--topic", topic)[0]["pipeline"] == "billing"
    assert "name the pipeline" in str(office.refused("redrive", "--topic", topic, "--since", "1h", "--yes"))
    *_, last = office.ask("redrive", "--topic", topic, *office.own("Picky"), "--yes")

    assert (last["settled"], world.outputs()) == (1, [10])


def test_exported_letters_are_whole_and_make_a_test_that_fails_until_the_bug_is_mended(world, office, tmp_path):
    world.create("Picky")
    world.send([7], kind="bad")
    world.send([8], kind="odd")
    world.drain("Picky")
    group = world.group("Picky")
    exported = office.ask("export", group)
    stood = {(m.partition(), m.offset()): m for m in world.letters("Picky")}
    for line in exported:
        raw, there = imported(line), stood[line["partition"], line["offset"]]
        assert (raw.key, raw.value, raw.headers) == (there.key(), there.value(), there.headers())
    letter = exported[0]

    file = tmp_path / "test_letter.py"
    service = "tests.integration.runtime_pipelines:Picky"
    told = office._run(["to-test", letter["id"], *office.own("Picky"), "--service", service, "--out", str(file)], "")
    assert (told.exception, told.stdout) == (None, f"{file}\n")

    def tested(**environment):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
            cwd=ROOT, env=world.environment(**environment), capture_output=True, text=True, check=False,
        )  # fmt: skip

    failed = tested()
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "ValueError: number 7 is bad" in failed.stdout or "KeyError: 'number 8 is odd'" in failed.stdout
    passed = tested(RUNTIME_MENDED="1")
    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_a_test_is_made_from_exported_letters_too(world, office, tmp_path):
    world.create("Picky")
    world.send([7], kind="bad")
    world.drain("Picky")
    (line,) = office.ask("export", world.group("Picky"))
    file = tmp_path / "letters.jsonl"
    file.write_text(json.dumps(line) + "\n")

    told = office._run(["to-test", line["id"][:8], "--from", str(file), "--service", "x:Y"], "")

    assert told.exception is None, told.output
    assert 'Stage("x:Y", clock=clock, writers=WRITERS)' in told.stdout
    assert "no exported letters" in str(office.refused("to-test", "x", "--from", __file__))


def test_nothing_of_a_pipeline_without_letters_is_no_error(world, office):
    world.create("Picky")

    assert office.ask("groups", world.group("Picky"), "--exit-code") == []
    assert office.ask("list", world.group("Picky")) == []
    (plan,) = office.ask("redrive", *office.own("Picky"), "--plan")
    assert (plan["plan"], plan["runs"]) == (None, 0)
    assert office.ask("plans", world.group("Picky")) == []
