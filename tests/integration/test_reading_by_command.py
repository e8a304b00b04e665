"""What a person asks at the command line: events, runs, lineage and dead letters, on real servers."""

from __future__ import annotations

import json
import threading
import uuid
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner

from farandole.cli.dlq import dlq
from farandole.cli.events import events
from farandole.cli.ledger import ledger
from farandole.cli.runs import lineage, runs
from farandole.deadletter import LetterContext, failure_of, letter_of
from farandole.errors import FarandoleError
from farandole.event import Envelope, Record
from farandole.ids import dead_letter_id
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.database import open_projection
from farandole.ledger.entry import Entry, ledger_partition
from farandole.ledger.projection import Line, project
from farandole.topics import LEDGER, own_schemas

START = datetime(2013, 1, 1, tzinfo=UTC)
MERGED = {
    "type": "record",
    "name": "Merged",
    "namespace": "test",
    "key": ["table", "interval"],
    "fields": [
        {"name": "table", "type": "string"},
        {
            "name": "interval",
            "type": {
                "type": "record",
                "name": "farandole.Interval",
                "fields": [
                    {"name": "start", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                    {"name": "end", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                ],
            },
        },
        {"name": "rows", "type": "long", "default": 0},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
HOUR = {"start": "2013-01-01T06:00:00Z", "end": "2013-01-01T07:00:00Z"}


class Desk:
    """A person's desk: a folder, settings by environment, one topic with its schema."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder
        self.topic = f"{stack.unique('desk')}.table.merged.v1"
        self.admin = Admin(stack.bootstrap_servers)
        self.admin.create(self.topic, partitions=2, replication=1, settings={})
        self.registry = Registry(stack.registry_url)
        self.registry.register(f"{self.topic}-value", MERGED)
        self.codec = Codec(self.registry, {self.topic: MERGED})

    def ask(self, command, *arguments):
        """The answers of a command, as its JSON lines say them."""
        told = CliRunner().invoke(command, list(arguments), standalone_mode=False, catch_exceptions=False)
        assert told.exit_code == 0, told.output
        return [json.loads(line) for line in told.stdout.splitlines()], told.stderr

    def see(self, command, *arguments):
        """What a command prints for a person."""
        return (
            CliRunner()
            .invoke(command, [*arguments, "-o", "table"], standalone_mode=False, catch_exceptions=False)
            .stdout
        )

    def project(self, *entries, checked=None):
        database = open_projection(f"sqlite:///{self.folder}/books/projector.db")
        with database.writing() as conn:
            lines = [Line(0, n, e, e.id, 1000 + n) for n, e in enumerate(entries)]
            project(conn, lines, checked_at={0: round((checked or datetime.now(UTC)).timestamp() * 1000)})
        database.close()

    def letters(self, group):
        self.admin.create(f"dlq.{group}", partitions=1, replication=1, settings={})

    def send(self, *records):
        return Emitter(self.stack.bootstrap_servers).send(records)

    def raw(self, placed):
        with TopicReader(self.stack.bootstrap_servers, placed.topic) as reader:
            return reader.at(placed.partition, placed.offset)


@pytest.fixture
def desk(stack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BROKERS", "FARANDOLE_DATABASE_URL", "FARANDOLE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FARANDOLE_STATE", str(tmp_path))
    made = Desk(stack, tmp_path)
    yield made
    made.registry.close()


def a_run(run_id, took, gave, pipeline="merge", state="done", **more):
    step = {
        "name": "write",
        "state": state,
        "attempts": 3,
        "started_at": START + timedelta(seconds=5),
        "ended_at": START + timedelta(seconds=7),
        "error": None,
        "reused": False,
        "version": "1.0",
    }
    origin = {
        "signal": "table",
        "topic": "in.v1",
        "topic_id": "T",
        "partition": 1,
        "offset": 7,
        "event_source": "/p",
        "event_type": "in.v1",
        "digest": b"1",
        "derived": False,
    }
    return Entry(
        "run",
        pipeline,
        run_id,
        state=state,
        triggers=[{**origin, "event_id": e} for e in took],
        outputs=[{"topic": "out.v1", "id": e, "type": "out.v1", "digest": b"2"} for e in gave],
        steps=[step],
        started_at=START,
        ended_at=START + timedelta(seconds=7),
        correlation_id=took[0],
        **more,
    )


def test_an_emitted_event_carries_an_envelope_a_key_and_its_defaults(desk):
    event = json.dumps({"table": "flights", "interval": HOUR})

    (told,), _ = desk.ask(events, "emit", desk.topic, "--json", event)

    raw = desk.raw(told and type("P", (), {"topic": desk.topic, **{k: told[k] for k in ("partition", "offset")}}))
    headers = dict(raw.headers)
    assert raw.key == b"flights/2013-01-01T06:00:00Z"
    assert uuid.UUID(told["id"]).version == 7
    assert headers["ce_id"].decode() == told["id"]
    assert (headers["ce_type"].decode(), headers["ce_source"]) == (desk.topic, b"/farandole/cli")
    value = desk.codec.decode(desk.topic, raw.value)
    assert (value["rows"], value["interval"]["start"]) == (0, START + timedelta(hours=6))


def test_an_id_a_key_and_a_source_of_ones_own_are_kept(desk):
    event = json.dumps({"table": "flights", "interval": HOUR})

    desk.ask(events, "emit", desk.topic, "--json", event, "--id", "mine", "--key", "k", "--source", "/me")

    (row,), _ = desk.ask(events, "tail", desk.topic)
    assert (row["id"], row["key"], row["source"], row["derived"]) == ("mine", "k", "/me", False)


def test_a_file_of_events_is_emitted_in_order_and_tail_shows_the_newest(desk):
    lines = [json.dumps({"table": "flights", "interval": HOUR, "rows": n}) for n in range(30)]
    (desk.folder / "events.jsonl").write_text("\n".join(lines) + "\n")

    told, _ = desk.ask(events, "emit", desk.topic, "--file", "events.jsonl")

    assert len({row["id"] for row in told}) == 30
    last, _ = desk.ask(events, "tail", desk.topic, "-n", "3")
    assert [row["value"]["rows"] for row in last] == [27, 28, 29]
    first, _ = desk.ask(events, "tail", desk.topic, "--from-beginning", "-n", "2")
    assert [row["value"]["rows"] for row in first] == [0, 1]
    assert len(desk.ask(events, "tail", desk.topic, "--from-beginning")[0]) == 30


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ('{"table": "flights"', "no JSON"),
        ("[1]", "JSON object"),
        ('{"table": 7, "interval": {"start": "2013-01-01T06:00:00Z", "end": "2013-01-01T07:00:00Z"}}', "table"),
        ('{"table": "t", "interval": {"start": "yesterday", "end": "2013-01-01T07:00:00Z"}}', "interval.start takes a"),
        ('{"table": "t"}', "interval"),
        ('{"table": "t", "interval": null, "colour": 1}', "interval|colour"),
    ],
)
def test_an_event_that_does_not_fit_is_not_sent_and_the_field_is_named(desk, event, said):
    good = json.dumps({"table": "flights", "interval": HOUR})
    (desk.folder / "events.jsonl").write_text(f"{good}\n{event}\n")

    with pytest.raises(FarandoleError, match=said) as told:
        desk.ask(events, "emit", desk.topic, "--file", "events.jsonl")

    assert "events.jsonl:2" in told.value.place
    assert desk.ask(events, "tail", desk.topic)[0] == []


def test_emitting_to_a_topic_that_is_not_there_names_the_remedy(desk):
    with pytest.raises(FarandoleError, match="farandole topology apply"):
        desk.ask(events, "emit", "no.such.thing.v1", "--json", "{}")


def test_a_plain_record_without_headers_is_shown_with_a_derived_id(desk):
    value = desk.codec.encode(desk.topic, {"table": "t", "interval": {"start": START, "end": START}})
    (placed,) = desk.send(Record(desk.topic, b"\xff\x00", value))

    (shown,), _ = desk.ask(events, "show", desk.topic, f"{placed.partition}:{placed.offset}")

    assert shown["derived"] is True
    assert shown["id"] == f"pos:{shown['topic_id']}/{placed.partition}/{placed.offset}"
    assert (shown["key"], shown["value"]["table"]) == ("0xff00", "t")


def test_a_record_that_cannot_be_read_is_shown_in_hex_with_the_reason(desk):
    desk.send(Record(desk.topic, None, b"\x01garbage"))

    (row,), _ = desk.ask(events, "tail", desk.topic)

    assert row["value"] is None
    assert row["undecodable"].startswith("decode.not-framed")
    assert bytes.fromhex(row["raw"]) == b"\x01garbage"


def test_an_event_is_found_by_its_id_with_and_without_a_projection(desk):
    event = json.dumps({"table": "flights", "interval": HOUR})
    desk.ask(events, "emit", desk.topic, "--json", event, "--id", "needle")

    (shown,), said = desk.ask(events, "show", desk.topic, "needle")
    assert shown["id"] == "needle"
    assert "looking through" in said

    entry = a_run("r1", ["needle"], [])
    entry.triggers[0] |= {k: shown[k] for k in ("topic", "partition", "offset")}
    desk.project(entry)
    (again,), said = desk.ask(events, "show", desk.topic, "needle")
    assert (again, said) == (shown, "")
    with pytest.raises(FarandoleError, match="no event 'hay'"):
        desk.ask(events, "show", desk.topic, "hay")


def test_an_offset_that_holds_nothing_is_explained(desk):
    with pytest.raises(FarandoleError, match="nothing stands there yet"):
        desk.ask(events, "show", desk.topic, "0:5")
    with pytest.raises(FarandoleError, match="no such partition"):
        desk.ask(events, "show", desk.topic, "9:0")


def test_following_a_topic_shows_what_comes(desk):
    from farandole.cli.events import _tailed

    with TopicReader(desk.stack.bootstrap_servers, desk.topic) as reader:
        rows = _tailed(reader, None, follow=True, from_beginning=False)
        sender = threading.Thread(target=desk.send, args=(Record(desk.topic, b"k", b"later"),))
        sender.start()
        assert next(rows).value == b"later"
        sender.join()
        rows.close()


def test_runs_are_listed_and_one_is_told_as_a_story(desk):
    desk.project(
        a_run("run-a", ["e1"], ["e2"]),
        a_run(
            "run-b",
            ["e2"],
            [],
            "mart",
            "dead",
            error={"class": "ValueError", "message": "no\nrows", "fingerprint": "f1", "stage": "run", "step": "write"},
        ),
    )

    listed, said = desk.ask(runs, "list")
    assert [(r["id"], r["pipeline"], r["state"]) for r in listed] == [
        ("run-b", "mart", "dead"),
        ("run-a", "merge", "done"),
    ]
    assert said == ""
    assert [r["id"] for r in desk.ask(runs, "list", "--state", "dead")[0]] == ["run-b"]
    assert [r["id"] for r in desk.ask(runs, "list", "--pipeline", "merge")[0]] == ["run-a"]
    assert desk.ask(runs, "list", "--since", "1h")[0] == []
    (shown,), _ = desk.ask(runs, "show", "run-b")
    assert shown["steps"][0]["attempts"] == 3
    story = desk.see(runs, "show", "run-b")
    for part in ("in.v1 @ p1:7", "waited 5.0 s", "write  dead  3 attempts", "ValueError in run write", "rows"):
        assert part in story


def test_an_old_answer_says_how_old_it_is_and_what_to_do(desk):
    desk.project(a_run("run-a", ["e1"], []), checked=datetime.now(UTC) - timedelta(hours=5))

    _, said = desk.ask(runs, "list")

    assert "5 h ago" in said
    assert "farandole run projector" in said


def test_without_a_projection_the_remedy_is_named(desk):
    with pytest.raises(FarandoleError, match="farandole run projector"):
        desk.ask(runs, "list")


def test_the_projection_is_rebuilt_by_command_and_says_whether_the_answers_are_the_same(desk):
    desk.admin.create(LEDGER, partitions=12, replication=1, settings={"message.timestamp.type": "LogAppendTime"})
    desk.registry.register(f"{LEDGER}-value", own_schemas()[LEDGER])
    (first,), _ = desk.ask(ledger, "rebuild", "--yes")
    (second,), _ = desk.ask(ledger, "rebuild", "--yes")

    assert (first["same"], second["same"]) == (None, True)
    assert {t["table"]: t["after"] for t in first["tables"]} == {t["table"]: t["after"] for t in second["tables"]}
    assert "the same answers" in desk.see(ledger, "rebuild", "--yes")


def test_nothing_is_dropped_where_nobody_can_be_asked(desk):
    with pytest.raises(click.UsageError, match="--yes"):
        desk.ask(ledger, "rebuild")
    assert not (desk.folder / "books").exists()


def test_lineage_is_a_tree_both_ways_and_a_mermaid_graph(desk):
    desk.project(a_run("run-a", ["e1"], ["e2", "e3"]), a_run("run-b", ["e2"], ["e4"], "mart"))

    (graph,), _ = desk.ask(lineage, "e2")
    assert {n["id"] for n in graph["nodes"]} == {"e1", "run-a", "e2", "run-b", "e4"}
    tree = desk.see(lineage, "e2")
    assert tree.index("came from") < tree.index("run merge  done  run-a") < tree.index("in.v1 p1:7  e1")
    assert tree.index("led to") < tree.index("run mart  done  run-b") < tree.index("out.v1  e4")
    drawn = CliRunner().invoke(lineage, ["run-a", "-o", "mermaid"], standalone_mode=False).stdout
    assert drawn.startswith("flowchart LR\n")
    assert drawn.count("-->") == 5
    with pytest.raises(FarandoleError, match="no run took or gave"):
        desk.ask(lineage, "unknown")


def a_letter(desk, group, run_id, life=0, value=b"\x00broken", limit=1_000_000):
    envelope = Envelope("event-1", "/p", desk.topic)
    (placed,) = desk.send(Record(desk.topic, b"k", value, list(envelope.headers())))
    raw = desk.raw(placed)
    failure = failure_of(ValueError("row 17 is bad"), "run", "write", group, attempts=5, first_failed_at=START)
    desk.send(letter_of(raw, failure, LetterContext(f"dlq.{group}", 1, group, "1.2", run_id, life), limit))
    return raw


def test_dead_letters_are_listed_with_their_reason_and_their_present_state(desk):
    group = desk.stack.unique("merge")
    desk.letters(group)
    a_letter(desk, group, "run-a")
    a_letter(desk, group, "run-b")
    desk.project(a_run("run-a", ["e1"], [], state="dead"), a_run("run-b", ["e2"], [], life=1))

    listed, _ = desk.ask(dlq, "list", group)

    assert {(row["run_id"], row["state"]) for row in listed} == {("run-a", "open"), ("run-b", "settled")}
    first = next(row for row in listed if row["run_id"] == "run-a")
    assert first["id"] == dead_letter_id("run-a", 0)
    assert (first["stage"], first["step"], first["exception"], first["attempts"]) == ("run", "write", "ValueError", 5)
    assert (first["message"], first["event_id"]) == ("row 17 is bad", "event-1")


def test_dead_letters_are_listed_without_a_projection_too(desk):
    group = desk.stack.unique("merge")
    desk.letters(group)
    desk.admin.create(LEDGER, partitions=12, replication=1, settings={"cleanup.policy": "compact,delete"})
    desk.registry.register(f"{LEDGER}-value", own_schemas()[LEDGER])
    run = desk.stack.unique("run")
    a_letter(desk, group, run)
    a_letter(desk, group, f"{run}-again")
    entry = a_run(f"{run}-again", ["e1"], [], group, life=1)
    value = Codec(desk.registry, own_schemas()).encode(LEDGER, entry.record())
    desk.send(Record(LEDGER, entry.key, value, [], ledger_partition(group, 12)))

    listed, said = desk.ask(dlq, "list", group)

    assert {(row["run_id"], row["state"]) for row in listed} == {(run, "open"), (f"{run}-again", "settled")}
    assert said == ""
    with pytest.raises(FarandoleError, match="no dead-letter topic"):
        desk.ask(dlq, "list", "nobody")


def test_letters_of_which_nobody_knows_the_state_are_listed_and_that_is_said(desk, monkeypatch):
    group = desk.stack.unique("merge")
    desk.letters(group)
    a_letter(desk, group, "run-a")
    monkeypatch.setattr("farandole.topics.LEDGER", "farandole.ledger.v0")

    listed, said = desk.ask(dlq, "list", group)

    assert [(row["run_id"], row["state"]) for row in listed] == [("run-a", None)]
    assert "no states shown" in said


def test_a_letter_is_shown_decoded_beside_its_bytes(desk):
    group = desk.stack.unique("merge")
    desk.letters(group)
    value = desk.codec.encode(desk.topic, {"table": "flights", "interval": {"start": START, "end": START}})
    raw = a_letter(desk, group, "run-a", value=value)

    (shown,), _ = desk.ask(dlq, "show", dead_letter_id("run-a", 0)[:12], "--pipeline", group)

    assert shown["value"]["table"] == "flights"
    assert bytes.fromhex(shown["raw"]) == value
    assert shown["headers"][: len(raw.headers)] == [{"name": n, "value": v.decode()} for n, v in raw.headers]
    assert "ValueError: row 17 is bad" in shown["stacktrace"]
    assert "flights" in desk.see(dlq, "show", "event-1", "--pipeline", group)


def test_a_letter_that_only_points_to_its_event_is_shown_with_it(desk):
    group = desk.stack.unique("merge")
    desk.letters(group)
    a_letter(desk, group, "run-a", value=b"\x00" + b"x" * 5000, limit=3000)

    (shown,), _ = desk.ask(dlq, "show", "run-a", "--pipeline", group)

    assert shown["pointer"]
    assert bytes.fromhex(shown["raw"]) == b"\x00" + b"x" * 5000
    with pytest.raises(FarandoleError, match="no dead letter 'nothing'"):
        desk.ask(dlq, "show", "nothing", "--pipeline", group)
