"""All tables of a pipeline dropped: they are filled from the ledger before any work is taken, and nothing runs twice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter

import pytest
from sqlalchemy import create_engine, inspect, text

from farandole.store import migrate, open_store
from farandole.store.tables import metadata
from tests.integration.runtime_world import ROOT, said, until

OWN = [*metadata.tables, migrate.VERSION_TABLE]


@pytest.fixture(params=["sqlite", "postgresql"])
def books(request, world):
    """A world on either database, and a connection to it that belongs to nobody."""
    if request.param == "postgresql":
        world.database = request.getfixturevalue("stack").postgres_url()
    url = world.database.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, connect_args={"timeout": 60} if request.param == "sqlite" else {})
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE effect (n BIGINT)"))
    yield engine
    engine.dispose()


def drop(engine, *tables):
    """Drop tables, however busy they are: on PostgreSQL all at once, on SQLite one by one, whatever comes between."""
    there = inspect(engine).get_table_names()
    with engine.begin() as conn:
        if engine.dialect.name == "sqlite":
            conn.exec_driver_sql("PRAGMA busy_timeout = 60000")
        for table in tables:
            if table in there:
                conn.execute(text(f"DROP TABLE {table}"))


def digests(world, pipeline):
    store = open_store(world.database, world.group(pipeline))
    try:
        return store.recovery.digests()
    finally:
        store.close()


def standing(world, pipeline):
    """What status counts: runs by state, and records filtered."""
    return Counter(run["state"] for run in world.runs(pipeline)), world.filtered(pipeline)


def effects(engine):
    with engine.connect() as conn:
        return conn.execute(text("SELECT count(*), count(DISTINCT n) FROM effect")).one()


@pytest.mark.timeout(700)
@pytest.mark.parametrize("pipeline", ["Double", "Rows"])
def test_dropped_under_load_nothing_runs_twice_and_nothing_is_left_out(world, books, pipeline):
    world.create(pipeline)
    services = [world.run(pipeline) for _ in range(2)]
    done = threading.Event()

    def produce():
        for n in range(0, 3000, 50):
            world.send(range(n, n + 50))
            world.send(range(max(0, n - 200), max(0, n - 150)))  # told again
            done.wait(0.05)

    producer = threading.Thread(target=produce)
    producer.start()
    until(lambda: len(world.outputs()) > 600)
    drop(books, *OWN)
    until(lambda: len(world.outputs()) > 1500, 200, lambda: said[-12:])  # one that is fenced pauses for a minute
    drop(books, *OWN)
    producer.join()
    until(
        lambda: len(world.outputs()) >= 3000,
        200,
        lambda: [line for line in said if "tables" not in line["event"]][-25:],
    )
    world.wait_drained(pipeline)
    for service in services:
        service.stop()
    assert world.outputs() == [2 * n for n in range(3000)]
    if pipeline == "Rows":
        assert tuple(effects(books)) == (3000, 3000)
    assert world.facts(pipeline)["tables.restored"]["entries"] != "0"

    before = digests(world, pipeline), standing(world, pipeline)
    drop(books, *OWN)
    world.send(range(3000))
    world.drain(pipeline)
    assert world.outputs() == [2 * n for n in range(3000)], "a restored key was run again"
    assert (digests(world, pipeline), standing(world, pipeline)) == before


@pytest.mark.parametrize("lost", ["dedup", "inbox_open", "position", "incarnation", "checkpoint"])
def test_one_table_that_is_dropped_under_a_running_service_is_noticed(world, books, lost):
    world.create("Double")
    service = world.run("Double")
    world.send(range(100))
    until(lambda: len(world.outputs()) == 100)
    drop(books, lost)
    world.send(range(100))
    world.send(range(100, 150))
    until(lambda: len(world.outputs()) >= 150, 60)
    world.wait_drained("Double")
    service.stop()
    assert world.outputs() == [2 * n for n in range(150)]


def test_an_effect_that_must_not_happen_twice_is_in_doubt_and_not_done_again(world, books):
    world.create("Sending")
    service = world.run("Sending")
    world.send(range(300))
    until(lambda: len(world.outputs()) > 50)
    drop(books, *OWN)
    until(lambda: sum(standing(world, "Sending")[0].values()) == 300, 60)
    service.stop()
    sent = Counter(n for what, n in world.module.done if what == "sent")
    assert max(sent.values()) == 1, "it was sent twice"
    states, _ = standing(world, "Sending")
    assert states["done"] == len(world.outputs())
    assert states["uncertain"] == 300 - states["done"]


def test_a_dead_event_stands_where_it_stood(world, books):
    world.create("Double")
    world.send(range(5))
    world.send([5], kind="bad")
    world.drain("Double")
    before = digests(world, "Double")
    assert before["inbox_open"][0] == 1
    drop(books, *OWN)
    world.send([5], kind="bad")  # told again: it is a letter already
    service = world.run("Double")
    until(lambda: "tables.restored" in world.facts("Double"))
    world.wait_drained("Double")
    service.stop()
    assert digests(world, "Double") == before
    assert len(world.letters("Double")) == 1


def test_members_of_a_join_wait_on(world, books):
    world.create("Pairs")
    module = world.module
    for n in range(20):
        world.put(module.LEFT, world.frame(module.LEFT, {"pair": f"p{n}", "n": n}), f"p{n}", world.headers(f"l{n}"))
    world.flush()
    world.drain("Pairs")
    before = digests(world, "Pairs")
    assert before["join_member"][0] == 20
    drop(books, *OWN)
    for n in range(20):
        world.put(module.RIGHT, world.frame(module.RIGHT, {"pair": f"p{n}", "n": n}), f"p{n}", world.headers(f"r{n}"))
    world.flush()
    world.drain("Pairs")
    assert len(world.records(module.PAIRED)) == 20


def test_a_file_that_is_replaced_under_a_running_service_is_another_database(world):
    world.create("Double")
    service = world.run("Double")
    world.send(range(100))
    until(lambda: len(world.outputs()) == 100)
    for file in world.folder.glob("books.db*"):
        file.unlink()
    world.send(range(120))
    until(lambda: len(world.outputs()) >= 120, 60)
    world.wait_drained("Double")
    service.stop()
    assert world.outputs() == [2 * n for n in range(120)]
    assert digests(world, "Double")["dedup"][0] == 120


def test_the_command_rebuilds_a_stopped_pipeline_to_the_same_digests(world):
    world.create("Busy")

    def asked():
        words = ["--pipeline", "tests.integration.runtime_pipelines:Busy", "--yes", "-o", "json"]
        done = subprocess.run(
            [sys.executable, "-m", "farandole", "ledger", "rebuild", *words],
            cwd=ROOT, env=world.environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    world.send(range(50))
    world.send([50], amount=99)
    world.drain("Busy")
    before = digests(world, "Busy")
    code, told, _ = asked()
    assert (code, json.loads(told)["same"]) == (0, True)
    assert digests(world, "Busy") == before
    world.send(range(51))  # all of them again
    world.drain("Busy")
    assert len(world.outputs()) == 50

    with create_engine(world.database).begin() as conn:
        conn.execute(text("DELETE FROM dedup WHERE run_id = (SELECT min(run_id) FROM dedup)"))
    code, told, _ = asked()
    assert (code, json.loads(told)["same"]) == (2, False)

    service = world.run("Busy")
    until(lambda: world.lag("Busy") == 0 and service.worker.owned)
    code, _, said_why = asked()
    assert (code, "stop its instances" in said_why) == (1, True)
