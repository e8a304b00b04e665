from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from farandole.event import Interval
from farandole.lake import BadRows, Lake, Staged
from farandole.sources.metadata import Source

HOUR = Interval(datetime(2013, 1, 1, 5, tzinfo=UTC), datetime(2013, 1, 1, 6, tzinfo=UTC))


@dataclass
class File:
    uri: str
    interval: Interval = HOUR
    digest: str = "d1"


def source(**given: Any) -> Source:
    plain = {
        "source": "orders",
        "format": "csv",
        "path": "orders/%Y/*",
        "table": "orders",
        "key": ["id"],
        "columns": {"id": "int", "name": "string", "at": "timestamp"},
    }
    return Source.model_validate({**plain, **given})


def staged(folder: Path, declared: Source, content: bytes | str) -> list[Staged]:
    path = folder / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Lake(str(folder / "lake")).stage(declared, File(str(path)))


def rows(one: Staged, *, system: bool = False) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if system or not k.startswith("_")}
        for row in pq.read_table(one.uri.removeprefix("file://")).to_pylist()
    ]


def why(folder: Path, declared: Source, content: bytes | str) -> BadRows:
    with pytest.raises(BadRows) as caught:
        staged(folder, declared, content)
    assert [p for p in (folder / "lake").rglob("*") if p.is_file()] == [], "a refused file leaves nothing behind"
    return caught.value


def test_a_csv_file_is_staged_by_its_declared_types(tmp_path):
    text = 'extra,name,id,at\n9,"a, ""b""\nc",1,2013-01-01T05:00:00Z\n9,NA,2,2013-01-01T05:00:00+01:00\n'

    (one,) = staged(tmp_path, source(nulls=["NA"]), text)

    assert (one.table, one.rows, one.mode, one.key_columns, one.interval) == ("orders", 2, "upsert", ("id",), HOUR)
    assert rows(one) == [
        {"id": 1, "name": 'a, "b"\nc', "at": datetime(2013, 1, 1, 5, tzinfo=UTC)},
        {"id": 2, "name": None, "at": datetime(2013, 1, 1, 4, tzinfo=UTC)},
    ]


def test_staging_again_leaves_the_same_file_with_the_same_bytes(tmp_path):
    text = "id,name,at\n1,a,2013-01-01T05:00:00Z\n"
    (first,) = staged(tmp_path, source(), text)
    path = Path(first.uri.removeprefix("file://"))
    content = path.read_bytes()

    (second,) = staged(tmp_path, source(), text)

    assert second == first
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["d1.parquet"]


def test_a_file_with_a_header_and_no_rows_is_an_empty_table(tmp_path):
    (one,) = staged(tmp_path, source(), "id,name,at\n")

    assert one.rows == 0
    assert rows(one) == []


def test_other_headers_and_delimiters_are_metadata(tmp_path):
    declared = source(delimiter=";", columns={"id": {"type": "int", "path": "Order No"}, "sum": "decimal(10,2)"})

    (one,) = staged(tmp_path, declared, "Order No;sum\n7;1.50\n")

    assert rows(one) == [{"id": 7, "sum": Decimal("1.50")}]


@pytest.mark.parametrize(
    ("content", "says", "count"),
    [
        ("id,name,at\n1,a,\nx,b,\n2,c,\nyy,d,\n", "row 2, id: 'x' is no int; row 4, id: 'yy' is no int", 2),
        ("id,name,at\n1,a,yesterday\n", "row 1, at: 'yesterday' is no timestamp", 1),
        ("id,name,at\n1,a,\n,b,\n", "row 2, id: is empty, and not_null forbids that", 1),
        ("id,name\n1,a\n", "the header lacks a declared column: Column 'at'", 1),
        ("id,name,at\n1,a,\n1,b\n", "Expected 3 columns, got 2", 1),
        ("", "Empty CSV file", 1),
    ],
)
def test_a_csv_that_cannot_be_trusted_names_row_column_and_rule(tmp_path, content, says, count):
    error = why(tmp_path, source(), content)

    assert says in error.message
    assert error.rows == count
    assert error.place == str(tmp_path / "file")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    assert "UTF8" in why(tmp_path, source(), b"id,name,at\n1,\xff\xfe,\n").message


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"not_null": ["name"]}, "row 2, name: is empty, and not_null forbids that"),
        ({"between": {"id": [2, 9]}}, "row 1, id: 1 is not between 2 and 9"),
        ({"one_of": {"name": ["b", "c"]}}, "row 1, name: 'a' is none of one_of: b, c"),
        ({"one_of": {"id": ["1", "2"]}}, "row 3, id: 3 is none of one_of: 1, 2"),
        ({"matches": {"name": "^[a-b]$"}}, "row 3, name: 'c' does not match ^[a-b]$"),
        ({"at_least": 4}, "orders has 3 rows, and at_least asks 4"),
    ],
)
def test_a_broken_rule_is_named_and_an_empty_value_breaks_only_not_null(tmp_path, rules, says):
    error = why(tmp_path, source(rules=rules), "id,name,at\n1,a,\n2,,\n3,c,\n")

    assert error.message == says


def test_every_wrong_row_is_counted_and_the_first_three_are_named(tmp_path):
    text = "id,name,at\n" + "".join(f"{n},x{n},\n" for n in range(1, 51))

    error = why(tmp_path, source(rules={"between": {"id": [10, 20]}, "matches": {"name": "x.?5$"}}), text)

    assert error.rows == 49  # all but the 15
    assert error.message.startswith("row 1, id: 1 is not between 10 and 20; row 1, name: 'x1' does not match")


def json_source() -> Source:
    columns = {"id": "int", "lat": {"type": "float", "path": "position.lat"}, "on": "date", "sum": "decimal(10,2)"}
    return source(format="jsonl", columns=columns)


def test_json_lines_are_read_by_dotted_path(tmp_path):
    lines = (
        '{"id": 1, "position": {"lat": 40, "more": [1, {"a": null}]}, "on": "2013-01-01", "sum": "1.5"}\n'
        "\n"
        '{"id": 2, "position": null, "other": true}\n'
    )

    (one,) = staged(tmp_path, json_source(), lines)

    assert rows(one) == [
        {"id": 1, "lat": 40.0, "on": date(2013, 1, 1), "sum": Decimal("1.50")},
        {"id": 2, "lat": None, "on": None, "sum": None},
    ]


def test_an_empty_json_file_is_no_rows(tmp_path):
    assert staged(tmp_path, json_source(), "")[0].rows == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("null", "row 2, line: Expected `object`, got `null`"),
        ('{"id": "x"}', "row 2, line: Expected `int | null`, got `str` - at `$.id`"),
        ('{"id": 1.5}', "row 2, line: Expected `int | null`, got `float` - at `$.id`"),
        ('{"id": 1, "position": 5}', "row 2, line: Expected `object | null`, got `int` - at `$.position`"),
        ('{"id": 1', "row 2, line: Input data was truncated"),
        ("[" * 100_000, "row 2, line: "),
        ('{"id": 9223372036854775808}', "row 2, id: 9223372036854775808 is too large"),
    ],
)
def test_a_json_line_that_is_wrong_is_named_and_never_ends_the_process(tmp_path, line, says):
    error = why(tmp_path, json_source(), '{"id": 1}\n' + line + '\n{"id": 3}\n')

    assert says in error.message
    assert error.rows == 1


FLEET = """\
<?xml version="1.0"?>
<fleet xmlns="urn:f" xmlns:e="urn:e">
 <maker name="Airbus &amp; Co">
  <plane id="1"><type> jet </type><e:engine n="1"/><e:engine n="2"/></plane>
  <plane id="2"><type/></plane>
  <e:plane id="9"/>
 </maker>
 <maker name="Boeing"><plane id="3"><type>prop</type><e:engine n="1"/></plane></maker>
 <plane id="8"/>
</fleet>
"""


def xml_source(**given: Any) -> Source:
    return source(
        format="xml",
        namespaces={"f": "urn:f", "e": "urn:e"},
        record="f:fleet/f:maker/f:plane",
        columns={
            "id": {"type": "int", "path": "@id"},
            "maker": {"type": "string", "path": "../@name"},
            "type": {"type": "string", "path": "f:type"},
            "engines": {"type": "int", "path": "count(e:engine)"},
        },
        children={
            "engines": {
                "path": "e:engine",
                "key": ["id", "n"],
                "columns": {"id": {"type": "int", "path": "../@id"}, "n": {"type": "int", "path": "@n"}},
            }
        },
        **given,
    )


def test_nested_xml_gives_a_table_for_the_records_and_one_for_each_repeating_group(tmp_path):
    planes, engines = staged(tmp_path, xml_source(), FLEET)

    assert rows(planes) == [
        {"id": 1, "maker": "Airbus & Co", "type": "jet", "engines": 2},
        {"id": 2, "maker": "Airbus & Co", "type": None, "engines": 0},
        {"id": 3, "maker": "Boeing", "type": "prop", "engines": 1},
    ]
    assert rows(engines) == [{"id": 1, "n": 1}, {"id": 1, "n": 2}, {"id": 3, "n": 1}]
    assert (engines.table, engines.key_columns) == ("engines", ("id", "n"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('id="2"', 'id="two"'), "row 2, id: 'two' is no int"),
        (('n="2"', 'n="1.5"'), "row 2, n: '1.5' is no int"),
        (("<type/>", "<type>a</type><type>b</type>"), "row 2, type: f:type gives 2 values, not one"),
        (("</fleet>", ""), "this is no well-formed XML"),
        ((FLEET, ""), "this is no well-formed XML"),
    ],
)
def test_xml_that_cannot_be_trusted_is_refused(tmp_path, change, says):
    assert says in why(tmp_path, xml_source(), FLEET.replace(*change)).message


def test_xml_that_would_make_us_read_elsewhere_is_refused(tmp_path):
    (tmp_path / "secret").write_text("s3cret")
    doctype = f'<!DOCTYPE fleet [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>\n<fleet'
    hostile = FLEET.replace("<fleet", doctype).replace(" jet ", "&x;")

    assert "document type declaration" in why(tmp_path, xml_source(), hostile).message


def test_xml_entities_that_grow_without_end_are_refused(tmp_path):
    lol = '<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    hostile = FLEET.replace("<fleet", f"<!DOCTYPE fleet [{lol}]>\n<fleet").replace(" jet ", "&i;")

    assert "document type declaration" in why(tmp_path, xml_source(), hostile).message


def change_source() -> Source:
    return source(format="debezium", columns={"id": "int", "name": "string"})


def test_a_change_log_becomes_upserts_and_deletes_with_their_place_in_the_log(tmp_path):
    lines = (
        '{"before": null, "after": {"id": 1, "name": "a"}, "op": "c", "ts_ms": 9, "source": {"ts_ms": 5, "lsn": 70}}\n'
        '{"before": {"id": 1, "name": "a"}, "after": null, "op": "d", "ts_ms": 12}\n'
    )

    (one,) = staged(tmp_path, change_source(), lines)

    assert one.mode == "changes"
    assert rows(one, system=True) == [
        {"id": 1, "name": "a", "_op": "u", "_changed_at": 5, "_lsn": 70},
        {"id": 1, "name": "a", "_op": "d", "_changed_at": 12, "_lsn": 0},
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"op": "t", "ts_ms": 1}', "row 1, op: 't' is none of c, r, u, d"),
        ('{"op": "u", "ts_ms": 1, "before": {"id": 1}, "after": null}', "row 1, op: the image of the row is missing"),
        ('{"ts_ms": 1}', "row 1, line: Object missing required field `op`"),
        ('{"op": "c", "after": {"name": "x"}}', "row 1, id: is empty"),
    ],
)
def test_a_change_that_cannot_be_understood_is_refused(tmp_path, line, says):
    assert says in why(tmp_path, change_source(), line + "\n").message


def test_a_file_that_has_gone_is_no_bad_row(tmp_path):
    with pytest.raises(FileNotFoundError):
        Lake(str(tmp_path / "lake")).stage(source(), File(str(tmp_path / "gone.csv")))


def test_a_bucket_is_staged_into_like_a_folder():
    import fsspec

    fsspec.filesystem("memory").pipe("/stage/raw/x.csv", b"id,name,at\n1,a,\n")
    lake = Lake("memory://stage")

    (one,) = lake.stage(source(), File("memory://stage/raw/x.csv"))

    with lake.folder.open(one.uri) as handle:
        assert pq.read_table(handle).num_rows == 1
