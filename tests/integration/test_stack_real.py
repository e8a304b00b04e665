"""Real servers, started, lost, found and stopped by the project's own launcher."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from farandole.errors import BrokerUnreachable, RegistryUnreachable, SettingsError, StackError
from farandole.kafka.probe import wait_for_broker
from farandole.settings import load_settings
from farandole.stack import containers, external, process
from farandole.stack.launcher import Stack, is_running
from farandole.stack.progress import Progress

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(os.environ.get("FARANDOLE_STACK") == "containers", reason="these test the local launcher"),
]


@pytest.fixture
def place():
    """A folder of our own: pytest's are closed to PostgreSQL's user each time another session of pytest begins."""
    with tempfile.TemporaryDirectory(prefix="farandole-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def folder(place, monkeypatch):
    """An empty state folder; whatever runs in it afterwards is stopped, and must then be gone."""
    for name in list(os.environ):
        if name.startswith(("KAFKA_", "SCHEMA_REGISTRY_", "FARANDOLE_")) and name not in (
            "FARANDOLE_CACHE",
            "FARANDOLE_MAVEN_MIRROR",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FARANDOLE_STATE", str(place / ".farandole"))
    yield place / ".farandole"
    Stack(place / ".farandole").down()
    assert processes_of(place) == []


def processes_of(folder: Path) -> list[str]:
    """Every process whose command line names a file in this folder."""
    return [
        " ".join(found.info["cmdline"])[:200]
        for found in psutil.process_iter(["cmdline", "status"])
        if found.info["status"] != psutil.STATUS_ZOMBIE
        and any(str(folder) in word for word in found.info["cmdline"] or ())
    ]


def farandole(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [sys.executable, "-m", "farandole", *words], capture_output=True, text=True, env=environment, check=False
    )


def make_topic(address: str, name: str) -> None:
    admin = wait_for_broker(address, 10)
    admin.create_topics([NewTopic(name, 1)])[name].result(30)


def topics(address: str) -> set[str]:
    return set(wait_for_broker(address, 10).list_topics(timeout=10).topics)


def register(url: str, subject: str) -> int:
    body = {
        "schema": json.dumps(
            {"type": "record", "name": "R", "fields": [{"name": subject.replace("-", "_"), "type": "int"}]}
        )
    }
    answer = httpx2.post(f"{url}/subjects/{subject}/versions", json=body, trust_env=False)
    return int(answer.raise_for_status().json()["id"])


def schema_ids(url: str, subject: str) -> list[int]:
    answer = httpx2.get(f"{url}/subjects/{subject}/versions/latest", trust_env=False)
    return [answer.json()["id"]] if answer.is_success else []


def test_a_stack_keeps_its_data_and_ports_and_is_never_started_twice(folder):
    stack = Stack(folder)
    first = {server.name: server for server in stack.up(with_postgres=True)}
    make_topic(stack.bootstrap_servers, "kept")
    schema = register(stack.registry_url, "kept-value")
    with psycopg.connect(stack.postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("create table kept ()")

    again = {server.name: server for server in Stack(folder).up(with_postgres=True)}
    assert again == first

    assert sorted(stack.down()) == ["kafka", "postgres", "registry"]
    assert [running for _, running in stack.status()] == [False] * 3
    assert processes_of(folder) == []

    later = {server.name: server for server in Stack(folder).up(with_postgres=True)}
    assert {name: server.ports for name, server in later.items()} == {
        name: server.ports for name, server in first.items()
    }
    assert "kept" in topics(stack.bootstrap_servers)
    assert schema_ids(stack.registry_url, "kept-value") == [schema]
    with psycopg.connect(stack.postgres_url.replace("+psycopg", "")) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


def test_what_was_acknowledged_survives_sigkill(folder):
    stack = Stack(folder)
    stack.up()
    ids = [register(stack.registry_url, f"s{number}") for number in range(20)]
    stack.kill("registry")
    make_topic(stack.bootstrap_servers, "acknowledged")
    stack.kill("kafka")

    stack.up()

    assert [schema_ids(stack.registry_url, f"s{number}") for number in range(20)] == [[each] for each in ids]
    assert register(stack.registry_url, "another") not in ids
    assert "acknowledged" in topics(stack.bootstrap_servers)


def test_servers_outlive_a_killed_parent_and_another_process_stops_them(folder):
    code = f"from farandole.stack.launcher import Stack; Stack({str(folder)!r}).up(); print('up', flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    try:
        assert parent.stdout.readline() == b"up\n"
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()

    assert all(running for _, running in Stack(folder).status())
    settings = load_settings()
    assert topics(settings.bootstrap()) is not None
    assert register(settings.registry(), "alive") > 0

    done = farandole("down")

    assert (done.returncode, done.stderr) == (0, "")
    assert processes_of(folder) == []


def test_a_stack_that_was_interrupted_while_it_started_is_found_and_stopped(folder):
    code = f"from farandole.stack.launcher import Stack; Stack({str(folder)!r}).up()"
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, cwd=ROOT)
    for line in parent.stderr:
        if line.startswith(b"kafka     starting"):
            break
    parent.kill()
    parent.communicate()

    Stack(folder).down()

    assert processes_of(folder) == []


def test_a_server_that_was_started_and_not_noted_is_stopped_too(folder):
    stack = Stack(folder)
    kafka = stack.start_kafka()
    (folder / "stack.json").unlink()
    assert processes_of(folder)

    Stack(folder).down()

    assert not process.is_alive(kafka.pid, kafka.started)
    assert processes_of(folder) == []


def test_taken_ports_are_left_to_their_owners(folder):
    with contextlib.ExitStack() as owners:
        for port in (9092, 8081):
            if process.is_free(port):  # else somebody has it already, which is what this wants
                owners.enter_context(socket.create_server((process.HOST, port)))
        servers = {server.name: server for server in Stack(folder).up()}

    assert servers["kafka"].ports["client"] != 9092
    assert servers["registry"].ports["http"] != 8081
    make_topic(servers["kafka"].address, "reached")  # the advertised listener is the one that was chosen
    assert load_settings().bootstrap() == servers["kafka"].address


def test_a_port_that_was_lost_while_down_is_replaced_and_the_data_kept(folder):
    stack = Stack(folder)
    before = stack.start_kafka(port=process.free_ports({"client": 0})["client"])
    make_topic(before.address, "kept")
    stack.down()

    with (
        socket.create_server((process.HOST, before.ports["client"])),
        socket.create_server((process.HOST, before.ports["controller"])),
    ):
        after = stack.start_kafka()

    assert set(after.ports.values()).isdisjoint(before.ports.values())
    assert "kept" in topics(after.address)


def test_two_folders_are_two_stacks(folder, place):
    other = Stack(place / "other")
    try:
        with ThreadPoolExecutor(2) as pool:
            servers = [server for each in pool.map(Stack.up, [Stack(folder), other]) for server in each]
        make_topic(other.bootstrap_servers, "only-there")

        assert len({port for server in servers for port in server.ports.values()}) == 8
        assert "only-there" not in topics(Stack(folder).bootstrap_servers)
    finally:
        other.down()


def test_two_ups_at_once_start_one_stack(folder):
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: farandole("up", "-o", "json"), range(2))

    assert (one.returncode, two.returncode) == (0, 0)
    assert json.loads(one.stdout) == json.loads(two.stdout)
    assert "is at work on" in one.stderr + two.stderr


def test_neither_java_nor_docker_nor_anything_else_is_needed_from_the_path(folder, tmp_path):
    (tmp_path / "empty").mkdir()

    done = farandole("up", "-o", "json", PATH=str(tmp_path / "empty"), JAVA_HOME="/nonexistent")

    assert done.returncode == 0, done.stderr
    assert [row["server"] for row in json.loads(done.stdout)] == ["kafka", "registry"]
    assert farandole("doctor", PATH=str(tmp_path / "empty")).returncode == 0


def test_a_server_that_dies_at_its_start_shows_its_log(folder):
    with pytest.raises(StackError, match="kafka died at its start") as caught:
        Stack(folder).start_kafka(properties={"metric.reporters": "not.there.Reporter"})

    assert "not.there.Reporter" in caught.value.message
    assert Stack(folder).status()[0][0].properties == {}  # not kept: the next start would die of it too
    assert caught.value.place == str(folder / "logs" / "kafka.log")
    assert Path(caught.value.place).exists()


def test_a_wrong_broker_property_is_named(folder):
    with pytest.raises(StackError, match=r"Invalid value never for configuration log\.retention\.ms") as caught:
        Stack(folder).start_kafka(properties={"log.retention.ms": "never"})

    assert caught.value.place == str(folder / "kafka" / "server.properties")


def test_properties_are_the_brokers_and_are_kept(folder):
    stack = Stack(folder, progress=Progress(quiet=True))
    stack.start_kafka(properties={"message.max.bytes": "123456"})
    stack.stop_kafka()
    stack.start_kafka()

    assert "message.max.bytes=123456" in (folder / "kafka" / "server.properties").read_text()
    with pytest.raises(StackError, match="runs already, with other properties"):
        stack.up(properties={"message.max.bytes": "654321"})


def test_one_server_stops_and_starts_while_the_other_goes_on(folder):
    stack = Stack(folder)
    stack.up()

    stack.stop_registry()
    assert {server.name: running for server, running in stack.status()} == {"kafka": True, "registry": False}
    assert not process.is_open(int(stack.registry_url.split(":")[2].split("/")[0]))
    assert topics(stack.bootstrap_servers) is not None

    assert is_running(stack.start_registry())
    assert register(stack.registry_url, "back") > 0


def replication(address: str, topic: str) -> list[tuple[int, int]]:
    """By partition, how many replicas there are and how many are in sync."""
    found = wait_for_broker(address, 10).list_topics(topic, 10).topics[topic].partitions.values()
    return [(len(p.replicas), len(p.isrs)) for p in found]


def test_of_three_brokers_any_one_may_go_and_what_was_acknowledged_stays(folder):
    done = farandole("up", "--brokers", "3", "-o", "json")
    assert done.returncode == 0, done.stderr
    rows = {row["server"]: row for row in json.loads(done.stdout)}
    assert sorted(rows) == ["kafka", "kafka-2", "kafka-3", "registry"]
    stack = Stack(folder)
    assert (
        load_settings().bootstrap() == stack.bootstrap_servers == ",".join(rows[n]["address"] for n in sorted(rows)[:3])
    )
    make_topic(stack.bootstrap_servers, "of-three")
    transact(stack.bootstrap_servers, "of-three", b"first")

    stack.kill("kafka")

    transact(stack.bootstrap_servers, "of-three", b"second")
    wait_until(lambda: replication(rows["kafka-2"]["address"], "of-three") == [(3, 2)])  # heard a moment later
    assert replication(rows["kafka-2"]["address"], "__transaction_state")[0][0] == 3
    found = {line["check"]: line["state"] for line in json.loads(farandole("doctor", "-o", "json").stdout)}
    assert [found[f"stack {name}"] for name in ("kafka", "kafka-2", "kafka-3")] == ["warn", "ok", "ok"]

    again = farandole("up", "-o", "json")
    assert [row["pid"] for row in json.loads(again.stdout) if row["server"] in ("kafka-2", "kafka-3", "registry")] == [
        rows[name]["pid"] for name in ("kafka-2", "kafka-3", "registry")
    ]
    wait_until(lambda: replication(stack.bootstrap_servers, "of-three") == [(3, 3)])
    assert committed(stack.bootstrap_servers, "of-three") == [b"first", b"second"]
    with pytest.raises(StackError, match="was made with 3 brokers"):
        stack.up(brokers=1)
    assert "stopped kafka, kafka-2, kafka-3, registry" in farandole("down").stdout


def transact(address: str, topic: str, value: bytes) -> None:
    """One record in a transaction."""
    producer = Producer({"bootstrap.servers": address, "transactional.id": "of-three", "log_level": 0})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.commit_transaction(60)


def committed(address: str, topic: str) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while len(found) < 2 and (message := consumer.poll(30)) is not None:
        if message.error() is None:
            found.append(message.value())
    consumer.close()
    return found


def wait_until(told: Callable[[], bool], timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not told():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.2)


def test_a_listener_of_ones_own_stands_beside_the_launchers(folder):
    stack, port = Stack(folder), process.free_ports({"own": 0})["own"]
    stack.start_kafka(
        properties={
            "listeners": f"MINE://127.0.0.1:{port}",
            "advertised.listeners": f"MINE://127.0.0.1:{port}",
            "listener.security.protocol.map": "MINE:PLAINTEXT",
        }
    )
    make_topic(f"127.0.0.1:{port}", "by-mine")
    assert "by-mine" in topics(stack.bootstrap_servers)
    [broker] = wait_for_broker(f"127.0.0.1:{port}", 10).list_topics(timeout=10).brokers.values()
    assert broker.port == port


def test_how_many_brokers_somebody_else_has_is_not_ours_to_say(folder):
    done = farandole("up", "--brokers", "3", FARANDOLE_STACK="external")
    assert done.returncode == 64
    assert "--brokers" in done.stderr


def test_external_servers_are_named_and_checked(folder, monkeypatch):
    stack = Stack(folder)
    stack.up()
    named = {"KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers, "SCHEMA_REGISTRY_URL": stack.registry_url}

    done = farandole("up", FARANDOLE_STACK="external", FARANDOLE_STATE="/nonexistent", **named)
    assert done.returncode == 0
    assert stack.bootstrap_servers in done.stdout
    assert stack.registry_url in done.stdout

    monkeypatch.setenv("FARANDOLE_STACK", "external")
    with pytest.raises(SettingsError) as unnamed:
        external.check(load_settings())
    assert unnamed.value.place == "KAFKA_BOOTSTRAP_SERVERS"

    for name, value in named.items():
        monkeypatch.setenv(name, value)
    stack.stop_registry()
    with pytest.raises(RegistryUnreachable) as silent:
        external.check(load_settings())
    assert (silent.value.place, "SCHEMA_REGISTRY_URL" in silent.value.hint) == (stack.registry_url, True)

    stack.stop_kafka()
    with pytest.raises(BrokerUnreachable) as gone:
        external.check(load_settings(), patience=0.5)
    assert (gone.value.place, "KAFKA_BOOTSTRAP_SERVERS" in gone.value.hint) == (stack.bootstrap_servers, True)


def test_the_doctor_is_content_with_a_running_stack_and_names_a_stopped_server(folder):
    stack = Stack(folder)
    stack.up(with_postgres=True)

    well = farandole("doctor", "-o", "json")
    found = {row["check"]: (row["state"], row["says"]) for row in json.loads(well.stdout)}
    assert well.returncode == 0, found
    assert found["transactions"][0] == found["group protocol"][0] == found["registry"][0] == "ok"
    assert found["database"] == ("ok", "PostgreSQL 18")

    stack.stop("postgres")
    stack.stop_registry()
    ill = farandole("doctor")
    assert ill.returncode == 3
    assert "stopped; its log is" in ill.stdout
    assert "farandole up" in ill.stdout


def test_containers_serve_the_same_stack_where_docker_answers(folder):
    try:
        servers = {server.name: server for server in containers.up(folder)}
    except StackError as error:
        pytest.skip(error.message)
    try:
        make_topic(servers["kafka"].address, "contained")
        assert register(servers["registry"].address, "contained") > 0
    finally:
        containers.down(folder)
