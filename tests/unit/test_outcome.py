"""What is written of an event, whatever became of it: entry, letter and rows say the same."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any, cast

import fastavro
import pytest

from farandole.clock import ManualClock
from farandole.deadletter import DeadLetter, failure_of
from farandole.declaration import Declaration
from farandole.delivery import REEMITTED, Delivery, retry_record
from farandole.event import Envelope, Event, RawRecord, Record, envelope_of
from farandole.ids import position_key, run_id, waiting_id
from farandole.ledger.entry import LEDGER_TOPIC, Entry, ledger_schema
from farandole.match import Signal
from farandole.outcome import Books
from farandole.owned import Owned
from farandole.restore import member_of
from farandole.run import Run, RunState
from farandole.store.rows import Lane
from farandole.store.waiting import Member

SCHEMA = fastavro.parse_schema(ledger_schema())


def encode(_topic: str, record: dict[str, Any]) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, record)
    return out.getvalue()


def entry_of(record: Record) -> Entry:
    assert record.topic == LEDGER_TOPIC
    return Entry.of(fastavro.schemaless_reader(BytesIO(record.value or b""), SCHEMA, None))  # type: ignore[arg-type]


def books() -> Books:
    return Books(Declaration("unit", "", "now", (), ()), encode, ManualClock(), 5, 4, 4, "1.2.3", "host-1")


def owned(*offsets: int) -> Owned:
    one = Owned("made.v1", 3, 1, lane=Lane("made.v1", "tid", 3, 9))
    for offset in offsets:
        one.admit(offset)
    return one


def signal(offset: int = 7, *, name: str = "made", identity: bytes = b"e1", key: bytes = b"k1") -> Signal:
    headers = [("ce_id", identity), ("ce_source", b"/s"), ("ce_correlationid", b"story")]
    raw = RawRecord("made.v1", "tid", 3, offset, 1000, b"key", b"value", list(headers))
    event = Event(envelope_of(headers, "made.v1", raw.position), raw.position, {}, b"key", b"value")
    return Signal(name, event, raw, key, b"digest00", None)


def run_of(*signals: Signal, state: RunState = RunState.DONE, join_key: bytes | None = None) -> Run:
    home = owned(7)
    run = Run(
        "run-1",
        b"k1",
        b"key",
        signals or (signal(),),
        (0, b"k1"),
        home,
        [home.window[0]],
        state=state,
        join_key=join_key,
    )
    run.fence = 9
    if state is RunState.DEAD:
        run.failure = failure_of(ValueError("row 3 is bad"), "run", "merge", "unit", attempts=3)
    return run


def test_a_done_run_is_its_outputs_one_entry_and_one_row():
    run = run_of()
    run.outputs = [Record("out.v1", b"o", b"1", Envelope("o1", "/s", "out.v1").headers())]  # type: ignore[arg-type]
    ended = books().ended(run)
    assert [r.topic for r in ended.records] == ["out.v1", LEDGER_TOPIC]
    entry = entry_of(ended.records[1])
    assert (entry.kind, entry.id, entry.state, entry.keys, entry.fence) == ("run", "run-1", "done", [b"k1"], 9)
    assert (entry.correlation_id, entry.causation_id, entry.version, entry.instance) == (
        "story",
        "e1",
        "1.2.3",
        "host-1",
    )
    assert ended.records[1].partition == 5
    assert [(o.key, o.state, o.offset) for o in ended.outcomes] == [(b"k1", "done", 7)]


def test_a_dead_run_adds_a_letter_with_the_event_whole():
    ended = books().ended(run_of(state=RunState.DEAD))
    line, letter = ended.records
    assert entry_of(line).error == {
        "class": "ValueError", "message": "row 3 is bad", "stage": "run", "step": "merge",
        "fingerprint": dict(letter.headers)["farandole-dlq-fingerprint"].decode(),  # type: ignore[union-attr]
    }  # fmt: skip
    assert (letter.topic, letter.key, letter.value, letter.partition) == ("dlq.unit", b"key", b"value", 3)
    assert letter.headers[:3] == signal().raw.headers
    assert (
        DeadLetter.of(RawRecord("dlq.unit", "x", 3, 0, -1, letter.key, letter.value, letter.headers)).run_id == "run-1"
    )


def test_a_dead_run_of_a_joined_set_adds_a_letter_for_each_of_its_events():
    run = run_of(signal(5, name="left", identity=b"l", key=b"l"), signal(7), state=RunState.DEAD, join_key=b"join")
    records = books().ended(run).records
    assert [r.topic for r in records] == [LEDGER_TOPIC, "dlq.unit", "dlq.unit", LEDGER_TOPIC]


def test_a_joined_run_says_of_each_event_that_waited_that_it_has_found_its_run():
    run = run_of(signal(5, name="left", identity=b"l", key=b"l"), signal(7), join_key=b"join")
    ended = books().ended(run)
    line, joined = map(entry_of, ended.records)
    assert [t["event_id"] for t in line.triggers] == ["l", "e1"]
    assert (joined.id, joined.state, joined.detail) == (waiting_id("unit", 0, b"l"), "joined", {"run": "run-1"})
    assert list(ended.closed_joins) == [b"join"]
    assert [o.key for o in ended.outcomes] == [b"l", b"k1"]


def test_the_outbox_holds_what_would_be_published_in_its_order():
    run = run_of()
    run.outputs = [Record("out.v1", b"o", b"1", [("h", b"1")])]
    rows = books().outbox(run)
    assert [(r.ordinal, r.topic) for r in rows] == [(0, "out.v1"), (1, LEDGER_TOPIC)]
    assert [books().stored(r).partition for r in rows] == [-1, 5]
    assert books().stored(rows[0]).headers == [("h", b"1")]


def test_a_record_that_came_to_no_run_is_a_letter_an_entry_and_a_row_of_one_name():
    home = owned(7)
    failure = failure_of(ValueError("no"), "decode", "", "unit")
    key = position_key("tid", 3, 7)
    ended = books().given_up(home, [home.window[0]], signal().raw, None, key, failure)
    letter, line = ended.records
    entry = entry_of(line)
    assert (entry.id, entry.state) == (run_id("unit", 0, [key]), "dead")
    assert dict(letter.headers)["farandole-dlq-run-id"] == entry.id.encode()
    assert [(o.key, o.run_id, o.state) for o in ended.outcomes] == [(key, entry.id, "dead")]
    assert entry.triggers[0]["derived"]


def member(waiting: Signal) -> Member:
    raw = waiting.raw
    return Member(
        waiting.key, waiting.name, b"join", raw.topic, raw.topic_id, raw.partition, raw.offset, raw.timestamp, raw.key,
        raw.headers, raw.value, waiting.digest,
    )  # fmt: skip


def test_an_event_that_waits_is_in_the_ledger_with_its_bytes_and_what_it_waits_for():
    home, waiting = owned(7), signal()
    [line] = books().waiting(home, home.window[0], waiting, member(waiting), ["right"]).records
    entry = entry_of(line)
    assert (entry.state, entry.detail, entry.join_key) == ("waiting", {"missing": "right"}, b"join".hex())
    assert (entry.payload, entry.payload_key) == (b"value", b"key")
    assert [(h["name"], h["value"]) for h in entry.headers] == waiting.raw.headers


def test_an_event_that_waited_in_vain_takes_the_place_of_its_waiting_entry():
    home, waiting = owned(7), signal()
    failure = failure_of(ValueError("late"), "join", "", "unit")
    _, line = books().given_up(home, [], waiting.raw, waiting.event, waiting.key, failure, member(waiting)).records
    [before] = books().waiting(home, home.window[0], waiting, member(waiting), []).records
    assert line.key == before.key
    assert (entry_of(line).state, entry_of(line).triggers[0]["signal"]) == ("dead", "made")


def sent_again(missed: Signal) -> Member:
    """A member as the retry topic has brought it: the place of that record, and its headers."""
    raw = missed.raw
    delivery = Delivery(
        REEMITTED, "run-1", missed.key, raw.topic, raw.topic_id, raw.partition, raw.offset, raw.timestamp
    )
    sent = retry_record("retry.unit", 1, raw, delivery)
    headers = cast("list[tuple[str, bytes | None]]", sent.headers)
    return Member(
        missed.key, missed.name, b"join", "retry.unit", "rid", 0, 41, 2000, sent.key, headers, sent.value, missed.digest
    )


def test_a_member_that_was_sent_again_is_its_event_where_it_stood_and_names_the_record_that_brought_it():
    missed = signal()
    brought = sent_again(missed)
    assert brought.raw == missed.raw
    assert brought.via == "rid/0/41"
    assert (member(missed).raw, member(missed).via) == (missed.raw, "")


def test_what_is_told_of_a_member_that_was_sent_again_names_its_event_and_the_record_that_brought_it():
    home, missed = owned(7), signal()
    brought = sent_again(missed)
    failure = failure_of(ValueError("late"), "join", "", "unit")
    missed.via = brought.via

    [waits] = books().waiting(home, home.window[0], missed, brought, ["right"]).records
    *_, run, joined = books().ended(run_of(missed, signal(8, name="right"), join_key=b"join")).records
    completes, _ = books().ended(run_of(signal(8, name="right"), missed, join_key=b"join")).records
    _, late = books().given_up(home, [], brought.raw, missed.event, missed.key, failure, brought).records

    assert [(e.state, e.via) for e in map(entry_of, (waits, run, joined, completes, late))] == [
        ("waiting", ["rid/0/41"]),
        ("done", []),
        ("joined", ["rid/0/41"]),
        ("done", ["rid/0/41"]),
        ("dead", ["rid/0/41"]),
    ]
    assert {entry_of(line).triggers[0]["topic_id"] for line in (waits, joined, late)} == {"tid"}
    assert replace(member_of(entry_of(waits)), timestamp=2000) == brought


def test_a_range_names_the_offsets_that_came_to_no_run_by_reason():
    home = owned(3, 4, 5, 6)
    for slot, why in zip(home.window, ["not (rows > 0)", "duplicate", "", "tombstone"], strict=True):
        home.end(slot, why)
    [line] = books().span(home, 3, 7)
    span = entry_of(line).span
    assert span is not None
    assert span["filtered"] == {"not (rows > 0)": [3], "tombstone": [6]}
    assert span["duplicates"] == [4]
    assert (span["topic_id"], span["partition"], span["start"], span["end"]) == ("tid", 3, 3, 7)


def test_a_range_without_such_records_is_not_written():
    home = owned(3)
    home.end(home.window[0])
    assert books().span(home, 3, 4) == []


@pytest.mark.parametrize("at", ["3-10", "none-10"])
def test_a_fact_is_named_by_pipeline_partition_and_what_was_found(at):
    entry = entry_of(books().fact(owned(), "offset.expired", {"at": at, "position": "10"}))
    assert (entry.kind, entry.fact, entry.detail["position"]) == ("fact", "offset.expired", "10")
    assert entry.id == f"fact:unit:offset.expired:tid/3/{at}"
