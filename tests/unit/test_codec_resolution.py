"""What a writer wrote, as the reader wants it: resolved by Avro's rules or refused, never a wrong value."""

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farandole.errors import Undecodable
from farandole.kafka.codec import Codec
from farandole.kafka.registry import ParsedSchema


class Shelf:
    """A registry with one schema."""

    url = "http://registry"

    def __init__(self, schema: object) -> None:
        self._schema = json.loads(json.dumps(schema))

    def schema(self, schema_id: int) -> ParsedSchema:
        return ParsedSchema(schema_id, "", self._schema)


def record(*fields: tuple, name: str = "R", **more: object) -> dict:
    keys = ("name", "type", "default", "aliases")
    return {"type": "record", "name": name, "fields": [dict(zip(keys, f, strict=False)) for f in fields], **more}


def resolve(writer: object, reader: dict, value: object) -> dict:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(writer))), value)
    return Codec(Shelf(writer), {"t": reader}).decode("t", b"\x00\x00\x00\x00\x01" + out.getvalue())


def one(writer: object, reader: object, value: object) -> object:
    """The value of a field whose type changed."""
    return resolve(record(("a", writer)), record(("a", reader)), {"a": value})["a"]


def refusal(writer: dict, reader: dict, value: object) -> str:
    with pytest.raises(Undecodable) as caught:
        resolve(writer, reader, value)
    assert caught.value.reason == "decode.incompatible"
    return caught.value.message


def logical(base: str, name: str, **more: object) -> dict:
    return {"type": base, "logicalType": name, **more}


MILLIS, MICROS = logical("long", "timestamp-millis"), logical("long", "timestamp-micros")
MOMENT = datetime(2013, 1, 1, 5, tzinfo=UTC)
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}


# ---- fields


def test_fields_are_found_by_name_whatever_their_order():
    assert resolve(
        record(("a", "int"), ("b", "string")), record(("b", "string"), ("a", "int")), {"a": 1, "b": "x"}
    ) == {
        "a": 1,
        "b": "x",
    }


def test_a_field_that_the_reader_does_not_know_is_left_out():
    writer = record(("gone", {"type": "array", "items": record(("x", "bytes"), name="G")}), ("a", "int"))
    assert resolve(writer, record(("a", "int")), {"gone": [{"x": b"1"}, {"x": b"2"}], "a": 1}) == {"a": 1}


def test_a_field_that_the_writer_does_not_know_has_the_readers_default():
    assert resolve(record(("a", "int")), record(("a", "int"), ("b", "string", "new")), {"a": 1}) == {"a": 1, "b": "new"}


def test_a_renamed_field_is_found_by_its_alias():
    reader = {"type": "record", "name": "R", "fields": [{"name": "new", "type": "long", "aliases": ["old"]}]}
    assert resolve(record(("old", "int")), reader, {"old": 1}) == {"new": 1}


def test_a_field_of_the_new_name_is_taken_before_one_of_the_old():
    reader = {"type": "record", "name": "R", "fields": [{"name": "new", "type": "long", "aliases": ["old"]}]}
    writer = record(("old", "int"), ("new", "int"))
    assert resolve(writer, reader, {"old": 1, "new": 2}) == {"new": 2}
    assert resolve(record(("new", "int"), ("old", "int")), reader, {"old": 1, "new": 2}) == {"new": 2}


def test_a_renamed_record_is_found_by_its_alias_and_without_its_namespace():
    assert resolve(record(("a", "int"), name="x.Old"), record(("a", "long"), name="y.New", aliases=["x.Old"]), {"a": 1})
    assert resolve(record(("a", "int"), name="x.R"), record(("a", "long"), name="y.R"), {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("avro_type", "default", "value"),
    [
        ("bytes", "ÿ", b"\xff"),
        ({"type": "fixed", "name": "F", "size": 1}, "ÿ", b"\xff"),
        (MICROS, 0, datetime(1970, 1, 1, tzinfo=UTC)),
        (logical("int", "date"), 1, date(1970, 1, 2)),
        (logical("bytes", "decimal", precision=4, scale=2), "\u0004Ò", Decimal("12.34")),
        (["null", MICROS], None, None),
        ([MICROS, "null"], 0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("double", 1, 1.0),
        ({"type": "array", "items": "bytes"}, ["a"], [b"a"]),
        ({"type": "map", "values": MICROS}, {"k": 0}, {"k": datetime(1970, 1, 1, tzinfo=UTC)}),
        (record(("t", MICROS), ("n", "int", 5), name="N"), {"t": 0}, {"t": datetime(1970, 1, 1, tzinfo=UTC), "n": 5}),
    ],
)
def test_a_default_is_the_value_it_stands_for_and_not_its_json(avro_type, default, value):
    got = resolve(record(("a", "int")), record(("a", "int"), ("b", avro_type, default)), {"a": 1})["b"]
    assert (type(got), got) == (type(value), value)


def test_defaults_are_not_shared_between_records():
    writer, reader = record(("a", "int")), record(("a", "int"), ("l", {"type": "array", "items": "int"}, []))
    codec = Codec(Shelf(writer), {"t": reader})
    first = codec.decode("t", b"\x00\x00\x00\x00\x01\x02")
    first["l"].append(1)
    assert codec.decode("t", b"\x00\x00\x00\x00\x01\x02") == {"a": 1, "l": []}


# ---- types


@pytest.mark.parametrize(
    ("writer", "reader", "value", "wanted"),
    [
        ("int", "long", 7, 7),
        ("int", "double", 7, 7.0),
        ("long", "float", 7, 7.0),
        ("float", "double", 0.5, 0.5),
        ("string", "bytes", "ä", "ä".encode()),
        ("bytes", "string", "ä".encode(), "ä"),
        (MILLIS, MICROS, MOMENT, MOMENT),
        (MICROS, MILLIS, MOMENT, MOMENT),
        (MICROS, "long", MOMENT, 1357016400000000),
        (logical("int", "date"), "int", date(1970, 1, 3), 2),
        (logical("int", "date"), "double", date(1970, 1, 3), 2.0),
        (
            logical("string", "uuid"),
            "string",
            "6b2f5f3c-8d1e-5c57-9d3b-3f1b64fd9a01",
            "6b2f5f3c-8d1e-5c57-9d3b-3f1b64fd9a01",
        ),
        (logical("string", "unheard-of"), "string", "x", "x"),
        (ENUM, {**ENUM, "symbols": ["B", "C", "A"]}, "A", "A"),
        ({**ENUM, "symbols": ["A", "Z"]}, {**ENUM, "default": "B"}, "Z", "B"),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}, [1, 2], [1.0, 2.0]),
        ({"type": "map", "values": "int"}, {"type": "map", "values": ["null", "long"]}, {"k": 1}, {"k": 1}),
        ("int", ["null", "long"], 7, 7),
        ("int", ["string", "double"], 7, 7.0),
        (["null", "int"], "long", 7, 7),
        (["null", "string"], ["string", "null"], None, None),
        (["null", "int"], ["null", "double", "long"], 7, 7),
        ("string", ["bytes", "string"], "x", "x"),
        (["null", "string"], ["bytes", "string", "null"], "x", "x"),
        (["string", "bytes"], ["null", "string", "bytes"], b"x", b"x"),
        (["null", MILLIS], ["null", MICROS], MOMENT, MOMENT),
        (["null", MILLIS], ["null", "long"], datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 1000),
        (
            ["null", {"type": "array", "items": "string"}],
            [{"type": "array", "items": "string"}, "null", "double"],
            ["a"],
            ["a"],
        ),
        (
            ["int", {"type": "array", "items": record(("x", "int"), name="I")}],
            ["double", {"type": "array", "items": record(("x", "int"), name="I")}],
            [{"x": 1}],
            [{"x": 1}],
        ),
    ],
)
def test_a_changed_type_gives_the_value_of_the_readers_type(writer, reader, value, wanted):
    got = one(writer, reader, value)
    assert (type(got), got) == (type(wanted), wanted)


@pytest.mark.parametrize(
    ("writer", "reader", "value"),
    [
        ("string", "int", "7"),
        ("long", "int", 7),
        ("double", "float", 0.5),
        ("boolean", "int", True),
        ("long", MICROS, 7),
        ("int", MICROS, 7),
        (logical("int", "date"), MICROS, date(1970, 1, 3)),
        (logical("long", "local-timestamp-micros"), MICROS, datetime(1970, 1, 1)),
        (
            logical("bytes", "decimal", precision=4, scale=2),
            logical("bytes", "decimal", precision=4, scale=1),
            Decimal("1.25"),
        ),
        ("bytes", logical("bytes", "decimal", precision=4, scale=2), b"1"),
        (ENUM, {**ENUM, "name": "F"}, "A"),
        (ENUM, "string", "A"),
        ({**ENUM, "symbols": ["A", "Z"]}, ENUM, "Z"),
        ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 1}, b"ab"),
        ({"type": "array", "items": "string"}, {"type": "array", "items": "int"}, ["a"]),
        ({"type": "array", "items": "string"}, {"type": "map", "values": "string"}, ["a"]),
        ({"type": "array", "items": "string"}, {"type": "array", "items": "int"}, []),
        ("string", ["null", "int"], "x"),
        (["null", "string"], "string", None),
        (["null", "string"], ["null", "int"], "x"),
        ("null", "int", None),
        (record(("x", "int"), name="N"), record(("x", "int"), name="M"), {"x": 1}),
        (record(("x", "int"), name="N"), record(("x", "int"), ("y", "int"), name="N"), {"x": 1}),
    ],
)
def test_what_cannot_be_read_as_the_readers_type_is_incompatible(writer, reader, value):
    assert refusal(record(("a", writer)), record(("a", reader)), {"a": value})


def test_an_enum_symbol_that_the_reader_knows_is_read_although_others_are_not_known():
    assert one({**ENUM, "symbols": ["A", "Z"]}, ENUM, "A") == "A"


def test_a_branch_that_has_no_place_stops_only_the_records_that_take_it():
    assert one(["null", "string"], ["null", "int"], None) is None
    nested = {"type": "array", "items": "string"}
    assert one(["null", nested], ["null", {"type": "array", "items": "int"}], None) is None
    assert refusal(record(("a", ["null", nested])), record(("a", ["null", "int"])), {"a": ["x"]})


def branch_two(writer: list, reader: object, payload: bytes) -> object:
    """What a field is read as whose bytes take the second branch of the writer's union."""
    codec = Codec(Shelf(record(("a", writer))), {"t": record(("a", reader))})
    return codec.decode("t", b"\x00\x00\x00\x00\x01\x02" + payload)["a"]


def test_a_number_takes_the_nearest_branch_and_not_the_first_that_would_hold_it():
    got = branch_two(["double", "int"], ["double", "long"], b"\x0e")
    assert (type(got), got) == (int, 7)


def test_a_number_without_a_unit_is_not_let_in_beside_a_time():
    with pytest.raises(Undecodable) as caught:
        branch_two([MICROS, "int"], [MICROS], b"\x0e")
    assert caught.value.reason == "decode.incompatible"


def test_a_missing_field_without_default_is_named_with_its_path():
    inner = lambda *more: record(("x", "int"), *more, name="N")  # noqa: E731
    message = refusal(record(("a", inner())), record(("a", inner(("y", "int")))), {"a": {"x": 1}})
    assert "a.y is missing and has no default" in message


def test_another_event_is_refused_although_every_field_has_a_default():
    assert "wanted is" in refusal(record(("x", "int"), name="Other"), record(("a", "int", 0)), {"x": 1})


def test_a_bare_value_is_no_event():
    for schema, value in (
        ("string", "x"),
        (["null", record(("a", "int"))], {"a": 1}),
        ({"type": "map", "values": "int"}, {}),
    ):
        assert refusal(schema, record(("a", "long")), value)


def test_records_of_one_name_in_two_namespaces_are_told_apart():
    a, b = record(("x", "int"), name="a.N"), record(("x", "string"), name="b.N")
    wider = record(("x", "long"), ("new", "int", 0), name="b.N")
    got = resolve(
        record(("u", [a, b])),
        record(("u", [{**wider, "fields": [{"name": "x", "type": "string"}]}, a])),
        {"u": ("b.N", {"x": "s"})},
    )
    assert got == {"u": {"x": "s"}}
    evolved = record(
        ("u", [record(("x", "string"), ("new", "int", 0), name="b.N"), record(("x", "double"), name="a.N")])
    )
    assert resolve(record(("u", [a, b])), evolved, {"u": ("b.N", {"x": "s"})}) == {"u": {"x": "s", "new": 0}}
    assert resolve(record(("u", [a, b])), evolved, {"u": ("a.N", {"x": 1})}) == {"u": {"x": 1.0}}


def test_a_record_that_holds_itself_is_resolved_at_every_depth():
    writer = record(("v", "int"), ("next", ["null", "R"]))
    reader = record(("next", ["null", "R"]), ("v", "double"), ("note", "string", "-"))
    got = resolve(writer, reader, {"v": 1, "next": {"v": 2, "next": None}})
    assert got == {"v": 1.0, "note": "-", "next": {"v": 2.0, "note": "-", "next": None}}


def test_a_named_type_that_is_used_twice_is_resolved_in_both_places():
    n = record(("x", "int"), name="N")
    m = record(("x", "long"), ("y", "int", 0), name="N")
    row = {"a": {"x": 1}, "b": [{"x": 2}], "c": {"x": 3}}
    writer = record(("a", n), ("b", {"type": "array", "items": "N"}), ("c", ["null", "N"]))
    reader = record(("a", m), ("b", {"type": "array", "items": "N"}), ("c", ["null", "N"]))
    assert resolve(writer, reader, row) == {"a": {"x": 1, "y": 0}, "b": [{"x": 2, "y": 0}], "c": {"x": 3, "y": 0}}


# ---- any change of a schema, with what it does to a value

PRIMITIVE = {
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
    "boolean": st.booleans(),
}


@st.composite
def typed(draw, depth=0, names=None):
    """Writer's type, reader's type, writer's value, reader's value."""
    names = names if names is not None else []
    kind = draw(
        st.sampled_from(["same", "promote", "optional", "array", "map", "record"] if depth < 3 else ["same", "promote"])
    )
    if kind == "same":
        name = draw(st.sampled_from(sorted(PRIMITIVE)))
        value = draw(PRIMITIVE[name])
        return name, name, value, value
    if kind == "promote":
        value = draw(PRIMITIVE["int"])
        reader, made = draw(st.sampled_from([("long", value), ("double", float(value)), (["null", "long"], value)]))
        return "int", reader, value, made
    if kind == "record":
        return draw(records(depth + 1, names))
    w, r, v, made = draw(typed(depth + 1, names))
    if kind == "optional":
        if isinstance(r, list):
            return w, r, v, made
        null = draw(st.booleans())
        return ["null", w], draw(st.sampled_from([["null", r], [r, "null"]])), *((None, None) if null else (v, made))
    if kind == "array":
        many = draw(st.integers(0, 3))
        return {"type": "array", "items": w}, {"type": "array", "items": r}, [v] * many, [made] * many
    keys = draw(st.lists(st.text(max_size=3), max_size=3, unique=True))
    return {"type": "map", "values": w}, {"type": "map", "values": r}, dict.fromkeys(keys, v), dict.fromkeys(keys, made)


@st.composite
def records(draw, depth=0, names=None):
    names = names if names is not None else []
    name = f"R{len(names)}"
    names.append(name)
    theirs, ours, value, made = [], [], {}, {}
    for n in range(draw(st.integers(0, 4))):
        field = f"f{n}"
        change = draw(st.sampled_from(["keep", "drop", "add", "rename"]))
        if change == "add":
            default = draw(
                st.sampled_from([("int", 1, 1), ("bytes", "a", b"a"), ({"type": "array", "items": "int"}, [], [])])
            )
            ours.append({"name": field, "type": default[0], "default": default[1]})
            made[field] = default[2]
            continue
        w, r, v, m = draw(typed(depth, names))
        theirs.append({"name": field, "type": w})
        value[field] = v
        if change == "keep":
            ours.append({"name": field, "type": r})
            made[field] = m
        elif change == "rename":
            ours.append({"name": f"new_{field}", "type": r, "aliases": [field]})
            made[f"new_{field}"] = m
    ours = draw(st.permutations(ours))
    shape = {"type": "record", "name": name}
    return {**shape, "fields": theirs}, {**shape, "fields": list(ours)}, value, made


@given(records())
@settings(max_examples=400, deadline=None)
def test_any_allowed_change_gives_the_readers_value(case):
    writer, reader, value, wanted = case
    assert resolve(writer, reader, value) == wanted
