"""Marts: SQL over an interval of some tables, kept as one Parquet file per interval, served by DuckDB."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import DeltaTable

from farandole.event import Interval
from farandole.lake.folder import Folder
from farandole.lake.outcome import Refreshed

_local = threading.local()  # a DuckDB connection serves one thread at a time, and costs more to open than to use


def rows_within(table: DeltaTable, time_column: str, interval: Interval) -> pa.Table:
    """The rows of a table whose time is in the interval, without the lake's own columns. Prunes by day."""
    days = None
    if "_day" in table.metadata().partition_columns:
        last = interval.end - timedelta(microseconds=1)
        days = f"_day >= '{interval.start.date()}' and _day <= '{last.date()}'"
    found = table.to_pyarrow_dataset(file_pruning_predicate=days)
    within = (pc.field(time_column) >= interval.start) & (pc.field(time_column) < interval.end)
    return found.to_table(columns=_visible(found.schema), filter=within, use_threads=False)


def refresh(
    folder: Folder, mart: str, interval: Interval, sql: str, over: Mapping[str, tuple[DeltaTable, str]]
) -> Refreshed:
    """Write an interval of a mart: the answer of `sql` over the rows that each table has in it."""
    if not hasattr(_local, "connection"):
        _local.connection = _open()
    cursor: duckdb.DuckDBPyConnection = _local.connection
    for name, (table, time_column) in over.items():
        cursor.register(name, rows_within(table, time_column, interval))
    try:
        answer = cursor.sql(sql).to_arrow_table()
    finally:
        for name in over:
            cursor.unregister(name)
    relative = f"mart/{mart}/{_place(interval)}.parquet"
    with folder.replacing(relative) as out:
        pq.write_table(answer, out, compression="zstd")
    return Refreshed(answer.num_rows, folder.uri(relative))


def connect(folder: Folder, tables: Mapping[str, DeltaTable]) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with a view per table and per mart; rows are read when they are asked for."""
    connection = _open()
    for name, table in tables.items():
        rows = table.to_pyarrow_dataset()
        connection.register(f"_{name}", rows)
        columns = [duckdb.ColumnExpression(c) for c in _visible(rows.schema)]
        connection.table(f"_{name}").select(*columns).create_view(name)
    for mart in _marts(folder):
        home = folder.path(f"mart/{mart}")
        files = [p for p in folder.fs.find(home) if p.endswith(".parquet") and "/." not in p[len(home) :]]
        if files:
            connection.register(f"_mart_{mart}", pads.dataset(sorted(files), filesystem=folder.fs, format="parquet"))
            connection.table(f"_mart_{mart}").create_view(mart)
    return connection


def _open() -> duckdb.DuckDBPyConnection:
    # one thread: an hour is small, and a service has slots of its own; only registered names are tables
    connection = duckdb.connect(config={"threads": 1, "python_enable_replacements": False})
    connection.execute("set TimeZone = 'UTC'")
    return connection


def _marts(folder: Folder) -> list[str]:
    home = folder.path("mart")
    if not folder.fs.isdir(home):
        return []
    return sorted(str(p).rstrip("/").rpartition("/")[2] for p in folder.fs.ls(home, detail=False))


def _visible(schema: Any) -> list[str]:
    return [name for name in schema.names if not name.startswith("_")]


def _place(interval: Interval) -> str:
    start, span = interval.start, interval.end - interval.start
    if span == timedelta(hours=1):
        return f"day={start:%Y-%m-%d}/hour={start:%H}"
    if span == timedelta(days=1):
        return f"day={start:%Y-%m-%d}"
    return f"from={start:%Y-%m-%dT%H%M}Z/to={interval.end:%Y-%m-%dT%H%M}Z"
