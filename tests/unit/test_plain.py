from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest

from farandole.errors import FarandoleError
from farandole.event import Interval, fact, record_key
from farandole.plain import from_plain


def a(kind, logical):
    return {"type": kind, "logicalType": logical}


@pytest.mark.parametrize(
    ("schema", "typed", "value"),
    [
        (a("long", "timestamp-millis"), "2013-01-01T06:00:00Z", datetime(2013, 1, 1, 6, tzinfo=UTC)),
        (a("long", "timestamp-micros"), "2013-01-01T06:00:00", datetime(2013, 1, 1, 6, tzinfo=UTC)),
        (a("long", "timestamp-micros"), 1357020000000000, 1357020000000000),
        (a("long", "local-timestamp-micros"), "2013-01-01T06:00:00", datetime(2013, 1, 1, 6)),
        (a("int", "date"), "2013-01-01", date(2013, 1, 1)),
        (a("int", "time-millis"), "06:30:00", time(6, 30)),
        (a("bytes", "decimal"), "12.50", Decimal("12.50")),
        (
            a("string", "uuid"),
            "6f1c2a00-aaaa-4bbb-8ccc-0123456789ab",
            uuid.UUID("6f1c2a00-aaaa-4bbb-8ccc-0123456789ab"),
        ),
        ("bytes", "00ff", b"\x00\xff"),
        ("double", 3, 3.0),
        ("string", "2013-01-01", "2013-01-01"),
        (["null", a("int", "date")], "2013-01-01", date(2013, 1, 1)),
        (["null", a("int", "date")], None, None),
        (["string", a("int", "date")], "2013-01-01", "2013-01-01"),
        ({"type": "array", "items": a("int", "date")}, ["2013-01-01"], [date(2013, 1, 1)]),
        ({"type": "map", "values": "bytes"}, {"a": "ff"}, {"a": b"\xff"}),
        ({"type": {"type": "array", "items": "bytes"}}, ["ff"], [b"\xff"]),
        ("int", "not a number: the codec says so", "not a number: the codec says so"),
    ],
)
def test_plain_json_becomes_what_avro_wants(schema, typed, value):
    assert from_plain(schema, typed) == value


def test_named_types_are_followed_also_into_themselves():
    schema = {
        "type": "record",
        "name": "tree.Node",
        "fields": [{"name": "at", "type": a("int", "date")}, {"name": "next", "type": ["null", "Node"]}],
    }

    read = from_plain(schema, {"at": "2013-01-01", "next": {"at": "2013-01-02", "next": None}})

    assert read["next"] == {"at": date(2013, 1, 2), "next": None}


def test_what_cannot_be_read_is_named_with_its_place():
    schema = {"type": "record", "name": "E", "fields": [{"name": "at", "type": a("long", "timestamp-micros")}]}

    with pytest.raises(FarandoleError, match=r"at takes a time.*'yesterday'") as told:
        from_plain(schema, {"at": "yesterday"}, "events.jsonl:3")

    assert told.value.place == "events.jsonl:3"


HOUR = Interval(datetime(2013, 1, 1, 6, tzinfo=UTC), datetime(2013, 1, 1, 7, tzinfo=UTC))


@pytest.mark.parametrize(
    ("fields", "record", "key"),
    [
        ((), {"table": "flights"}, None),
        (("table",), {"table": "flights"}, b"flights"),
        (("table", "interval"), {"table": "flights", "interval": HOUR}, b"flights/2013-01-01T06:00:00Z"),
        (("interval",), {"interval": HOUR.record()}, b"2013-01-01T06:00:00Z"),
        (("at", "n"), {"at": HOUR.start, "n": 7}, b"2013-01-01T06:00:00Z/7"),
        (("raw", "none"), {"raw": b"\xff", "none": None}, b"ff/"),
    ],
)
def test_the_record_key_is_made_of_the_key_fields(fields, record, key):
    assert record_key(fields, record) == key


def test_an_event_class_and_its_events_name_their_key_fields():
    @fact("test.thing.done.v1", key=("name",))
    class Done:
        pass

    assert record_key(Done, {"name": "a"}) == b"a"
    assert record_key(Done(), {"name": "a"}) == b"a"
