from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import permutations

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from farandole.event import Interval
from farandole.ledger.entry import Entry, ledger_partition, ledger_schema, newer, rank, reason

START = datetime(2013, 1, 1, tzinfo=UTC)


def whole_entry():
    return Entry(
        "run",
        "merge",
        "r1",
        epoch=2,
        state="dead",
        life=1,
        keys=[b"k" * 16],
        triggers=[
            {
                "signal": "table",
                "topic": "t.v1",
                "topic_id": "T1",
                "partition": 3,
                "offset": 9,
                "event_id": "e1",
                "event_source": "/p",
                "event_type": "t.v1",
                "digest": b"12345678",
                "derived": True,
            }
        ],
        okey=b"o",
        parameters={"a": "b"},
        interval=Interval(START, START + timedelta(hours=1)),
        steps=[
            {
                "name": "write",
                "state": "dead",
                "attempts": 3,
                "started_at": START,
                "ended_at": None,
                "error": "boom",
                "reused": False,
                "version": "1.0",
            }
        ],
        outputs=[{"topic": "o.v1", "id": "o1", "type": "o.v1", "digest": b"12345678"}],
        error=reason("ValueError", "boom", "f1", "run", "write"),
        version="1.2",
        instance="host-1",
        fence=4,
        started_at=START,
        ended_at=START + timedelta(seconds=3),
        correlation_id="e0",
        causation_id="e1",
        traceparent="00-a-b-01",
        join_key="j",
        payload=b"p",
        payload_key=b"pk",
        headers=[{"name": "n", "value": None}],
        span={
            "topic": "t.v1",
            "topic_id": "T1",
            "partition": 0,
            "start": 1,
            "end": 9,
            "filtered": {"criteria": [1, 2]},
            "duplicates": [3],
        },
        fact="f",
        detail={"c": "d"},
    )


def through_avro(entry):
    schema, out = parse_schema(ledger_schema()), BytesIO()
    schemaless_writer(out, schema, entry.record(), strict=True)
    return Entry.of(schemaless_reader(BytesIO(out.getvalue()), schema, None))


def test_an_entry_goes_through_its_avro_schema_and_comes_back_the_same():
    entry = whole_entry()

    assert through_avro(entry) == entry


def test_an_entry_that_says_little_goes_through_too():
    entry = Entry("fact", "merge", "f1", fact="offset.regressed")

    assert through_avro(entry) == entry


def test_an_entry_has_exactly_the_fields_of_its_schema():
    assert {f.name for f in fields(Entry)} == {f["name"] for f in ledger_schema()["fields"]}
    assert set(whole_entry().record()) == {f.name for f in fields(Entry)}


def test_times_in_milliseconds_are_written_as_the_same_moment():
    entry = Entry("run", "merge", "r1", started_at=1_356_998_400_000)

    assert through_avro(entry).started_at == START


def test_fields_of_a_newer_writer_are_left_out():
    assert Entry.of({**whole_entry().record(), "colour": 1}) == whole_entry()


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("landed", "claimed"),
        ("claimed", "waiting"),
        ("waiting", "parked"),
        ("parked", "dead"),
        ("parked", "uncertain"),
        ("dead", "resolved"),
        ("dead", "done"),
        ("uncertain", "done"),
        ("waiting", "expired"),
        ("claimed", "caught"),
    ],
)
def test_states_are_ordered_within_a_life(lower, higher):
    assert rank(lower) < rank(higher)


def an(state, life=0):
    return Entry("run", "merge", "r1", state=state, life=life)


def test_done_is_left_by_nothing_whatever_its_life():
    assert not newer(an("dead", 9), an("done"))
    assert not newer(an("resolved", 9), an("done"))
    assert newer(an("done"), an("done"))


def test_a_redrive_leaves_dead_by_its_next_life_only():
    assert newer(an("claimed", 1), an("dead"))
    assert not newer(an("claimed"), an("dead"))
    assert not newer(an("dead"), an("claimed", 1))


def test_a_resolved_letter_is_not_run_again_but_what_was_done_stands():
    assert not newer(an("claimed", 1), an("resolved"))
    assert newer(an("done", 1), an("resolved"))


def test_of_equals_the_later_stands():
    assert newer(an("parked"), an("parked"))


def test_the_winner_does_not_depend_on_the_order_of_reading():
    entries = [an("claimed"), an("dead"), an("claimed", 1), an("parked", 1), an("done", 1)]
    for order in permutations(entries):
        standing = order[0]
        for later in order[1:]:
            standing = later if newer(later, standing) else standing
        assert standing == an("done", 1)


@pytest.mark.parametrize(
    ("text", "java"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_partition_is_that_of_kafkas_own_vectors(text, java):
    assert ledger_partition(text, 7) == (java & 0x7FFFFFFF) % 7


def test_an_entry_is_imported_without_kafka_and_sql():
    code = "import farandole.ledger.entry, sys; print([m for m in ('sqlalchemy', 'confluent_kafka', 'pydantic') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"
