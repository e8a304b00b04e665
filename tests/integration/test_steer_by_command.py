"""`farandole pause|resume|audit` and `runs cancel|release|reschedule`, with nothing but a broker and the registry."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner

from farandole.cli.runs import runs
from farandole.cli.steer import audit, pause, resume
from farandole.control import Command, pipeline_id, run_id_of
from farandole.errors import FarandoleError
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.kafka.registry import Registry
from farandole.ledger.database import open_projection
from farandole.ledger.entry import Entry
from farandole.ledger.projection import Line, project
from farandole.topics import AUDIT, CONTROL, own_schemas

REASON = "the lake is being moved"


class Desk:
    """A person's desk: a folder, servers by environment, and one pipeline on the cluster."""

    def __init__(self, stack, folder):
        self.folder, self.pipeline = folder, stack.unique("steered")
        self.registry = Registry(stack.registry_url)
        admin = Admin(stack.bootstrap_servers)
        settings = {"message.timestamp.type": "LogAppendTime"}
        for topic, policy in ((CONTROL, "compact"), (AUDIT, "delete")):
            admin.create(topic, partitions=1, replication=1, settings={"cleanup.policy": policy, **settings})
            self.registry.register(f"{topic}-value", own_schemas()[topic])
        admin.create(f"dlq.{self.pipeline}", partitions=1, replication=1, settings={})
        self.control = Control(stack.bootstrap_servers, Codec(self.registry, own_schemas()))

    def see(self, command, *arguments):
        """What a person reads."""
        options = {"standalone_mode": False, "catch_exceptions": False}
        return CliRunner().invoke(command, [*arguments, "-o", "table"], **options).stdout

    def ask(self, command, *arguments):
        options = {"standalone_mode": False, "catch_exceptions": False}
        told = CliRunner().invoke(command, list(arguments), **options)
        return [json.loads(line) for line in told.stdout.splitlines()]

    def standing(self, name=""):
        name = name or pipeline_id(self.pipeline)
        return self.control.load(name).get(name)

    def project(self, *entries):
        """A projection that knows these runs."""
        database = open_projection(f"sqlite:///{self.folder}/books/projector.db")
        with database.writing() as conn:
            lines = [Line(0, n, e, e.id, 1000 + n) for n, e in enumerate(entries)]
            project(conn, lines, checked_at={0: round(datetime.now(UTC).timestamp() * 1000)})
        database.close()

    def run(self, state):
        """The id of a run that the projection knows in this state."""
        run_id = str(uuid.uuid4())
        self.project(Entry("run", self.pipeline, run_id, state=state))
        return run_id


@pytest.fixture
def desk(stack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BROKERS", "FARANDOLE_DATABASE_URL", "FARANDOLE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FARANDOLE_STATE", str(tmp_path))
    monkeypatch.setenv("FARANDOLE_ACTOR", "ada")
    made = Desk(stack, tmp_path)
    yield made
    made.registry.close()


def test_a_pause_says_what_will_happen_and_how_to_go_on_and_needs_no_database(desk):
    said = desk.see(pause, desk.pipeline, "--reason", REASON)
    assert said.splitlines() == [
        f"paused {desk.pipeline}: {REASON}",
        "  no instance of it runs; whichever starts will wait",
        f"  go on with   farandole resume {desk.pipeline}",
    ]
    stands = desk.standing()
    assert (stands.kind, stands.pipeline, stands.actor, stands.reason) == ("pause", desk.pipeline, "ada", REASON)
    assert not (desk.folder / "books").exists()


def test_a_second_pause_tells_of_the_first(desk, monkeypatch):
    desk.see(pause, desk.pipeline, "--reason", REASON)
    monkeypatch.setenv("FARANDOLE_ACTOR", "bob")
    assert f"it was paused already, by ada ({REASON})" in desk.see(pause, desk.pipeline, "--reason", "me too")
    assert desk.standing().actor == "bob"


def test_a_resume_tells_who_had_paused_it_and_one_of_what_runs_says_so(desk):
    desk.see(pause, desk.pipeline, "--reason", REASON)
    said = desk.see(resume, desk.pipeline)
    assert f"resumed {desk.pipeline}, which ada had paused at" in said
    assert f"({REASON})" in said
    assert desk.standing().kind == "resume"
    assert desk.see(resume, desk.pipeline) == f"{desk.pipeline} was not paused; it goes on as it did\n"


def test_a_pause_needs_a_reason(desk):
    with pytest.raises(click.UsageError, match="reason"):
        desk.see(pause, desk.pipeline)
    assert desk.standing() is None


@pytest.mark.parametrize("command", [pause, resume])
def test_an_unknown_pipeline_is_refused_with_the_nearest_name(desk, command):
    with pytest.raises(FarandoleError) as raised:
        desk.see(command, desk.pipeline[:-1], "--reason", REASON)
    assert "there is no pipeline" in raised.value.message
    assert raised.value.hint == f"did you mean `{desk.pipeline}`?"


def test_the_audit_has_every_act_with_actor_reason_and_time_the_newest_first(desk, monkeypatch):
    desk.see(pause, desk.pipeline, "--reason", REASON)
    monkeypatch.setenv("FARANDOLE_ACTOR", "bob")
    desk.see(resume, desk.pipeline, "--reason", "it has moved")
    run = desk.run("parked")
    desk.see(runs, "release", run)

    told = desk.ask(audit, desk.pipeline)
    assert [(t["act"], t["actor"], t["reason"], t["run_id"]) for t in told] == [
        ("release", "bob", "", run),
        ("resume", "bob", "it has moved", ""),
        ("pause", "ada", REASON, ""),
    ]
    moments = [datetime.fromisoformat(t["at"]) for t in told]
    assert moments == sorted(moments, reverse=True)
    assert datetime.now(UTC) - moments[0] < timedelta(minutes=1)
    assert [t["act"] for t in desk.ask(audit, desk.pipeline, "--limit", "1")] == ["release"]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert desk.ask(audit, desk.pipeline, "--since", tomorrow) == []
    assert {t["pipeline"] for t in desk.ask(audit)} >= {desk.pipeline}
    assert REASON in desk.see(audit, desk.pipeline)


def test_a_command_that_was_given_again_because_its_end_was_unknown_is_one_act(desk):
    twice = Command(pipeline_id(desk.pipeline), "pause", desk.pipeline, actor="ada", reason=REASON, at=1000)
    desk.control.give(twice)
    desk.control.give(twice)
    assert len(desk.ask(audit, desk.pipeline)) == 1


def test_a_parked_run_is_found_by_the_beginning_of_its_id(desk):
    run = desk.run("parked")
    [told] = desk.ask(runs, "cancel", run[:8], "--reason", "the order was withdrawn")
    stands = desk.standing(run_id_of(run))
    assert (stands.kind, stands.pipeline, stands.reason) == ("cancel", desk.pipeline, "the order was withdrawn")
    assert (told["run_id"], told["act"]) == (run, "cancel")
    assert "ends before its next step, dead" in desk.see(runs, "cancel", run, "--reason", "really")


def test_a_run_that_no_projection_knows_is_taken_by_its_whole_id_alone(desk):
    run = str(uuid.uuid4())
    assert "by whichever pipeline has it" in desk.see(runs, "cancel", run, "--reason", "it hangs")
    stands = desk.standing(run_id_of(run))
    assert (stands.kind, stands.run_id, stands.pipeline) == ("cancel", run, "")
    with pytest.raises(FarandoleError):
        desk.see(runs, "cancel", run[:8], "--reason", "it hangs")
    assert f"of {desk.pipeline}" in desk.see(runs, "cancel", run, "--reason", "it hangs", "--pipeline", desk.pipeline)


def test_a_run_is_moved_to_a_time_or_by_a_span(desk):
    run = desk.run("parked")
    desk.see(runs, "reschedule", run, "--at", "2033-01-01T06:00Z")
    assert desk.standing(run_id_of(run)).due == 1_988_172_000_000
    desk.see(runs, "reschedule", run, "--in", "2h")
    moved = desk.standing(run_id_of(run))
    assert moved.due - moved.at == pytest.approx(7_200_000, abs=5000)
    for wrong in ([], ["--in", "2h", "--at", "2033-01-01"], ["--in", "soon"], ["--at", "soon"]):
        with pytest.raises(click.UsageError):
            desk.see(runs, "reschedule", run, *wrong)


@pytest.mark.parametrize(
    ("act", "state"), [("cancel", "done"), ("release", "dead"), ("reschedule", "waiting"), ("release", "caught")]
)
def test_a_run_that_has_nothing_to_do_with_it_is_refused_with_its_state(desk, act, state):
    run = desk.run(state)
    more = {"cancel": ["--reason", "x"], "release": [], "reschedule": ["--in", "2h"]}[act]
    with pytest.raises(FarandoleError, match=f"is {state}: there is nothing to {act}"):
        desk.see(runs, act, run, *more)
    assert desk.standing(run_id_of(run)) is None
