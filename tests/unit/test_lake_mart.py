from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from farandole.event import Interval
from farandole.lake import Lake

START = datetime(2013, 1, 1, 23, tzinfo=UTC)
HOUR = Interval(START, START + timedelta(hours=1))
NEXT = Interval(HOUR.end, HOUR.end + timedelta(hours=1))
SQL = 'select l."at", l.n, r.n as other from lefts l left join rights r using ("at") order by l.n'
OVER = {"lefts": "at", "rights": "at"}


def lake_with(folder: Path, **tables: list[tuple[datetime, int]]) -> Lake:
    lake = Lake(str(folder / "lake"))
    for name, rows in tables.items():
        made = [{"at": at, "n": n, "_changed_at": 1, "_lsn": 0, "_day": at.date()} for at, n in rows]
        schema = pa.schema(
            [("at", pa.timestamp("us", "UTC")), ("n", pa.int64()), ("_changed_at", pa.int64()), ("_lsn", pa.int64())]
        ).append(pa.field("_day", pa.date32()))
        path = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(made, schema=schema), path)
        lake.merge(name, str(path), ("at", "n"))
    return lake


def test_an_interval_of_the_mart_holds_the_rows_of_that_interval_and_no_others(tmp_path):
    lake = lake_with(tmp_path, lefts=[(START, 1), (START, 2), (HOUR.end, 3)], rights=[(START, 7)])

    done = lake.refresh("delays", HOUR, SQL, OVER)

    assert done.rows == 2
    assert done.uri.endswith("/mart/delays/day=2013-01-01/hour=23.parquet")
    rows = pq.read_table(done.uri.removeprefix("file://")).to_pylist()
    assert rows == [{"at": START, "n": 1, "other": 7}, {"at": START, "n": 2, "other": 7}]


def test_refreshing_again_leaves_the_same_bytes(tmp_path):
    lake = lake_with(tmp_path, lefts=[(START, 1)], rights=[])
    path = Path(lake.refresh("delays", HOUR, SQL, OVER).uri.removeprefix("file://"))
    before = path.read_bytes()

    lake.refresh("delays", HOUR, SQL, OVER)

    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["hour=23.parquet"]


def test_an_hour_without_rows_is_a_file_without_rows(tmp_path):
    lake = lake_with(tmp_path, lefts=[(START, 1)], rights=[])

    done = lake.refresh("delays", NEXT, SQL, OVER)

    assert done.rows == 0
    assert pq.read_table(done.uri.removeprefix("file://")).column_names == ["at", "n", "other"]


def test_a_refresh_sees_what_another_process_merged(tmp_path):
    lake = lake_with(tmp_path, lefts=[(START, 1)], rights=[])
    assert lake.refresh("delays", HOUR, SQL, OVER).rows == 1

    lake_with(tmp_path, lefts=[(START, 2)])

    assert lake.refresh("delays", HOUR, SQL, OVER).rows == 2


def test_the_mart_is_served_under_its_name_beside_the_tables(tmp_path):
    lake = lake_with(tmp_path, lefts=[(START, 1), (HOUR.end, 3)], rights=[])
    lake.refresh("delays", HOUR, SQL, OVER)
    lake.refresh("delays", NEXT, SQL, OVER)

    connection = lake.connect()

    assert connection.sql("select n from delays order by n").fetchall() == [(1,), (3,)]
    assert connection.sql("select count(*) from lefts").fetchall() == [(2,)]


def test_a_lake_with_nothing_in_it_can_be_asked(tmp_path):
    assert Lake(str(tmp_path / "lake")).connect().sql("select 1").fetchall() == [(1,)]
