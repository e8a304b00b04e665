"""Detached steps: what a room does with the leases it holds, what a declaration may say, and that a stage runs them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from farandole import Attempt, Database, Pipeline, detached, step, use, when
from farandole.clock import SystemClock
from farandole.detached import Detached
from farandole.errors import Away, DatabaseUnreachable, DeclarationError, Fenced
from farandole.event import fact
from farandole.fill import plan
from farandole.kept import unpack
from farandole.manifest import read_manifest, write_manifest
from farandole.match import Signal
from farandole.owned import RUNNING, Owned
from farandole.parking import Parking
from farandole.resources import Resources
from farandole.run import Kit, Run
from farandole.store import Lease
from farandole.testing import Stage


@fact("detached.asked.v1", key=("what",))
@dataclass(frozen=True, slots=True)
class Asked:
    """What a step is asked to do."""

    what: str

    @classmethod
    def of(cls, record):
        return cls(**record)

    def record(self):
        return {"what": self.what}


go, told = threading.Event(), []


@step(detached=True)
def toil(asked: Asked, attempt: Attempt) -> str:
    """Wait to be let go, or told to end."""
    while not go.wait(0.005):
        if attempt.cancelled.is_set():
            told.append(asked.what)
            raise InterruptedError("told to end")
    if asked.what == "bad":
        raise ValueError("too heavy")
    return asked.what.upper()


class Toil(Pipeline):
    """One detached step."""

    asked = when(Asked)
    steps = [toil]
    slots = 2
    since = "now"


class Leases:
    """Leases in memory, which a test takes away, and a database that a test makes unreachable."""

    def __init__(self):
        self.held, self.away, self.released = {}, 0, []

    def take(self, lane, run_id, step, owner, milliseconds):
        if run_id in self.held:
            return None
        self.held[run_id] = Lease(run_id, step, 1, owner)
        return self.held[run_id]

    def renew(self, owner, milliseconds):
        self.ask()
        return {lease for lease in self.held.values() if lease.owner == owner}

    def release(self, leases):
        for lease in leases:
            if self.held.get(lease.run_id) == lease:
                del self.held[lease.run_id]
            self.released.append(lease)

    def free(self, run_ids):
        return {run_id for run_id in run_ids if run_id not in self.held}

    def ask(self):
        if self.away:
            self.away -= 1
            raise DatabaseUnreachable("it is away")


class Kept:
    """Checkpoints in memory, behind the same database."""

    def __init__(self, leases):
        self.leases, self.rows = leases, {}

    def load(self, run_ids):
        self.leases.ask()
        return {}

    def keep(self, lease, run_id, step, result):
        self.leases.ask()
        if self.leases.held.get(run_id) != lease:
            raise Fenced("somebody else's")
        self.rows[run_id] = unpack(result, str)[0]


class Room:
    def __init__(self):
        self.leases, self.said, clock = Leases(), [], SystemClock()
        self.kept = Kept(self.leases)
        self.parking = Parking(clock, ordered=True)
        store = SimpleNamespace(leases=self.leases)
        self.detached = Detached(store, self.parking, clock, lambda event, **_: self.said.append(event), "me")
        self.kit = Kit(Toil.declaration, plan(Toil.declaration), Resources([]), None, clock, self.kept)

    def run(self, name, *, via=("t/0/1",)):
        event = SimpleNamespace(value={})
        signal = Signal("asked", event, None, b"", b"", Asked(name))
        home = Owned("retry.toil", 0, 1, phase=RUNNING)
        return Run(name, b"", b"", (signal,), home=home, via=list(via))

    def ask(self, run):
        """How long the run is away for, or what the step gave or raised."""
        try:
            return self.detached.ask(run, self.kit.plans[0], self.kit)
        except Away as away:
            return away.pause


def until(fact):
    end = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def room(monkeypatch):
    monkeypatch.setattr(detached, "LEASE", 0.2)
    monkeypatch.setattr(detached, "BEAT", 0.02)
    monkeypatch.setattr(detached, "LOOK", 0.01)
    monkeypatch.setattr(detached, "TIDY", 1.0)
    go.clear()
    told.clear()
    made = Room()
    yield made
    go.set()
    made.detached.close()


FOR_EVER = float("inf")


def test_a_run_leaves_its_own_partition_before_its_detached_step_begins(room):
    assert room.ask(room.run("a", via=())) == 0.0
    assert (room.detached.busy, room.leases.held) == (False, {})


def test_what_a_step_gave_is_kept_under_its_lease_and_the_lease_let_go(room):
    assert room.ask(room.run("a")) == FOR_EVER
    until(lambda: room.detached.busy)
    assert room.ask(room.run("a")) == FOR_EVER, "it is under way: not begun twice"
    go.set()
    until(lambda: not room.detached.busy and not room.leases.held)

    assert room.kept.rows == {"a": "A"}
    assert room.said.count("detached.begun") == 1
    assert room.detached.gave("a", "before") == 0
    assert room.detached.gave("a", "toil") > 1_600_000_000_000
    assert room.detached.gave("a", "toil") == 0


def test_what_a_step_raised_is_raised_where_the_run_goes_on_once(room):
    go.set()
    room.ask(room.run("bad"))
    until(lambda: not room.detached.busy)
    go.clear()

    with pytest.raises(ValueError, match="too heavy"):
        room.ask(room.run("bad"))
    until(lambda: not room.leases.held)
    assert room.ask(room.run("bad")) == FOR_EVER, "the next attempt"
    assert room.detached.busy


def test_it_does_as_many_at_a_time_as_it_has_slots(room):
    assert [room.ask(room.run(name)) for name in "abc"] == [FOR_EVER, FOR_EVER, detached.LOOK]
    assert set(room.leases.held) == {"a", "b"}


def test_who_lost_its_lease_is_told_to_end_and_keeps_nothing(room):
    room.ask(room.run("a"))
    room.leases.held["a"] = Lease("a", "toil", 2, "somebody else")

    until(lambda: told == ["a"])
    until(lambda: not room.detached.busy)
    assert "lease.lost" in room.said
    assert room.kept.rows == {}
    assert room.leases.held["a"].owner == "somebody else"


def test_a_database_that_is_away_for_less_than_a_lease_costs_nothing(room):
    room.ask(room.run("a"))
    room.leases.away = 3
    until(lambda: room.leases.away == 0)
    room.leases.away = 2
    go.set()
    until(lambda: not room.detached.busy)

    assert room.kept.rows == {"a": "A"}
    assert told == []


def test_a_holder_that_cannot_show_a_sign_of_life_for_a_lease_gives_up(room):
    room.ask(room.run("a"))
    room.leases.away = 10_000

    until(lambda: told == ["a"])
    assert "lease.lost" in room.said


def test_a_lease_that_was_given_up_here_is_not_renewed_for_ever(room):
    room.ask(room.run("a"))
    room.ask(room.run("b"))
    stray = Lease("c", "toil", 1, "me")
    room.leases.held["c"] = stray

    until(lambda: stray in room.leases.released)
    assert set(room.leases.held) == {"a", "b"}


def test_at_the_end_what_is_under_way_is_told_so_and_handed_over(room):
    room.ask(room.run("a"))
    room.detached.close()

    assert (told, room.leases.held) == (["a"], {})
    assert "detached.handed.over" in room.said
    assert room.ask(room.run("b")) == detached.LOOK, "nothing begins any more"


def test_a_stage_asks_it_as_any_other_step():
    go.set()
    stage = Stage(Toil)
    stage.tell(Asked("a"), Asked("b"))
    assert [entry.state for entry in stage.ledger if entry.kind == "run"] == ["done", "done"]


def test_a_detached_step_beside_one_that_writes_to_our_database_is_refused():
    def store(asked: Asked, database: Database) -> None:
        database.execute("SELECT 1")

    class Wrong(Pipeline):
        """Wrong."""

        asked = when(Asked)
        steps = [toil, store]
        since = "now"

    with pytest.raises(DeclarationError, match=r"toil is detached, and .* writes to its Database"):
        plan(Wrong.declaration)


def test_detached_is_yes_or_no_and_the_same_in_yaml(tmp_path):
    written = write_manifest(Toil.declaration)
    assert "detached: true" in written
    (tmp_path / "pipeline.yaml").write_text(written)
    assert read_manifest(tmp_path / "pipeline.yaml") == Toil.declaration
    with pytest.raises(DeclarationError, match="detached is 'soon'"):

        class Wrong(Pipeline):
            """Wrong."""

            asked = when(Asked)
            steps = [use("rows.check", {}, detached="soon")]
            since = "now"
