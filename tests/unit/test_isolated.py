"""An isolated step in a real child process: what it gives, raises, dies of, and that it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from farandole import Attempt, Database, Pipeline, resource, step, use, when
from farandole.calling import Flag
from farandole.clock import SystemClock
from farandole.deadletter import failure_of
from farandole.errors import DeclarationError, GivenUp, StepDied, Unpicklable
from farandole.event import fact
from farandole.fill import plan
from farandole.isolated import Children
from farandole.manifest import read_manifest, write_manifest


@fact("isolated.asked.v1", key=("what",))
@dataclass(frozen=True, slots=True)
class Asked:
    """What a step is asked to do."""

    what: str
    path: str = ""

    @classmethod
    def of(cls, record):
        return cls(**record)


class Place:
    """A resource that says when it is opened and closed."""


@resource(read_only=True)
def place() -> Iterator[Place]:
    yield Place()
    if "ISOLATED_CLOSED" in os.environ:
        Path(os.environ["ISOLATED_CLOSED"]).touch()


class Odd(OSError):
    """It is packed and cannot be unpacked."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def crash():
    ctypes.string_at(0)


def sleep_deaf(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(path)


def sleep(path):
    Path(path).write_text(str(os.getpid()))
    try:
        time.sleep(60)
    finally:
        Path(path).with_suffix(".tidy").touch()


DEEDS = {
    "pid": lambda _: os.getpid(),
    "exit": lambda _: os._exit(7),
    "quit": lambda _: sys.exit("enough"),
    "crash": lambda _: crash(),
    "wrong": lambda _: int("seven"),
    "odd": lambda _: (_ for _ in ()).throw(Odd("a", "b")),
    "lock": lambda _: threading.Lock(),
    "sleep": sleep,
    "deaf": sleep_deaf,
}


@step(isolate=True, timeout="20s")
def do(asked: Asked, attempt: Attempt, place: Place) -> object:
    assert isinstance(place, Place)
    assert not attempt.cancelled.is_set()
    return DEEDS[asked.what](asked.path)


class Isolated(Pipeline):
    """One isolated step."""

    asked = when(Asked)
    steps = [do]
    since = "now"


@pytest.fixture
def children():
    made = Children(Isolated.declaration, SystemClock())
    yield made
    made.close()


def ask(children, what, path="", *, timeout=30.0, flag=None):
    return children.call(0, [Asked(what, str(path)), Attempt("k", 1, "r"), None], timeout, flag or Flag())


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_runs_in_a_process_of_its_own_that_stays_for_the_next_call(children):
    first = ask(children, "pid")
    assert first != os.getpid()
    assert ask(children, "pid") == first


def test_what_it_raises_comes_back_as_it_was_with_the_traceback_as_its_cause(children):
    with pytest.raises(ValueError, match="invalid literal") as raised:
        ask(children, "wrong")
    assert 'int("seven")' in str(raised.value.__cause__)


def test_the_place_of_its_fingerprint_is_where_it_was_raised(children):
    with pytest.raises(ValueError, match="invalid literal") as raised:
        ask(children, "wrong")
    told = failure_of(raised.value, "run", "work", "unit").fingerprint
    raised.value.__cause__ = None
    assert failure_of(raised.value, "run", "work", "unit").fingerprint != told


def test_an_error_that_cannot_be_unpacked_comes_back_under_the_names_of_its_classes(children):
    with pytest.raises(OSError, match="a and b") as raised:
        ask(children, "odd")
    assert [c.__name__ for c in type(raised.value).__mro__[:2]] == ["Odd", "OSError"]
    assert type(raised.value).__module__ == __name__
    assert "throw(Odd" in str(raised.value.__cause__)


def test_a_step_that_exits_in_python_raises_and_its_process_stays(children):
    before = ask(children, "pid")
    with pytest.raises(SystemExit, match="enough"):
        ask(children, "quit")
    assert ask(children, "pid") == before


@pytest.mark.parametrize(("what", "how"), [("exit", "exit code 7"), ("crash", "signal SIGSEGV")])
def test_a_process_that_dies_is_a_failure_and_the_next_call_has_a_new_one(children, what, how):
    before = ask(children, "pid")
    with pytest.raises(StepDied, match=f"the process of do ended: {how}") as died:
        ask(children, what)
    assert "the service lives on" in died.value.hint
    assert ask(children, "pid") != before


def test_what_cannot_travel_is_said_for_results_and_for_arguments(children):
    with pytest.raises(Unpicklable, match="the result of do cannot travel"):
        ask(children, "lock")
    with pytest.raises(Unpicklable, match="an argument of do cannot travel"):
        children.call(0, [threading.Lock(), None, None], None, Flag())


@pytest.mark.parametrize("what", ["sleep", "deaf"])
def test_when_its_time_is_over_it_is_gone_before_anybody_hears_of_it(children, tmp_path, what, monkeypatch):
    monkeypatch.setattr("farandole.isolated.KILL_AFTER", 0.5)
    ask(children, "pid")
    with pytest.raises(TimeoutError, match="do gave no result within 1 s; its process was killed"):
        ask(children, what, tmp_path / "pid", timeout=1.0)
    assert gone(int((tmp_path / "pid").read_text()))
    assert (tmp_path / "pid.tidy").exists() == (what == "sleep"), "SIGTERM lets a step tidy up"


def asked_aside(children, path, flag):
    """A call from a thread of its own, as a slot makes it; what it raises is kept."""
    raised = []

    def slot():
        try:
            ask(children, "sleep", path, flag=flag)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=slot)
    thread.start()
    end = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return thread, raised


def test_a_cancelled_call_is_killed(children, tmp_path):
    flag = Flag()
    thread, raised = asked_aside(children, tmp_path / "pid", flag)
    flag.set()
    thread.join(10)
    assert isinstance(raised[0], GivenUp)
    assert gone(int((tmp_path / "pid").read_text()))


def test_at_the_end_of_the_service_what_works_is_killed_and_resources_are_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOLATED_CLOSED", str(tmp_path / "closed"))
    children = Children(Isolated.declaration, SystemClock())
    thread, raised = asked_aside(children, tmp_path / "pid", Flag())
    children.close()
    thread.join(10)
    assert len(raised) == 1
    assert gone(int((tmp_path / "pid").read_text()))
    assert (tmp_path / "closed").exists()
    with pytest.raises(GivenUp):
        ask(children, "pid")


@step(isolate=True)
def store(asked: Asked, database: Database) -> None:
    database.execute("SELECT 1")


@step(isolate=True)
async def wait(asked: Asked) -> None:
    """Async."""


@pytest.mark.parametrize(
    ("function", "says"),
    [(store, "is isolated and asks for the Database"), (wait, "is isolated and async")],
)
def test_an_isolated_step_that_cannot_be_is_refused(function, says):
    class Wrong(Pipeline):
        """Wrong."""

        asked = when(Asked)
        steps = [function]
        since = "now"

    with pytest.raises(DeclarationError, match=says) as refused:
        plan(Wrong.declaration)
    assert "take isolate" in str(refused.value)


def test_an_isolated_step_inside_a_function_is_refused():
    @step(isolate=True)
    def local(asked: Asked) -> None:
        """Nobody else can find it."""

    class Wrong(Pipeline):
        """Wrong."""

        asked = when(Asked)
        steps = [local]
        since = "now"

    with pytest.raises(DeclarationError, match="stands inside a function"):
        plan(Wrong.declaration)


def test_isolate_is_yes_or_no():
    with pytest.raises(DeclarationError, match="isolate is 'soon'"):

        class Wrong(Pipeline):
            """Wrong."""

            asked = when(Asked)
            steps = [use("rows.check", {}, isolate="soon")]
            since = "now"


def test_isolate_is_the_same_in_yaml(tmp_path):
    written = write_manifest(Isolated.declaration)
    assert "isolate: true" in written
    (tmp_path / "pipeline.yaml").write_text(written)
    assert read_manifest(tmp_path / "pipeline.yaml") == Isolated.declaration
    (tmp_path / "pipeline.yaml").write_text(written.replace("isolate: true", "isolate: soon"))
    with pytest.raises(DeclarationError, match="isolate is 'soon'"):
        read_manifest(tmp_path / "pipeline.yaml")
