"""Files that landing never told, or whose event was lost, are found by what lies in the raw folder, and told once."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from confluent_kafka import TopicPartition

from farandole import Database, Pipeline, step, when
from farandole.clock import SystemClock
from farandole.find import find_inventory
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.reconciler.cluster import Limits
from farandole.reconciler.reconciler import open_reconciler
from farandole.schemagen import load_schemas
from farandole.sources.announce import Announcer, watch
from farandole.sources.metadata import open_sources
from schemas.events import FileLanded
from services.landing.handlers import landed_events
from tests.conftest import own_servers
from tests.integration.runtime_world import ROOT

TOPIC = "lake.file.landed.v1"


@step()
def note(file: FileLanded, database: Database) -> None:
    """One row for each file that is run."""
    database.execute("INSERT INTO effect VALUES (:uri)", {"uri": file.uri})


class Lake:
    """A raw folder, the pipeline that listens to what lands in it, and the topic as anybody may read it."""

    def __init__(self, world) -> None:
        self.world, self.raw = world, world.folder / "lake" / "raw"
        self.raw.mkdir(parents=True)
        schema = load_schemas(ROOT / "schemas/avro")[TOPIC]
        world.module.SCHEMAS[TOPIC] = schema
        declared = {"name": f"files-{world.name}", "file": when(FileLanded), "steps": [note], "since": "beginning"}
        self.files = type("Files", (Pipeline,), {"__doc__": "Count files.", "__module__": __name__, **declared})
        world.create(self.files)
        with sqlite3.connect(f"{world.folder}/books.db") as books:
            books.execute("CREATE TABLE effect (uri TEXT)")

    def land(self, *hours: int) -> None:
        for hour in hours:
            folder = self.raw / f"weather/2013/01/{1 + hour // 24:02}/{hour % 24:02}"
            folder.mkdir(parents=True)
            (folder / "weather.csv").write_text(f"origin\n{hour}\n")

    def landing(self, send=None) -> None:
        """The service, begun anew and stopped when nothing is new."""
        codec = Codec(self.world.registry, load_schemas(self.world.avro))
        announcer = Announcer(codec.encode, send or Emitter(self.world.bootstrap).send, SystemClock())

        def landed(good, seen):
            return landed_events(str(self.raw), good, seen)

        watch(landed, open_sources(), announcer, threading.Event(), lambda *_, **__: None, until_drained=True)

    def reconciler(self, memory="reconciler"):
        settings = self.world.settings(database_url=f"sqlite:///{self.world.folder}/{memory}.db")
        declaration = self.world.declaration(self.files)
        return open_reconciler(settings, [], {"landing": find_inventory("landing", ROOT)}, [declaration])

    def sweep(self, **limits):
        with self.reconciler() as one:
            (row,) = [row for swept in one.sweep(Limits(**limits)) for row in swept.rows()]
        return row

    def told(self) -> list[str]:
        """The files that stand in the topic, by the hour in their path, as often as they stand there."""
        read = Codec(self.world.registry, load_schemas(self.world.avro)).decode
        events = [read(TOPIC, m.value(), m.headers()) for m in self.world.records(TOPIC)]
        mine = [event["uri"].removeprefix(f"file://{self.raw}/") for event in events]
        return sorted(uri for uri in mine if not uri.startswith("file://"))

    def ran(self) -> int:
        self.world.drain(self.files)
        with sqlite3.connect(f"{self.world.folder}/books.db") as books:
            asked = "SELECT count(*), count(DISTINCT uri) FROM effect WHERE uri LIKE ?"
            every, different = books.execute(asked, (f"file://{self.raw}/%",)).fetchone()
        assert every == different, "a file was run twice"
        return every


def sweeps(world):
    decoded = [world.decode(LEDGER_TOPIC, m.value()) for m in world.records(LEDGER_TOPIC)]
    return [entry for entry in decoded if entry and entry["fact"] == "sweep.done"]


@pytest.fixture(scope="module")
def stack():
    """Servers of their own: each file that other tests have told on the chain's topic would count here."""
    with own_servers() as servers:
        yield servers


@pytest.fixture
def lake(world, monkeypatch):
    monkeypatch.setenv("FARANDOLE_LAKE", str(world.folder / "lake"))
    return Lake(world)


def test_files_that_came_while_landing_was_down_are_told_once_and_run_once(lake):
    lake.land(0, 1, 2, 3, 4)
    row = lake.sweep()
    assert (row["landed"], row["told"], row["missed"], row["reemitted"]) == (5, 0, 5, 5)
    assert len(lake.told()) == 5
    row = lake.sweep()
    assert (row["landed"], row["told"], row["missed"], row["reemitted"]) == (5, 5, 0, 0)
    assert lake.ran() == 5
    lake.landing()  # it remembers nothing, and tells all five again
    assert len(lake.told()) == 10
    assert lake.ran() == 5
    assert lake.sweep()["missed"] == 0


def test_the_one_event_that_was_lost_is_the_one_that_is_told(lake):
    lake.land(*range(12))
    send = Emitter(lake.world.bootstrap).send
    lake.landing(lambda records: send(records[:7] + records[8:]))
    assert len(lake.told()) == 11, "the test has lost nothing"
    row = lake.sweep(plan=True)
    assert (row["landed"], row["told"], row["missed"], row["reemitted"]) == (12, 11, 1, 0)
    assert len(lake.told()) == 11
    assert lake.sweep()["reemitted"] == 1
    assert lake.told() == sorted({f"weather/2013/01/01/{hour:02}/weather.csv" for hour in range(12)})
    assert lake.ran() == 12
    assert lake.sweep()["missed"] == 0


def test_two_reconcilers_and_landing_at_once_leave_one_effect_of_each_file(lake):
    lake.land(*range(6))
    together = threading.Barrier(2, timeout=30)

    def at_once():
        with lake.reconciler(threading.current_thread().name) as one:
            send = one._cluster.send

            def met(records):
                if records[0].topic == TOPIC:
                    together.wait()  # both have looked before either has told
                return send(records)

            one._cluster = replace(one._cluster, send=met)
            return [swept.announced for swept in one.sweep()]

    with ThreadPoolExecutor(2, "memory") as threads:
        found = [threads.submit(at_once) for _ in range(2)]
        assert [one.result() for one in found] == [[6], [6]]
    lake.landing()
    assert len(lake.told()) == 18
    assert lake.ran() == 6


def test_what_retention_has_eaten_is_known_from_the_ledger_and_not_told_again(lake):
    lake.land(0, 1, 2)
    lake.landing()
    assert lake.ran() == 3
    ends = lake.world._ends(TOPIC)
    for future in lake.world.admin.delete_records([TopicPartition(TOPIC, p, at) for p, at in ends.items()]).values():
        future.result()
    lake.land(3)
    row = lake.sweep()
    assert (row["landed"], row["missed"], row["reemitted"]) == (4, 1, 1)
    assert lake.ran() == 4


def test_a_file_that_was_replaced_is_another_event_and_one_that_is_written_is_none(lake):
    lake.land(0)
    lake.landing()
    assert lake.sweep()["missed"] == 0
    (lake.raw / "weather/2013/01/01/00/weather.csv").write_text("origin\nanother\n")
    (lake.raw / "weather/2013/01/01/00/.more.csv.part").write_text("origin\n")
    row = lake.sweep()
    assert (row["landed"], row["missed"], row["reemitted"]) == (1, 1, 1)


def test_a_sweep_that_wants_to_tell_too_much_tells_nothing_and_names_the_command(lake):
    lake.land(*range(101))
    row = lake.sweep()
    assert (row["missed"], row["reemitted"]) == (101, 0)
    assert "farandole reconcile landing --once --most 101" in row["note"]
    assert lake.told() == []
    assert lake.sweep(most=101)["reemitted"] == 101
    assert lake.sweep()["missed"] == 0


def backfilled(lake, what, *words, until="2013-01-01"):
    """What `farandole backfill plan|start landing` says of 2013-01-01 until a day, with its exit code."""
    span = ["--from", "2013-01-01", "--to", until]
    done = subprocess.run(
        [sys.executable, "-m", "farandole", "backfill", what, "landing", *span, *words, "-o", "json"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env=lake.world.environment(FARANDOLE_LAKE=str(lake.raw.parent), FARANDOLE_ACTOR="ann"),
    )  # fmt: skip
    documents = done.stdout.replace("}\n{", "}\0{").split("\0") if done.stdout else []
    return done.returncode, [json.loads(one) for one in documents], done.stderr


def test_a_backfill_of_a_source_tells_the_files_of_its_span_that_were_never_told_and_no_others(lake):
    lake.land(0, 1, 2, 30)  # the last one is of the second day
    send = Emitter(lake.world.bootstrap).send
    lake.landing(lambda records: send(records[:1]))
    code, [plan], _ = backfilled(lake, "plan")
    assert (code, plan["files"], plan["missing"]) == (0, 3, 2)
    assert [(one["interval"][:16], one["missing"]) for one in plan["intervals"]] == [
        ("2013-01-01T00:00", 0), ("2013-01-01T01:00", 1), ("2013-01-01T02:00", 1),
    ]  # fmt: skip
    code, _, said = backfilled(lake, "start", "--reason", "lost")
    assert (code, len(lake.told())) == (0, 1), "nobody has said yes"
    assert "the same command with --yes does it" in said

    code, rows, _ = backfilled(lake, "start", "--reason", "lost", "--plan", plan["plan"], "--yes")

    assert (code, rows[-1]) == (0, {"source": "landing", "told": 2, "missing": 2})
    assert lake.told() == [f"weather/2013/01/01/{hour:02}/weather.csv" for hour in range(3)]
    assert lake.ran() == 3
    fact = next(f["detail"] for f in sweeps(lake.world) if f["detail"].get("reason") == "lost")
    assert (fact["actor"], fact["span"], fact["reemitted"]) == ("ann", "2013-01-01T00:00Z/2013-01-02T00:00Z", "2")
    code, _, said = backfilled(lake, "start", "--reason", "lost", "--plan", plan["plan"], "--yes")
    assert (code, "the plan is stale" in said) == (2, True)
    assert backfilled(lake, "plan", until="2013-01-02")[1][0]["missing"] == 1
    assert lake.sweep()["reemitted"] == 1, "the sweep knows what was told, and tells the rest"


@pytest.mark.parametrize(("words", "said"), [(("--only", "all"), "is told once"), (("--rate", "5/s"), "--rate is for")])
def test_what_cannot_be_wanted_of_a_source_is_refused_with_what_can(lake, words, said):
    code, _, error = backfilled(lake, "plan", *words)
    assert (code != 0, said in error) == (True, True), error


def test_the_command_tells_what_was_not_told_and_the_ledger_says_so(lake):
    lake.land(0, 1)

    def asked(*words):
        done = subprocess.run(
            [sys.executable, "-m", "farandole", "reconcile", "landing", "--once", *words, "-o", "json"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            env=lake.world.environment(FARANDOLE_LAKE=str(lake.raw.parent)),
        )  # fmt: skip
        return done.returncode, *json.loads(done.stdout or done.stderr)

    code, row = asked("--plan")
    assert (code, row["missed"], row["reemitted"]) == (3, 2, 0)
    code, row = asked()
    assert (code, row["landed"], row["missed"], row["reemitted"]) == (0, 2, 2, 2)
    code, row = asked()
    assert (code, row["landed"], row["told"], row["missed"]) == (0, 2, 2, 0)
    told = [fact["detail"] for fact in sweeps(lake.world) if fact["detail"]["pipeline"] == "landing"]
    assert ("2", "2", "2") in [(one["landed"], one["missed"], one["reemitted"]) for one in told]
