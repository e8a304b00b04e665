"""Servers that go away, at the start and in the middle: it waits, says so, and nothing is lost, doubled or set aside."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from farandole.control import PAUSE, RESUME
from farandole.errors import FarandoleError, SettingsError
from farandole.stack.launcher import Stack
from tests.integration.runtime_front import front_of
from tests.integration.runtime_world import World, said, until
from tests.integration.test_runtime_control import give


@pytest.fixture(scope="module")
def own(stack):
    """Servers that these tests may stop: the session's own, or a pair beside the external ones."""
    stack.launcher.start_kafka()
    stack.launcher.start_registry()
    yield stack.launcher
    if stack.mode == "local":
        stack.launcher.start_kafka()
        stack.launcher.start_registry()


@pytest.fixture
def away(own, tmp_path, monkeypatch):
    """A world on servers that may be stopped."""
    monkeypatch.setenv("FARANDOLE_SCHEMAS", str(tmp_path / "world" / "avro"))
    own.start_kafka()
    own.start_registry()
    made = World(own.bootstrap_servers, own.registry_url, tmp_path / "world")
    try:
        yield made
    finally:
        own.start_kafka()
        own.start_registry()
        made.close()


@pytest.fixture
def postgres():
    """A PostgreSQL that a test may stop."""
    # not pytest's own folder: the server runs as a user of its own
    with tempfile.TemporaryDirectory(prefix="farandole-test-", ignore_cleanup_errors=True) as place:
        server = Stack(Path(place) / ".farandole", usual_ports=False)
        try:
            server.start_postgres()
            yield server
        finally:
            server.down()


# ---- the registry


def test_a_warm_service_does_not_notice_that_the_registry_is_away_and_a_cold_id_waits_for_it(away, own):
    world = away
    world.create("Double")
    sent = world.module.SENT
    grown = json.loads(json.dumps(world.module.SCHEMAS[sent]))
    grown["fields"].append({"name": "more", "type": "string", "default": ""})
    cold = world.registry.register(f"{world.name}-grown-value", grown)
    service = world.run("Double")
    world.send(range(100))
    until(lambda: len(world.outputs()) == 100)
    own.stop_registry()
    world.send(range(100, 400), partition=0)
    until(lambda: len(world.outputs()) == 400)  # warm: nothing is asked for
    told = {**world.number(1000), "more": "news"}
    world.put(sent, world.frame(sent, told, schema=grown, schema_id=cold), "cold", world.headers("cold"), 1)
    world.send(range(400, 500), partition=0)
    until(lambda: len(world.outputs()) == 500)  # the other partition goes on
    until(lambda: world.said("partition.waits"))
    assert world.lag("Double") == 1
    own.start_registry()
    world.wait_drained("Double")
    service.stop()
    assert world.outputs() == sorted([*(2 * n for n in range(500)), 2000])
    assert world.why("Double") == []


@pytest.mark.soak
def test_a_registry_that_is_away_for_a_minute_under_load_costs_nothing(away, own):
    world = away
    world.create("Double")
    service = world.run("Double")
    world.send(range(100))
    until(lambda: len(world.outputs()) == 100)
    own.stop_registry()
    end, sent = time.monotonic() + 60, 100
    while time.monotonic() < end:
        world.send(range(sent, sent + 50))
        sent += 50
        time.sleep(0.5)
    own.start_registry()
    world.wait_drained("Double", 60)
    service.stop()
    assert world.outputs() == [2 * n for n in range(sent)]
    assert world.why("Double") == []


def test_a_registry_that_is_away_at_the_start_is_waited_for(world):
    world.create("Double")
    world.send(range(10))
    with front_of(world.registry_url) as front:
        front.refuse = lambda _path: 503
        process = world.start("Double", SCHEMA_REGISTRY_URL=front.url)
        until(lambda: "start.waits" in world.log(), 30, world.log)
        assert "the schema registry answers 503" in world.log()
        assert process.poll() is None
        front.refuse = lambda _path: None
        world.wait_drained("Double")
    assert len(world.outputs()) == 10


def test_a_service_that_waits_for_a_server_ends_when_it_is_told_to(world):
    world.create("Double")
    with front_of(world.registry_url) as front:
        front.refuse = lambda _path: 503
        process = world.start("Double", SCHEMA_REGISTRY_URL=front.url)
        until(lambda: "start.waits" in world.log(), 30, world.log)
        process.terminate()
        assert process.wait(10) == 0


# ---- the broker


def test_a_broker_that_restarts_in_the_middle_loses_and_doubles_nothing(away, own):
    world = away
    world.create("Double")
    service = world.run("Double")
    world.send(range(300))
    until(lambda: len(world.outputs()) > 0)
    own.kill("kafka")
    own.start_kafka()
    world.send(range(300, 600))
    world.wait_drained("Double", 90)
    service.stop()
    assert world.outputs() == [2 * n for n in range(600)]
    assert len(world.runs("Double", "done")) == 600
    assert world.why("Double") == []


def test_a_service_hears_what_is_wanted_of_it_across_a_restart_of_the_broker(away, own):
    world = away
    world.create("Double")
    service = world.run("Double")
    world.send(range(10))
    until(lambda: len(world.outputs()) == 10)
    own.kill("kafka")
    own.start_kafka()
    give(world, PAUSE, "Double")
    until(lambda: world.said("pipeline.paused"), 60)
    world.send(range(10, 20))
    own.kill("kafka")
    own.start_kafka()
    give(world, RESUME, "Double")
    world.wait_drained("Double", 60)
    service.stop()
    assert [line["event"] for line in said if line["event"].startswith("pipeline.")] == [
        "pipeline.paused", "pipeline.resumed",
    ]  # fmt: skip
    assert world.outputs() == [2 * n for n in range(20)]


def test_a_broker_that_is_away_at_the_start_is_waited_for_with_a_clear_line(away, own):
    world = away
    world.create("Double")
    world.send(range(10))
    own.stop_kafka()
    process = world.start("Double")
    until(lambda: "start.waits" in world.log(), 30, world.log)
    assert "no broker answered within 5 s" in world.log()
    assert "check KAFKA_BOOTSTRAP_SERVERS" in world.log()
    assert process.poll() is None
    own.start_kafka()
    world.wait_drained("Double", 60)
    assert len(world.outputs()) == 10


def test_credentials_for_a_broker_that_wants_none_are_told_as_what_they_are(world):
    world.create("Double")
    process = world.start(
        "Double",
        KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
        KAFKA_SASL_MECHANISM="PLAIN",
        KAFKA_SASL_USERNAME="me",
        KAFKA_SASL_PASSWORD="secret-word",
    )
    until(lambda: "start.waits" in world.log() or process.poll() is not None, 30, world.log)
    assert "KAFKA_SECURITY_PROTOCOL" in world.log()
    assert "secret-word" not in world.log()


def test_topics_that_are_missing_are_named_with_the_remedy(world):
    world.create("Double")
    with pytest.raises(FarandoleError) as told:
        world.run("Catching")
    group = world.group("Catching")
    missing = f"dlq.{group}, retry.{group}, {world.module.REFUSED}"
    assert f"topics that do not exist: {missing}" in told.value.message
    assert told.value.hint == "create them: farandole topology apply"


# ---- the database


def test_a_database_that_is_away_at_the_start_ends_the_service_with_a_message(world):
    world.create("Double")
    world.database = "postgresql://me:secret-word@127.0.0.1:9/books"
    process = world.start("Double")
    assert process.wait(60) == 1
    assert "the database does not answer" in world.log()
    assert "FARANDOLE_DATABASE_URL" in world.log()
    assert "secret-word" not in world.log()


def test_a_wrong_password_of_the_database_is_a_setting_to_correct(world, postgres):
    import psycopg

    address = postgres.postgres_url.replace("+psycopg", "")
    rules = postgres.folder / "postgres" / "pg_hba.conf"
    rules.write_text("host all reader 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("create role reader login password 'right'")
        connection.execute("select pg_reload_conf()")
    world.create("Double")
    wrong = address.replace("postgres@", "reader:wrong@")

    def refused():
        with pytest.raises(FarandoleError) as told:
            world.run("Double", database_url=wrong)
        return told.value if isinstance(told.value, SettingsError) else None  # until the server has read its rules

    told = until(refused)
    assert "refuses the user or the password" in told.message
    assert "FARANDOLE_DATABASE_URL" in told.hint
    assert "wrong" not in told.place
    assert told.exit_code == 64


@pytest.mark.parametrize("pipeline", ["Double", "Rows"])
def test_a_database_that_goes_away_in_the_middle_pauses_the_work_and_nothing_else(world, postgres, pipeline):
    import psycopg

    world.database = postgres.postgres_url
    with psycopg.connect(postgres.postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("create table effect (n bigint)")
    world.create(pipeline)
    service = world.run(pipeline)
    world.send(range(100))
    until(lambda: len(world.outputs()) == 100)
    postgres.stop("postgres")
    world.send(range(100, 300))
    until(lambda: world.said("database.unreachable"))
    assert len(world.outputs()) < 300
    postgres.start_postgres()
    world.wait_drained(pipeline, 60)
    until(lambda: service.worker.store.inbox.count("done") == 300)
    service.stop()
    assert world.said("database.back")
    assert world.outputs() == [2 * n for n in range(300)]
    assert world.why(pipeline) == []
    if pipeline == "Rows":
        with psycopg.connect(postgres.postgres_url.replace("+psycopg", "")) as connection:
            rows = connection.execute("select n, count(*) from effect group by n").fetchall()
        assert sorted(rows) == [(n, 1) for n in range(300)]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of sixteen megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system needs the right to mount: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return ballast


def test_a_full_disk_pauses_the_work_until_there_is_room(world, small_disk):
    world.database = f"sqlite:///{small_disk}/books.db"
    world.create("Double")
    service = world.run("Double")
    world.send(range(50))
    until(lambda: len(world.outputs()) == 50)
    until(lambda: service.worker.store.inbox.count("done") == 50)
    ballast = fill(small_disk)
    world.send(range(50, 1500))
    until(lambda: world.said("database.unreachable"))
    assert "the disk is full" in world.said("database.unreachable")[-1]["error"]
    ballast.unlink()
    world.wait_drained("Double")
    until(lambda: service.worker.store.inbox.count("done") == 1500)
    service.stop()
    assert world.outputs() == [2 * n for n in range(1500)]
    assert world.why("Double") == []
