"""Relationalize has one branch per declared source; a branch more needs a file of metadata and no code."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from farandole import Interval
from farandole.errors import DeclarationError
from farandole.lake import BadRows, Lake
from farandole.sources.metadata import Sources
from farandole.testing import Stage, conservation
from schemas.events import FileLanded, FileQuarantined
from services.relationalize.handlers import quarantine, stage
from services.relationalize.pipeline import Relationalize

HOUR = Interval(datetime(2013, 1, 1, 6, tzinfo=UTC), datetime(2013, 1, 1, 7, tzinfo=UTC))
HEADER = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour\n"
ROW = "EWR,2013,1,1,1,39.02,26.06,59.37,270,10.357,NA,0,1012,10,2013-01-01T06:00:00Z\n"


def landed(folder: Path, content: str, source: str = "weather", form: str = "csv") -> FileLanded:
    path = folder / "landed"
    path.write_text(content)
    return FileLanded(str(path), source, form, HOUR, len(content), "d1")


def test_a_landed_file_becomes_the_staged_rows_of_its_table(tmp_path: Path) -> None:
    (staged,) = stage(landed(tmp_path, HEADER + ROW), Sources("topology/sources"), Lake(str(tmp_path / "lake")))

    assert (staged.table, staged.rows, staged.mode) == ("weather", 1, "upsert")
    assert staged.key_columns == ("time_hour", "origin")


def test_a_file_with_a_bad_row_is_quarantined_with_row_column_and_rule(tmp_path: Path) -> None:
    file = landed(tmp_path, HEADER + ROW + ROW.replace("EWR", "XXX"))
    with pytest.raises(BadRows) as caught:
        stage(file, Sources("topology/sources"), Lake(str(tmp_path / "lake")))

    told = quarantine(file, caught.value)

    assert told == FileQuarantined(file.uri, "weather", "row 2, origin: 'XXX' is none of one_of: EWR, JFK, LGA", 1)


def test_a_new_source_is_a_file_of_metadata_and_no_code(tmp_path: Path) -> None:
    sources, lake = Sources(tmp_path / "sources"), Lake(str(tmp_path / "lake"))
    file = landed(tmp_path, '{"id": 1, "tags": [1]}\n', "orders", "jsonl")
    with pytest.raises(DeclarationError, match="no source 'orders' is declared"):
        stage(file, sources, lake)

    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/orders.yaml").write_text(
        "{source: orders, format: jsonl, path: orders/%Y/%m/%d/*, table: orders, key: [id], columns: {id: int}}"
    )

    assert [s.table for s in stage(file, sources, lake)] == ["orders"]


def test_a_file_that_is_told_twice_is_staged_once(tmp_path: Path) -> None:
    file, on_stage = landed(tmp_path, HEADER + ROW), Stage(Relationalize, {Lake: Lake(str(tmp_path / "lake"))})

    on_stage.tell(file, file)

    (staged,) = on_stage.sent
    assert (staged.table, staged.interval, on_stage.duplicates) == ("weather", HOUR, 1)


def test_a_bad_file_ends_caught_and_the_next_one_is_not_held_up(tmp_path: Path) -> None:
    bad = landed(tmp_path, HEADER + ROW.replace("EWR", "XXX"))
    on_stage = Stage(Relationalize, {Lake: Lake(str(tmp_path / "lake"))})

    on_stage.tell(bad)
    on_stage.tell(landed(tmp_path, HEADER + ROW), id="mended")

    assert [type(event).__name__ for event in on_stage.sent] == ["FileQuarantined", "TableStaged"]
    assert ([run.state for run in on_stage.runs], conservation(on_stage)) == (["caught", "done"], [])
