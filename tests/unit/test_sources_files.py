from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from farandole.sources.files import scan, strays
from farandole.sources.metadata import Source
from farandole.sources.pattern import PathPattern


def source(path: str = "orders/%Y/%m/%d/%H/*.csv") -> Source:
    return Source.model_validate(
        {"source": "orders", "format": "csv", "path": path, "table": "orders", "key": ["id"], "columns": {"id": "int"}}
    )


def put(root: Path, path: str, content: bytes = b"id\n1\n") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


@pytest.mark.parametrize(
    ("pattern", "path", "interval"),
    [
        ("a/%Y/%m/%d/%H/*.csv", "a/2013/01/31/23/x.csv", "2013-01-31T23:00Z/2013-02-01T00:00Z"),
        ("a/%Y/%m/%d/*.csv", "a/2013/12/31/x.csv", "2013-12-31T00:00Z/2014-01-01T00:00Z"),
        ("a/%Y-%m.csv", "a/2012-02.csv", "2012-02-01T00:00Z/2012-03-01T00:00Z"),
        ("a/%Y.csv", "a/2013.csv", "2013-01-01T00:00Z/2014-01-01T00:00Z"),
        ("%Y/%m/%d/*-%Y%m%d%H%M.csv", "2013/03/10/feed-201303100205.csv", "2013-03-10T02:05Z/2013-03-10T02:06Z"),
    ],
)
def test_a_path_names_its_interval(pattern, path, interval):
    assert str(PathPattern(pattern).interval(path)) == interval


@pytest.mark.parametrize(
    "path",
    ["a/2013/01/31/23/.x.csv", "a/2013/13/31/23/x.csv", "a/2013/02/30/01/x.csv", "a/2013/01/31/23/deep/x.csv", "b.csv"],
)
def test_hidden_impossible_and_foreign_paths_are_no_files_of_the_source(path):
    assert PathPattern("a/%Y/%m/%d/%H/*.csv").interval(path) is None


@pytest.mark.parametrize("pattern", ["a/*.csv", "a/%m/%d/*.csv", "a/%Y/%d.csv", "a/%Y/%j.csv"])
def test_a_pattern_with_a_hole_in_its_time_is_refused(pattern):
    with pytest.raises(ValueError, match="path 'a/"):
        PathPattern(pattern)


def test_a_rescan_gives_the_same_ids_and_what_was_seen_is_not_told_again(tmp_path):
    put(tmp_path, "orders/2013/01/01/05/b.csv")
    put(tmp_path, "orders/2013/01/01/04/a.csv", b"id\n")
    seen: dict[str, tuple[int, str]] = {}

    first = scan(str(tmp_path), [source()], seen)

    assert [str(f.interval)[:13] for f in first] == ["2013-01-01T04", "2013-01-01T05"]
    assert scan(str(tmp_path), [source()], seen) == []
    assert [f.event_id for f in scan(str(tmp_path), [source()])] == [f.event_id for f in first]


def test_a_file_that_was_replaced_is_another_event(tmp_path):
    put(tmp_path, "orders/2013/01/01/05/b.csv", b"id\n1\n")
    seen: dict[str, tuple[int, str]] = {}
    (before,) = scan(str(tmp_path), [source()], seen)

    put(tmp_path, "orders/2013/01/01/05/b.csv", b"id\n22\n")
    (after,) = scan(str(tmp_path), [source()], seen)

    assert after.uri == before.uri
    assert after.event_id != before.event_id


def test_files_of_no_source_are_known_as_strays(tmp_path):
    put(tmp_path, "orders/2013/01/01/05/b.csv")
    put(tmp_path, "orders/2013/01/01/05/.b.csv.part")
    put(tmp_path, "unknown/x.csv")

    assert [uri.removeprefix(f"file://{tmp_path}/") for uri in strays(str(tmp_path), [source()])] == ["unknown/x.csv"]


def test_a_raw_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="raw folder"):
        scan(str(tmp_path / "gone"), [source()])


def test_a_bucket_is_scanned_like_a_folder():
    memory = fsspec.filesystem("memory")
    memory.pipe("/raw-scan/orders/2013/01/01/05/b.csv", b"id\n1\n")

    (file,) = scan("memory://raw-scan", [source()])

    assert file.uri == "memory:///raw-scan/orders/2013/01/01/05/b.csv"
    assert file.size == 5
