from __future__ import annotations

import os
from pathlib import Path

import pytest

from farandole.errors import DeclarationError
from farandole.sources.metadata import Sources, read_source, read_sources, source_problems

ORDERS = """\
source: orders
format: csv
path: orders/%Y/%m/%d/*.csv
table: orders
key: [id]
columns:
  id: int
  no: string
  placed_on: date
rules:
  not_null: [placed_on]
"""


def written(folder: Path, text: str, name: str = "orders") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_the_sources_of_the_reference_platform_can_be_read():
    found = read_sources("topology/sources")

    assert sorted(found) == ["airlines", "airports", "flights", "planes", "weather"]
    assert found["airlines"].mode == "changes"
    assert list(found["planes"].shapes()) == ["planes", "plane_engines"]


def test_yaml_booleans_stay_the_words_that_they_are(tmp_path):
    source = read_source(written(tmp_path, ORDERS + "  one_of: {no: [yes, no, on]}\n"))

    assert list(source.columns) == ["id", "no", "placed_on"]
    assert source.rules.one_of == {"no": ("yes", "no", "on")}


@pytest.mark.parametrize(
    ("change", "line", "says", "hint"),
    [
        (("format: csv", "fromat: csv"), 2, "unknown key 'fromat'", "did you mean 'format'?"),
        (("format: csv", "format: parquet"), 2, "format: Input should be 'csv'", "mend the value"),
        (("table: orders\n", ""), 1, "'table' is missing", "add `table:`"),
        (("id: int", "id: integer"), 7, "'integer' is no type; did you mean int?", "mend the value"),
        (("key: [id]", "key: [order_id]"), 5, "key names 'order_id', which is no column", "columns: id, no, placed_on"),
        (("not_null: [placed_on]", "between: {prize: [0, 1]}"), 11, "names 'prize', which is no column", "columns: id"),
        (("not_null:", "notnull:"), 11, "unknown key 'rules.notnull'", "did you mean 'not_null'?"),
        (("path: orders/%Y/%m", "path: orders/%Y/%d"), 3, "must name a time without a hole", "flights/%Y/%m/%d/%H"),
        (("source: orders", "source: order"), 1, "source 'order' stands in orders.yaml", "order.yaml"),
        (("table: orders", "table: orders\npartition: placed_on"), 5, "must be a timestamp or date of the key", "two"),
        (("table: orders", "table: orders\nrecord: a/b"), 5, "format xml only", "format: xml"),
        (("table: orders", "table: orders\ntable: other"), 5, "a second time (first on line 4)", "remove one"),
        (("id: int", "_id: int"), 7, "a leading _ is kept for the lake", "rename it"),
        (("key: [id]", "key: [id"), 6, "this is no YAML", "mend the line"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_hint(tmp_path, change, line, says, hint):
    path = written(tmp_path, ORDERS.replace(*change))

    with pytest.raises(DeclarationError) as caught:
        read_source(path)

    problems = source_problems(path)
    assert any(says in p.message and p.place == f"{path}:{line}" and hint in p.hint for p in problems), problems
    assert str(caught.value) == str(problems[0])


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path):
    path = written(tmp_path, ORDERS.replace("id: int", "id: integer").replace("format: csv", "format: cvs"))

    assert [p.place.rpartition(":")[2] for p in source_problems(path)] == ["2", "7"]


def test_an_empty_file_is_no_source(tmp_path):
    with pytest.raises(DeclarationError, match="a source is a mapping"):
        read_source(written(tmp_path, ""))


def test_two_sources_may_not_fill_one_table(tmp_path):
    written(tmp_path, ORDERS)
    written(tmp_path, ORDERS.replace("source: orders", "source: again"), "again")

    with pytest.raises(DeclarationError, match="filled by the sources 'again' and 'orders'"):
        read_sources(tmp_path)


def test_a_source_that_is_declared_later_is_found_without_a_restart(tmp_path):
    sources = Sources(tmp_path)
    with pytest.raises(DeclarationError, match="no source 'orders' is declared"):
        sources.source("orders")

    written(tmp_path, ORDERS)

    assert sources.source("orders").table == "orders"


def test_a_source_that_changed_is_read_again_and_one_that_did_not_is_not(tmp_path):
    path = written(tmp_path, ORDERS)
    sources = Sources(tmp_path)
    first = sources.source("orders")
    assert sources.source("orders") is first

    written(tmp_path, ORDERS.replace("table: orders", "table: sales"))
    os.utime(path, ns=(1, 1))

    assert sources.source("orders").table == "sales"


def test_one_wrong_file_stops_no_other_source(tmp_path):
    written(tmp_path, ORDERS)
    written(tmp_path, "nonsense: 1\n", "broken")

    good, bad = Sources(tmp_path).all()

    assert [s.source for s in good] == ["orders"]
    assert bad[0].place == f"{tmp_path}/broken.yaml:1"


@pytest.mark.parametrize("name", ["../secrets", "/etc/passwd", "", "a/b"])
def test_a_name_from_an_event_never_leaves_the_folder(tmp_path, name):
    (tmp_path / "in").mkdir()
    written(tmp_path, ORDERS, "secrets")

    with pytest.raises(DeclarationError, match="no source"):
        Sources(tmp_path / "in").source(name)
