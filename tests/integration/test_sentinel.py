"""The sentinel on a real broker, with a clock that the test moves and a receiver of webhooks that is really there."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from farandole.cli import cli
from farandole.clock import ManualClock
from farandole.errors import FarandoleError
from farandole.event import Envelope, Record
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.expectations import Expectations, Tail
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, Entry, ledger_partition
from farandole.service import schemas
from farandole.settings import load_settings
from farandole.topics import AUDIT, CONTROL, EXPECTATIONS, own_schemas
from farandole.topology.desired import read_desired
from services.projector.service import main as project
from services.sentinel.service import main
from tests.integration.runtime_world import said, until

ROOT = Path(__file__).parents[2]
LANDED = "lake.file.landed.v1"
EXPECTED = """
expectations:
  {0}: {{event: lake.file.landed.v1, where: "source == '{0}'", by: 06:30 America/New_York, grace: 30m}}
"""
PIPELINE = """
pipeline: {0}
about: A pipeline whose runs the test writes into the ledger.
since: now
when: {{file: {{event: lake.file.landed.v1}}}}
steps: [{{call: builtins:print}}]
expect: {{by: 06:30 America/New_York, grace: 30m}}
"""


class Receiver(ThreadingHTTPServer):
    """What webhooks are sent to: it keeps their JSON. While `down` it answers 503."""

    def __init__(self) -> None:
        received: list[dict[str, str]] = []
        self.received, self.down = received, False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(503 if server.down else 200)
                self.end_headers()
                if not server.down:
                    received.append(told)

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def titles(self, name: str) -> list[str]:
        return [one["title"].partition(",")[0] for one in self.received if name in one["title"]]


class Watch:
    """Expectations of one name, the services that watch them, and the topics they look at."""

    def __init__(self, stack, folder: Path, monkeypatch) -> None:
        self.name = stack.unique("feed").replace("_", "-")
        self.folder, self.receiver = folder, Receiver()
        self.clock = ManualClock(datetime.now(UTC))
        for key, value in stack.environment().items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("FARANDOLE_STACK", "external")
        monkeypatch.setenv("FARANDOLE_SCHEMAS", str(ROOT / "schemas/avro"))
        monkeypatch.setenv("FARANDOLE_ALERT_ROUTES", f"json://127.0.0.1:{self.receiver.server_port}/alerts")
        monkeypatch.setenv("FARANDOLE_DATABASE_URL", f"sqlite:///{folder}/{{pipeline}}.db")
        monkeypatch.chdir(folder)
        self.bootstrap = stack.bootstrap_servers
        self.registry = Registry(stack.registry_url)
        topics = {EXPECTATIONS, LANDED, LEDGER_TOPIC, AUDIT, CONTROL}
        for one in read_desired(ROOT, []).topics:
            if one.name in topics:
                self.registry.register(f"{one.name}-value", {**schemas(), **own_schemas()}[one.name])
                Admin(self.bootstrap).create(one.name, partitions=one.partitions, replication=1, settings=one.settings)
        self.codec = Codec(self.registry, schemas(), trusted=own_schemas())
        self.emitter = Emitter(self.bootstrap)
        self.running: list[tuple[threading.Event, threading.Thread]] = []
        structlog.configure(
            processors=[lambda _l, _m, line: (said.append(line), line)[1], structlog.processors.JSONRenderer()]
        )

    def start(self) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=main, args=(load_settings(), stop), kwargs={"clock": self.clock})
        thread.start()
        self.running.append((stop, thread))

    def stop(self) -> None:
        for stop, _ in self.running:
            stop.set()
        for _, thread in self.running:
            thread.join(30)
            assert not thread.is_alive()
        self.running.clear()

    def rows(self):
        with TopicReader(self.bootstrap, EXPECTATIONS) as reader:
            book = Expectations(Tail(reader), self.codec, self.emitter.send)
            book.read()
        return sorted((r for r in book.rows.values() if r.name == self.name), key=lambda row: row.deadline)

    def states(self) -> list[str]:
        return [row.state for row in self.rows()]

    def landed(self, start: datetime, end: datetime) -> None:
        value = {
            "source": self.name, "uri": "file:///x", "size": 1, "digest": "d",
            "interval": {"start": start, "end": end}, "format": "csv",
        }  # fmt: skip
        fields = {f["name"] for f in schemas()[LANDED]["fields"]}
        value = {k: v for k, v in value.items() if k in fields}
        envelope = Envelope(f"{self.name}-{start}", "/test", LANDED, start.isoformat(), "", "")
        self.emitter.send([Record(LANDED, b"k", self.codec.encode(LANDED, value), [*envelope.headers()])])

    def did(self, start: datetime, end: datetime) -> None:
        entry = Entry("run", self.name, f"{self.name}-{start}", state="done")
        value = self.codec.encode(LEDGER_TOPIC, {**entry.record(), "interval": {"start": start, "end": end}})
        count = Admin(self.bootstrap).partitions([LEDGER_TOPIC])[LEDGER_TOPIC]
        self.emitter.send([Record(LEDGER_TOPIC, entry.key, value, [], ledger_partition(self.name, count))])

    def said_by_status(self) -> tuple[int, str]:
        """The exit code of `farandole status` for the day of the first deadline, and what it calls it."""
        project(load_settings(), threading.Event(), until_drained=True)
        arguments = ["status", "--day", self.rows()[0].day, "-o", "json"]
        told = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
        stands = [one["stands"] for one in json.loads(told.stdout)["expected"] if one["name"] == self.name]
        return told.return_value, stands[0]

    def call(self, *arguments: str):
        """A command as a person gives it: its exit code and the rows that it printed."""
        done = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
        return done.return_value, [json.loads(line) for line in done.stdout.splitlines()]

    def to(self, moment: datetime) -> None:
        self.clock.advance((moment - self.clock.now()).total_seconds())


@pytest.fixture
def watch(stack, tmp_path, monkeypatch):
    made = Watch(stack, tmp_path, monkeypatch)
    yield made
    made.stop()
    made.receiver.shutdown()
    made.registry.close()


def test_a_feed_that_never_sent_anything_is_missed_and_told_once_and_resolved_when_it_comes(watch):
    (watch.folder / "topology").mkdir()
    (watch.folder / "topology/expectations.yaml").write_text(EXPECTED.format(watch.name))
    watch.start()
    watch.start()
    first, _ = until(lambda: len(rows := watch.rows()) == 2 and rows)
    watch.to(first.alarm_at - timedelta(seconds=30))
    until(lambda: [line for line in said if line["event"] == "sentinel.starts"])
    threading.Event().wait(2.5)  # sweeps in which nothing may happen
    assert (watch.states()[0], watch.receiver.titles(watch.name)) == ("pending", [])

    watch.to(first.alarm_at)
    until(lambda: watch.rows()[0].telling == "alerted")
    assert watch.states()[0] == "missed"
    assert watch.receiver.titles(watch.name) == [f"MISSING {watch.name}"]

    assert watch.said_by_status() == (3, "missing")

    watch.stop()
    watch.start()  # it knows from the topic that people have been told
    watch.landed(first.interval.start, first.interval.end)
    until(lambda: watch.rows()[0].telling == "resolved")
    assert watch.states()[0] == "met_late"
    assert watch.receiver.titles(watch.name) == [f"MISSING {watch.name}", f"RESOLVED {watch.name}"]
    assert watch.said_by_status()[1] == "done late"
    [told] = [one for one in watch.receiver.received if one["title"].startswith(f"MISSING {watch.name}")]
    assert f"alert {first.id} missed" in told["message"]


def test_what_a_person_waives_is_closed_audited_and_resolves_its_alert(watch, monkeypatch):
    monkeypatch.setenv("FARANDOLE_ACTOR", "ann")
    (watch.folder / "topology").mkdir()
    (watch.folder / "topology/expectations.yaml").write_text(EXPECTED.format(watch.name))
    watch.start()
    first, _ = until(lambda: len(rows := watch.rows()) == 2 and rows)
    assert watch.call("expect", "list", watch.name)[0] == 0
    watch.to(first.alarm_at)
    until(lambda: watch.rows()[0].telling == "alerted")
    code, listed = watch.call("expect", "list", watch.name, "--day", first.day)
    assert (code, [row["state"] for row in listed]) == (3, ["missed"])

    code, closed = watch.call("expect", "waive", watch.name, first.day, "--reason", "the provider is closed")

    assert (code, [(row["state"], row["actor"]) for row in closed]) == (0, [("waived", "ann")])
    until(lambda: watch.rows()[0].telling == "resolved")
    assert watch.receiver.titles(watch.name) == [f"MISSING {watch.name}", f"RESOLVED {watch.name}"]
    assert "waived by ann: the provider is closed" in watch.receiver.received[-1]["message"]
    assert watch.said_by_status()[1] == "waived"
    acts = [row for row in watch.call("audit")[1] if row["ids"] == [first.id]]
    assert [(row["act"], row["actor"], row["reason"]) for row in acts] == [("waive", "ann", "the provider is closed")]

    again = watch.call("expect", "waive", watch.name, first.day, "--reason", "another")[1]
    assert [row["reason"] for row in again] == ["the provider is closed"], "what is closed stays what it is"
    listed = watch.call("expect", "list", watch.name)[1]
    assert [row["state"] for row in listed][:2] == ["waived", "pending"]
    with pytest.raises(FarandoleError, match="has no deadline 1999-01-01"):
        watch.call("expect", "waive", watch.name, "1999-01-01", "--reason", "x")
    with pytest.raises(FarandoleError, match="nothing is expected under the name"):
        watch.call("expect", "waive", "nobody", first.day, "--reason", "x")


def test_a_test_alert_goes_by_every_route_and_says_which_worked(watch, monkeypatch):
    works = f"json://127.0.0.1:{watch.receiver.server_port}/alerts"
    monkeypatch.setenv("FARANDOLE_ALERT_ROUTES", f"{works} json://user:secret@127.0.0.1:1/nobody")

    code, told = watch.call("alerts", "test")

    assert (code, [one["worked"] for one in told]) == (1, [True, False])
    assert [one["title"] for one in watch.receiver.received] == ["TEST of this route"]
    assert told[1]["why"]
    assert "secret" not in json.dumps(told)
    monkeypatch.setenv("FARANDOLE_ALERT_ROUTES", works)
    assert watch.call("alerts", "test")[0] == 0
    watch.receiver.down = True
    assert watch.call("alerts", "test")[0] == 1
    monkeypatch.setenv("FARANDOLE_ALERT_ROUTES", "")
    with pytest.raises(FarandoleError, match="nobody would be told"):
        watch.call("alerts", "test")


def test_a_run_in_the_ledger_meets_what_its_pipeline_expects(watch):
    service = watch.folder / "services" / watch.name.replace("-", "_")
    service.mkdir(parents=True)
    (service / "pipeline.yaml").write_text(PIPELINE.format(watch.name))
    watch.start()
    first, second = until(lambda: len(rows := watch.rows()) == 2 and rows)
    middle = first.interval.start + timedelta(hours=7)
    watch.did(first.interval.start, middle)
    watch.did(middle, first.interval.end)
    until(lambda: watch.states()[0] == "met")
    assert len(watch.rows()[0].proof) == 2

    watch.receiver.down = True  # nobody takes the alert: it is missed all the same, and not told
    watch.to(second.alarm_at)
    until(lambda: watch.states()[1] == "missed" and watch.rows()[1].telling == "alerting")
    assert watch.receiver.titles(watch.name) == []
    watch.receiver.down = False
    watch.clock.advance(61)
    until(lambda: watch.rows()[1].telling == "alerted")
    assert watch.receiver.titles(watch.name) == [f"MISSING {watch.name}"]
