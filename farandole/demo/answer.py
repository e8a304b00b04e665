"""What the chain must come to, computed straight from the package's tables, and how a lake differs from it."""

from __future__ import annotations

import tempfile
import zipfile
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from farandole.demo.feeds import START, package_data

if TYPE_CHECKING:
    from farandole.lake import Lake

SHOWN = 5
"""Rows named per kind of difference; the rest are counted."""

_JOIN = """
select f.*, w.temp, w.dewp, w.humid, w.wind_dir, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib
from read_csv($flights, nullstr = 'NA') f
left join read_csv($weather, nullstr = 'NA') w on w.origin = f.origin and w.time_hour = f.time_hour
where f.time_hour >= $start and f.time_hour < $end
"""


def direct_join(days: int, start: datetime = START) -> pa.Table:
    """Flights with the weather of their origin and hour, from the package's own files and nothing of ours."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(package_data() / "flights.csv.zip") as archive:
        flights = archive.extract("flights.csv", folder)
        weather = str(package_data() / "weather.csv")
        span = {"start": start, "end": start + timedelta(days=days)}
        return _connect().sql(_JOIN, params={"flights": flights, "weather": weather, **span}).to_arrow_table()


def mart_rows(lake: Lake) -> int:
    """How many rows the delay mart has; 0 where there is none."""
    connection = lake.connect()
    return int(connection.table("delays").shape[0]) if _has(connection, "delays") else 0


def compare_mart(lake: Lake, days: int, start: datetime = START) -> list[str]:
    """How the mart of these days differs from the direct join, row for row and copy for copy; empty if it does not."""
    connection = lake.connect()
    if not _has(connection, "delays"):
        return ["there is no delay mart"]
    mart = connection.table("delays")
    end = start + timedelta(days=days)
    within = connection.sql(
        "select * from delays where time_hour >= $start and time_hour < $end", params={"start": start, "end": end}
    )
    return _differences(connection, "delays", within, direct_join(days, start), mart.columns)


def compare_tables(lake: Lake) -> list[str]:
    """How the slow tables (airlines, airports, planes) differ from the package's; empty if they do not."""
    connection = lake.connect()
    found: list[str] = []
    for name in ("airlines", "airports", "planes"):
        if not _has(connection, name):
            found.append(f"there is no table {name}")
            continue
        real = _connect().read_csv(str(package_data() / f"{name}.csv"), na_values="NA").to_arrow_table()
        found += _differences(connection, name, connection.table(name), real, connection.table(name).columns)
    return found


def _differences(
    connection: duckdb.DuckDBPyConnection, name: str, ours: duckdb.DuckDBPyRelation, real: pa.Table, columns: list[str]
) -> list[str]:
    if sorted(columns) != sorted(real.column_names):
        return [f"{name} has the columns {sorted(columns)}, and not {sorted(real.column_names)}"]
    theirs = connection.from_arrow(real).select(*columns)
    found = []
    for what, rows in ((f"missing in {name}", theirs.except_(ours)), (f"only in {name}", ours.except_(theirs))):
        many = rows.shape[0]
        found += [f"{what}: {dict(zip(columns, row, strict=True))}" for row in rows.limit(SHOWN).fetchall()]
        if many > SHOWN:
            found.append(f"{what}: {many - SHOWN} more rows")
    if not found and ours.shape[0] != theirs.shape[0]:
        found.append(f"{name} has {ours.shape[0]} rows, and not {theirs.shape[0]}: some stand there more than once")
    return found


def _has(connection: duckdb.DuckDBPyConnection, view: str) -> bool:
    return bool(connection.sql(f"select 1 from duckdb_views() where view_name = '{view}'").fetchall())  # noqa: S608


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    return connection
