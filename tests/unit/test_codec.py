"""The wire format, and what no bytes may do."""

import io
import json
import random
import struct
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farandole.errors import FarandoleError, RegistryUnreachable, Undecodable
from farandole.kafka.codec import SCHEMA_ID_HEADER, Codec, Unencodable
from farandole.kafka.registry import GuidsUnsupported, ParsedSchema, UnknownSchema, UnreadableSchema
from farandole.schemagen import load_schemas

ROOT = Path(__file__).parents[2]
SCHEMAS = load_schemas(ROOT / "schemas/avro")
MERGED = "lake.table.merged.v1"
DAY = {"start": datetime(2013, 1, 1, tzinfo=UTC), "end": datetime(2013, 1, 2, tzinfo=UTC)}
ROW = {"table": "flights", "interval": DAY, "rows": 842, "deleted": 3, "version": 7}
GUID = "0d6f4f2e-53c1-4b9e-9d0a-4a3b6a0f6f11"


class Shelf:
    """Schemas by id, as a registry would give them; counts how often it was asked."""

    url = "http://registry"

    def __init__(self, *schemas: object, registered: bool = True) -> None:
        self.schemas = dict(enumerate(schemas, 1))
        self.asked: list[object] = []
        self.registered = registered

    def schema(self, schema_id: int) -> ParsedSchema:
        self.asked.append(schema_id)
        if schema_id not in self.schemas:
            raise UnknownSchema(f"no schema {schema_id}")
        return ParsedSchema(schema_id, "", self.schemas[schema_id])

    def schema_by_guid(self, guid: str) -> ParsedSchema:
        self.asked.append(guid)
        if guid != GUID:
            raise UnknownSchema(f"no schema {guid}")
        return ParsedSchema(-1, "", self.schemas[1])

    def lookup(self, subject: str, schema: object) -> int | None:
        self.asked.append(subject)
        return next((n for n, s in self.schemas.items() if s == schema), None) if self.registered else None


def record(*fields: tuple, name: str = "R", **more: object) -> dict:
    keys = ("name", "type", "default")
    return {"type": "record", "name": name, "fields": [dict(zip(keys, f, strict=False)) for f in fields], **more}


def avro(schema: object, value: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def framed(payload: bytes, schema_id: int = 1) -> bytes:
    return struct.pack(">bI", 0, schema_id) + payload


def read(writer: object, reader: dict | None, payload: bytes) -> dict:
    codec = Codec(Shelf(writer), {"t": reader} if reader else {})
    return codec.decode("t", framed(payload))


def reason(act: Callable[[], object]) -> str:
    with pytest.raises(Undecodable) as caught:
        act()
    return caught.value.reason


def merged() -> Codec:
    return Codec(Shelf(SCHEMAS[MERGED]), SCHEMAS)


# ---- there and back


def test_a_record_comes_back_as_it_was_written():
    codec = merged()
    assert codec.decode(MERGED, codec.encode(MERGED, ROW)) == ROW


def test_the_bytes_are_those_of_confluent():
    assert merged().encode(MERGED, ROW) == framed(avro(SCHEMAS[MERGED], ROW))


def test_a_ledger_entry_comes_back_as_it_was_written():
    from farandole.ledger.entry import Entry

    entry = Entry("run", "merge", "r-1", state="done", keys=[b"k"], started_at=datetime(2013, 1, 1, tzinfo=UTC))
    codec = Codec(Shelf(SCHEMAS["farandole.ledger.v1"]), SCHEMAS)
    assert Entry.of(codec.decode("farandole.ledger.v1", codec.encode("farandole.ledger.v1", entry.record()))) == entry


def test_a_tombstone_is_none_and_asks_nobody():
    codec = merged()
    assert codec.decode(MERGED, None) is None
    assert codec._registry.asked == []


def test_an_event_type_without_a_reader_schema_is_read_by_its_writers():
    assert read(record(("x", "int")), None, b"\x0e") == {"x": 7}


def test_a_schema_is_asked_for_once_for_many_records_and_threads():
    codec = merged()
    value = framed(avro(SCHEMAS[MERGED], ROW))
    barrier = threading.Barrier(8)

    def many(_: int) -> None:
        barrier.wait()
        for _ in range(50):
            codec.decode(MERGED, value)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(many, range(8)))
    assert codec._registry.asked == [1]


# ---- framing


@pytest.mark.parametrize(
    "value", [b"", b"\x00", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01\x0e", b'{"table": 1}', b"Obj\x01...."]
)
def test_bytes_without_a_schema_id_are_not_framed(value):
    assert reason(lambda: merged().decode(MERGED, value)) == "decode.not-framed"


@pytest.mark.parametrize(
    "header",
    [struct.pack(">I", 1), struct.pack(">bI", 0, 1), b"\x01" + uuid.UUID(GUID).bytes],
    ids=["id", "id with magic byte", "GUID"],
)
def test_the_schema_id_may_stand_in_a_header(header):
    headers = [("ce_id", b"1"), (SCHEMA_ID_HEADER, header)]
    assert merged().decode(MERGED, avro(SCHEMAS[MERGED], ROW), headers) == ROW


def test_a_header_is_believed_before_bytes_that_look_like_a_prefix():
    schema = record(("a", ["null", "int"]), ("b", "int"), ("c", "int"), ("d", "int"), ("e", "int"), ("f", "string"))
    row = {"a": None, "b": 0, "c": 0, "d": 0, "e": -1, "f": "x"}
    payload = avro(schema, row)
    assert payload.startswith(struct.pack(">bI", 0, 1))
    codec = Codec(Shelf(schema), {"t": schema})
    assert codec.decode("t", framed(payload)) == row
    assert codec.decode("t", payload, [(SCHEMA_ID_HEADER, struct.pack(">I", 1))]) == row


@pytest.mark.parametrize("header", [None, b"", b"\x01", b"\x00" * 17, b"\x02" + b"\x00" * 16, b"\x01\x00\x00\x00\x01"])
def test_a_header_that_is_no_schema_id_is_not_framed(header):
    act = lambda: merged().decode(MERGED, avro(SCHEMAS[MERGED], ROW), [(SCHEMA_ID_HEADER, header)])  # noqa: E731
    assert reason(act) == "decode.not-framed"


def test_an_unknown_schema_may_still_come_so_it_is_no_verdict():
    codec = merged()
    with pytest.raises(UnknownSchema):
        codec.decode(MERGED, framed(b"", 99))
    codec._registry.schemas[99] = SCHEMAS[MERGED]
    assert codec.decode(MERGED, framed(avro(SCHEMAS[MERGED], ROW), 99)) == ROW


@pytest.mark.parametrize("error", [RegistryUnreachable("down"), UnknownSchema("none")])
def test_what_the_registry_raises_while_it_is_asked_goes_through(error):
    codec = merged()

    def fail(_: int) -> ParsedSchema:
        raise error

    codec._registry.schema = fail
    with pytest.raises(type(error)):
        codec.decode(MERGED, framed(b""))


def test_a_schema_that_is_not_avro_is_incompatible():
    codec = merged()

    def fail(_: int) -> ParsedSchema:
        raise UnreadableSchema("schema 1 is PROTOBUF, not Avro")

    codec._registry.schema = fail
    assert reason(lambda: codec.decode(MERGED, framed(b""))) == "decode.incompatible"


def test_a_guid_that_the_registry_cannot_look_up_will_never_be_known():
    codec = merged()

    def fail(_: str) -> ParsedSchema:
        raise GuidsUnsupported("this registry does not find schemas by GUID")

    codec._registry.schema_by_guid = fail
    header = [(SCHEMA_ID_HEADER, b"\x01" + bytes(16))]
    assert reason(lambda: codec.decode(MERGED, b"\x00", header)) == "decode.unknown-schema"


# ---- corrupt bytes


def test_every_truncation_and_every_addition_is_corrupt():
    codec, value = merged(), framed(avro(SCHEMAS[MERGED], ROW))
    assert {reason(lambda n=n: codec.decode(MERGED, value[:n])) for n in range(5, len(value))} == {"decode.corrupt"}
    assert reason(lambda: codec.decode(MERGED, value + b"\x00")) == "decode.corrupt"


def test_no_single_flipped_byte_raises_anything_else():
    codec = Codec(Shelf(SCHEMAS[MERGED], SCHEMAS["farandole.ledger.v1"]), SCHEMAS)
    ledger = {
        "id": "r",
        "triggers": [{"offset": 5, "digest": b"x"}],
        "interval": DAY,
        "steps": [{"name": "s"}],
        "headers": [{"name": "h"}],
    }
    values = [
        (MERGED, framed(avro(SCHEMAS[MERGED], ROW))),
        ("farandole.ledger.v1", framed(avro(SCHEMAS["farandole.ledger.v1"], ledger), 2)),
    ]
    draw = random.Random(20130101)
    for _ in range(1000):
        event_type, value = draw.choice(values)
        at = draw.randrange(len(value))
        flipped = value[:at] + bytes([value[at] ^ draw.randrange(1, 256)]) + value[at + 1 :]
        try:
            assert isinstance(codec.decode(event_type, flipped), dict)
        except (Undecodable, UnknownSchema):
            continue


@given(st.binary(max_size=200), st.sampled_from([*SCHEMAS]))
@settings(max_examples=500, deadline=None)
def test_no_bytes_raise_anything_else(payload, event_type):
    codec = Codec(Shelf(SCHEMAS[event_type]), SCHEMAS)
    for value, headers in ((framed(payload), None), (payload, None), (payload, [(SCHEMA_ID_HEADER, payload[:17])])):
        try:
            assert isinstance(codec.decode(event_type, value, headers), dict)
        except (Undecodable, UnknownSchema):
            continue


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda s: st.lists(s, max_size=3) | st.dictionaries(st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "size", "logicalType"]), s | st.sampled_from(["record", "array", "map", "enum", "fixed", "string", "decimal"]), max_size=4)))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_schema_of_a_writer_raises_anything_else(schema):
    codec = Codec(Shelf(schema), SCHEMAS)
    for event_type in (MERGED, "unheard.of.v1"):
        try:
            codec.decode(event_type, framed(b"\x00\x02\x04"))
        except Undecodable:
            continue


# ---- schemas that can bite


def long(n: int) -> bytes:
    n, out = (n << 1) ^ (n >> 63), b""
    while n & ~0x7F:
        out, n = out + bytes([(n & 0x7F) | 0x80]), n >> 7
    return out + bytes([n])


TREE = record(("next", ["null", "R"]))


def test_a_record_that_holds_itself_is_read_to_a_depth_of_64():
    value = read(TREE, TREE, b"\x02" * 63 + b"\x00")
    for _ in range(63):
        value = value["next"]
    assert value == {"next": None}


@pytest.mark.parametrize("depth", [64, 1000, 200_000])
def test_a_deeper_record_is_corrupt_and_ends_nothing(depth):
    assert reason(lambda: read(TREE, TREE, b"\x02" * depth + b"\x00")) == "decode.corrupt"
    assert reason(lambda: read(TREE, None, b"\x02" * depth + b"\x00")) == "decode.corrupt"


def test_a_record_that_holds_itself_without_end_is_corrupt():
    assert reason(lambda: read(record(("me", "R")), None, b"")) == "decode.corrupt"


@pytest.mark.parametrize(
    "items",
    [
        "null",
        record(name="E"),
        {"type": "fixed", "name": "F", "size": 0},
        record(("a", record(("b", "null"), name="E2")), name="E1"),
    ],
    ids=["null", "empty record", "fixed of no size", "record of empty records"],
)
@pytest.mark.parametrize("claim", [long(1 << 40), long(-(1 << 40)) + b"\x00", long(600_000) * 2])
def test_a_list_that_claims_endless_items_without_bytes_is_corrupt(items, claim):
    schema = record(("a", {"type": "array", "items": items}))
    assert reason(lambda: read(schema, schema, claim + b"\x00")) == "decode.corrupt"
    assert reason(lambda: read(schema, record(("b", "int", 0)), claim + b"\x00")) == "decode.corrupt"


def test_a_list_of_few_items_without_bytes_is_read():
    schema = record(("a", {"type": "array", "items": "null"}), ("m", {"type": "map", "values": ["null", "long"]}))
    row = {"a": [None] * 1000, "m": {"x": 1, "y": None}}
    assert read(schema, schema, avro(schema, row)) == row


@pytest.mark.parametrize(
    ("avro_type", "payload"),
    [
        ("string", long(1 << 40) + b"abc"),
        ("bytes", long(1 << 31) + b"abc"),
        ("bytes", long(-5) + b"abc"),
        ({"type": "array", "items": "long"}, long(1 << 40) + b"\x00\x00"),
        ({"type": "map", "values": "null"}, long(1 << 40) + b"\x00\x00"),
        ({"type": "fixed", "name": "f", "size": 1 << 31}, b"abc"),
        (["null", "int"], long(99)),
        ("long", b"\xff" * 20),
        ({"type": "long", "logicalType": "timestamp-micros"}, long(1 << 62)),
        ({"type": "string", "logicalType": "uuid"}, long(3) + b"abc"),
        ("string", long(2) + b"\xff\xfe"),
    ],
)
def test_lengths_and_values_out_of_bounds_are_corrupt(avro_type, payload):
    schema = record(("a", avro_type))
    assert reason(lambda: read(schema, schema, payload)) == "decode.corrupt"


def test_a_short_schema_that_describes_endless_records_is_incompatible():
    schema = record(name="R0")
    for n in range(1, 40):
        schema = record(("a", schema), ("b", f"R{n - 1}"), name=f"R{n}")
    assert reason(lambda: read(schema, None, b"")) == "decode.incompatible"


@pytest.mark.parametrize("depth", [200, 5000])
def test_a_schema_that_nests_without_end_is_incompatible(depth):
    schema: object = "int"
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    assert reason(lambda: read(record(("a", schema)), None, b"\x00")) == "decode.incompatible"


# ---- writing


def test_a_missing_field_is_named():
    with pytest.raises(Unencodable, match="rows"):
        merged().encode(MERGED, {k: v for k, v in ROW.items() if k != "rows"})


def test_a_field_with_a_default_may_be_missing():
    codec = merged()
    short = {k: v for k, v in ROW.items() if k not in ("deleted", "version")}
    assert codec.decode(MERGED, codec.encode(MERGED, short)) == {**short, "deleted": 0, "version": -1}


def test_a_field_that_may_be_null_but_has_no_default_must_be_given():
    schema = record(("a", ["null", "int"]))
    with pytest.raises(Unencodable, match="a"):
        Codec(Shelf(schema), {"t": schema}).encode("t", {})


def test_a_field_that_the_schema_does_not_have_is_named():
    with pytest.raises(Unencodable, match="colour"):
        merged().encode(MERGED, {**ROW, "colour": "red"})


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("rows", 1.5, "field rows: a whole number is wanted, not 1.5"),
        ("rows", "3", "rows"),
        ("rows", None, "rows"),
        ("rows", 1 << 70, "too large"),
        ("table", 3, "table"),
        ("table", None, "table"),
        (
            "interval",
            {**DAY, "start": datetime(2013, 1, 1)},
            "field interval.start: 2013-01-01T00:00:00 has no time zone",
        ),
        ("interval", {**DAY, "start": "2013"}, "field interval.start: a time is wanted"),
        ("interval", {"start": DAY["start"]}, "end"),
        ("interval", "2013", "field interval: a record is wanted, not str"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_by_its_field(field, value, says):
    with pytest.raises(Unencodable) as caught:
        merged().encode(MERGED, {**ROW, field: value})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("avro_type", "value"),
    [
        ({"type": "array", "items": "string"}, "abc"),
        ({"type": "array", "items": "int"}, [1, 2.5]),
        ({"type": "map", "values": "long"}, {"a": 1.5}),
        ("boolean", "yes"),
        ("int", 1 << 31),
        (["null", "int"], 1.5),
        (["null", {"type": "long", "logicalType": "timestamp-millis"}], datetime(2013, 1, 1)),
    ],
)
def test_what_would_be_written_as_something_else_is_refused(avro_type, value):
    schema = record(("a", avro_type))
    with pytest.raises(Unencodable, match="field a"):
        Codec(Shelf(schema), {"t": schema}).encode("t", {"a": value})


def test_defaults_are_written_as_the_values_they_stand_for():
    span = {"start": 0, "end": 86_400_000_000}
    inner = SCHEMAS[MERGED]["fields"][1]["type"]
    schema = record(("b", "bytes", "ÿ"), ("i", inner, span), ("d", {"type": "array", "items": "bytes"}, ["ÿ"]))
    codec = Codec(Shelf(schema), {"t": schema})
    day = {"start": datetime(1970, 1, 1, tzinfo=UTC), "end": datetime(1970, 1, 2, tzinfo=UTC)}
    assert codec.decode("t", codec.encode("t", {})) == {"b": b"\xff", "i": day, "d": [b"\xff"]}


def test_a_schema_that_is_not_registered_says_what_to_do():
    codec = Codec(Shelf(SCHEMAS[MERGED], registered=False), SCHEMAS)
    with pytest.raises(FarandoleError, match="farandole topology apply"):
        codec.ready(MERGED)


def test_an_event_type_without_schema_says_what_is_known():
    with pytest.raises(FarandoleError, match=r"there is no schema of lake\.unheard\.of\.v1"):
        merged().encode("lake.unheard.of.v1", {})


def test_the_id_to_write_with_is_looked_up_once():
    codec = merged()
    codec.ready(MERGED)
    for _ in range(3):
        codec.encode(MERGED, ROW)
    assert codec._registry.asked == [f"{MERGED}-value"]


def test_a_decimal_comes_back():
    schema = record(("p", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}))
    codec = Codec(Shelf(schema), {"t": schema})
    assert codec.decode("t", codec.encode("t", {"p": Decimal("12.34")})) == {"p": Decimal("12.34")}
