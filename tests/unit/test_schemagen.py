"""From .avsc files to event classes."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from farandole.cli.schemas import schemas as command
from farandole.errors import DIFFERENCES, FINE, DeclarationError
from farandole.event import EVENT_TYPES, Interval
from farandole.schemagen import generate, load_schemas

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "schemas/avro"
DAY = Interval(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 2, tzinfo=UTC))


def write(folder: Path, schema: object, name: str = "shop.order.placed.v1") -> Path:
    path = folder / f"{name}.avsc"
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema, indent=1))
    return path


def record(*fields: dict, name: str = "OrderPlaced", **more: object) -> dict:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def classes_of(*schemas: dict) -> dict:
    """The classes that a schema's generated text defines."""
    text = generate({f"shop.order.placed{n or ''}.v1": s for n, s in enumerate(schemas)})
    known = dict(EVENT_TYPES)
    space: dict = {"__name__": __name__}
    try:
        exec(compile(text, "made", "exec"), space)
    finally:
        EVENT_TYPES.clear()
        EVENT_TYPES.update(known)
    return space


def mistake(folder: Path) -> DeclarationError:
    with pytest.raises(DeclarationError) as caught:
        load_schemas(folder)
    return caught.value


def test_the_committed_classes_are_what_the_schemas_give():
    assert generate(load_schemas(FOLDER)) == (ROOT / "schemas/events.py").read_text()


def test_the_library_carries_the_ledger_schema_that_the_repository_registers():
    own = load_schemas(ROOT / "farandole/avro")
    assert own["farandole.ledger.v1"] == load_schemas(FOLDER)["farandole.ledger.v1"]


def test_the_generated_file_needs_no_formatting():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--diff", "-"],
        input=(ROOT / "schemas/events.py").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.stdout == b""
    assert done.returncode == 0


def test_every_generated_event_comes_back_from_its_record():
    from schemas import events

    given = [
        events.FileLanded("s3://a", "flights", "csv", DAY, 10),
        events.TableStaged("flights", "flights", DAY, "s3://b", 3, key_columns=("year", "month")),
        events.TableMerged("flights", DAY, 842),
        events.FileQuarantined("s3://a", "flights", "no header"),
        events.DelaysRefreshed(DAY, 842),
    ]
    assert [type(event).of(event.record()) for event in given] == given
    assert {type(event) for event in given} <= set(EVENT_TYPES.values())


def test_the_record_key_names_come_from_the_schema():
    from schemas.events import TableMerged

    assert (TableMerged.__event_type__, TableMerged.__event_key__) == ("lake.table.merged.v1", ("table",))


def test_the_ledger_has_no_generated_class():
    assert "LedgerEntry" not in generate(load_schemas(FOLDER))


def test_nested_records_lists_maps_and_unions_come_back_from_their_record():
    line = record({"name": "sku", "type": "string"}, {"name": "count", "type": "int", "default": 1}, name="Line")
    made = classes_of(
        record(
            {"name": "lines", "type": {"type": "array", "items": line}},
            {"name": "by_shelf", "type": {"type": "map", "values": "Line"}},
            {"name": "gift", "type": ["null", "Line"]},
            {"name": "matrix", "type": {"type": "array", "items": {"type": "array", "items": "int"}}},
            {"name": "tags", "type": {"type": "map", "values": "string"}, "default": {}},
            {"name": "note", "type": ["null", "string"], "default": None},
            {"name": "blob", "type": "bytes", "default": "ÿ'\""},
            {"name": "either", "type": ["string", "long"], "default": 'say "hi"'},
            {"name": "names", "type": {"type": "array", "items": "string"}, "default": ["a", "b"]},
        )
    )
    of, item = made["OrderPlaced"], made["Line"]("x")
    order = of((item, item), {"top": item}, None, ((1, 2), (3,)))
    assert of.of(order.record()) == order
    assert of.of(of((), {}, item, ()).record()).gift == item
    assert (order.blob, order.either, order.names, item.count) == (b"\xff'\"", 'say "hi"', ("a", "b"), 1)


def test_logical_types_have_their_python_types():
    made = classes_of(
        record(
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "later", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": None},
        )
    )
    assert {n: str(t) for n, t in made["OrderPlaced"].__annotations__.items()} == {
        "at": "datetime",
        "day": "date",
        "price": "Decimal",
        "id": "UUID",
        "later": "datetime | None",
    }


def test_a_record_used_by_two_events_is_one_class():
    line = record({"name": "sku", "type": "string"}, name="Line")
    made = generate({f"a.b{n}.v1": record({"name": "l", "type": line}, name=f"E{n}") for n in "xy"})
    assert made.count("class Line:") == 1


@pytest.mark.parametrize(
    ("schemas", "says"),
    [
        ([record({"name": "class", "type": "int"})], "keeps the name 'class'"),
        ([record({"name": "record", "type": "int"})], "keeps the name 'record'"),
        (
            [record({"name": "a", "type": "int", "default": 0}, {"name": "b", "type": "int"})],
            "OrderPlaced.b has no default",
        ),
        (
            [record({"name": "a", "type": "int"}), record({"name": "b", "type": "int"})],
            "two records are named OrderPlaced",
        ),
        ([record({"name": "a", "type": ["null", "OrderPlaced"]})], "holds itself"),
        (
            [record({"name": "a", "type": {"type": "map", "values": "int"}, "default": {"x": 1}})],
            "a map's default must be empty",
        ),
        (
            [record({"name": "a", "type": [record(name="A"), record(name="B")]})],
            "which of several records or lists it is cannot be told",
        ),
        ([record({"name": "a", "type": record(name="A"), "default": {}})], "a default of this type cannot be written"),
    ],
)
def test_what_has_no_python_face_is_said(schemas, says):
    with pytest.raises(DeclarationError, match=says) as caught:
        classes_of(*schemas)
    assert caught.value.place.startswith("schemas/avro/shop.order.placed")
    assert caught.value.hint


def test_malformed_json_is_told_with_file_and_line(tmp_path):
    path = write(tmp_path, '{"type": "record",\n "name": "A",\n "fields": [,]}')
    error = mistake(tmp_path)
    assert error.place == f"{path}:3"
    assert "malformed JSON" in error.message


def test_an_unknown_avro_type_is_told_with_file_and_line(tmp_path):
    path = write(tmp_path, '{"type": "record",\n "name": "A",\n "fields": [\n {"name": "x", "type": "strin"}]}')
    error = mistake(tmp_path)
    assert error.place == f"{path}:4"
    assert "strin" in error.message


def test_a_schema_without_fields_is_an_error_and_not_a_traceback(tmp_path):
    write(tmp_path, {"type": "record", "name": "A"})
    assert "'fields' is missing" in mistake(tmp_path).message


def test_a_file_whose_name_is_no_event_type_is_told_how_to_be_named(tmp_path):
    path = write(tmp_path, record(), name="OrderPlaced")
    error = mistake(tmp_path)
    assert error.place == str(path)
    assert "lake.table.merged.v1.avsc" in error.hint


@pytest.mark.parametrize("schema", ['"string"', "[]", '{"type": "enum", "name": "A", "symbols": []}'])
def test_an_event_must_be_a_record(tmp_path, schema):
    write(tmp_path, schema)
    assert "an event is an Avro record" in mistake(tmp_path).message


def test_a_key_must_name_a_field(tmp_path):
    path = write(
        tmp_path, '{"type": "record", "name": "A",\n "key": ["shop"],\n "fields": [{"name": "x", "type": "int"}]}'
    )
    error = mistake(tmp_path)
    assert (error.place, error.hint) == (f"{path}:2", "it has x")


def test_bytes_that_are_no_text_are_told(tmp_path):
    (tmp_path / "shop.order.placed.v1.avsc").write_bytes(b"\xff\xfe{}")
    assert "not UTF-8" in mistake(tmp_path).message


def test_an_empty_folder_is_an_error(tmp_path):
    assert "there is no schema here" in mistake(tmp_path).message


def test_the_command_writes_then_finds_it_fresh_then_stale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schemas/avro").mkdir(parents=True)
    write(tmp_path / "schemas/avro", record({"name": "x", "type": "int"}))
    run = lambda *words: CliRunner().invoke(command, words, standalone_mode=False)  # noqa: E731

    assert run("check").return_value == DIFFERENCES
    assert run("generate").return_value == FINE
    assert run("generate", "--check").return_value == FINE
    write(tmp_path / "schemas/avro", record({"name": "y", "type": "int"}))
    stale = run("generate", "--check")
    assert stale.return_value == DIFFERENCES
    assert "farandole schemas generate" in stale.output
