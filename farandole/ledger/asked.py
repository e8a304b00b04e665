"""What a person asks of the projection in SQL: one statement, read-only; and all views as Parquet files."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from farandole.errors import FarandoleError
from farandole.ledger.views import VIEWS
from farandole.store.engine import Database

_AT_ONCE = 5000
SECONDS = 60
"""How long a statement may take on PostgreSQL."""


@contextmanager
def reading_only(database: Database) -> Iterator[Connection]:
    """A connection on which nothing can be written."""
    with database.reading() as conn:
        if database.postgresql:
            conn.exec_driver_sql(f"SET LOCAL statement_timeout = '{SECONDS}s'")
            conn.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield conn
            return
        conn.exec_driver_sql("PRAGMA query_only = ON")
        try:
            yield conn
        finally:
            conn.rollback()
            conn.exec_driver_sql("PRAGMA query_only = OFF")


def answered(database: Database, statement: str) -> Generator[dict[str, Any], None, None]:
    """The rows of one statement. Raises FarandoleError for one that is wrong, that writes, or that are several."""
    with reading_only(database) as conn:
        cursor = _executed(conn, database, statement)
        if cursor.description is None:
            raise FarandoleError("the statement gives no rows", place="sql", hint="ask with select … from runs")
        names = [column[0] for column in cursor.description]
        while rows := cursor.fetchmany(_AT_ONCE):
            for row in rows:
                yield dict(zip(names, row, strict=True))


def _executed(conn: Connection, database: Database, statement: str) -> Any:
    """The driver's own cursor: with what is prepared the server takes one statement and no more."""
    cursor: Any = conn.connection.cursor()
    driver: Any = database.engine.dialect.dbapi
    try:
        cursor.execute(statement, **({"prepare": True} if database.postgresql else {}))
    except driver.Error as error:
        said = str(error).strip().splitlines()[0]
        views = ", ".join(view.name for view in VIEWS)
        raise FarandoleError(said, place="sql", hint=f"the views are {views}: farandole sql --views") from None
    return cursor


def exported(database: Database, folder: Path, views: Sequence[str] = ()) -> Iterator[tuple[str, Path, int]]:
    """Write views as Parquet files, the rows in the order of their ids: each view's name, file and number of rows.

    Raises FarandoleError where pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as missing:
        raise FarandoleError(f"Parquet needs {missing.name}", hint="pip install 'farandole[lake]'") from missing
    folder.mkdir(parents=True, exist_ok=True)
    with reading_only(database) as conn:
        for view in (view for view in VIEWS if not views or view.name in views):
            schema = pa.schema([(one.name, getattr(pa, one.kind)(*_WITH.get(one.kind, ()))) for one in view.columns])
            path, count = folder / f"{view.name}.parquet", 0
            part = path.with_suffix(".parquet.part")
            found = conn.exec_driver_sql(f"SELECT * FROM {view.name} ORDER BY {view.order}")  # noqa: S608 - a name of ours
            with pq.ParquetWriter(part, schema) as writer:
                while rows := found.fetchmany(_AT_ONCE):
                    told = zip(*rows, strict=True)
                    columns = [
                        [_plain(value, one.kind) for value in c] for one, c in zip(view.columns, told, strict=True)
                    ]
                    writer.write_table(pa.table(columns, schema=schema))
                    count += len(rows)
            part.replace(path)
            yield view.name, path, count


_WITH: dict[str, tuple[str, ...]] = {"timestamp": ("ms", "UTC")}


def _plain(value: Any, kind: str) -> Any:
    """A value as Parquet takes it: SQLite has neither times nor truth values."""
    if value is None:
        return None
    if kind == "timestamp":
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    return {"bool_": bool, "float64": float}.get(kind, lambda same: same)(value)
