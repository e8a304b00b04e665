"""The projection's own database: opened, made, and made anew when it is of another version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from farandole.errors import DatabaseUnreachable, FarandoleError, SettingsError
from farandole.ledger.tables import VERSION, metadata, projection_version

REMEDY = "`farandole run projector` builds it from the ledger and keeps it fresh"


def open_projection(url: str) -> Engine:
    """The database for the projector, with its tables. A projection of another version is dropped: it is a view.

    Raises SettingsError for a URL that is none, DatabaseUnreachable.
    """
    engine = _engine(url, begin="BEGIN IMMEDIATE")
    with reaching(engine.url), engine.begin() as conn:
        if inspect(conn).has_table(projection_version.name):
            if conn.scalar(select(projection_version.c.version)) == VERSION:
                return engine
            metadata.drop_all(conn)
        metadata.create_all(conn)
        conn.execute(insert(projection_version).values(version=VERSION))
    return engine


def read_projection(url: str) -> Engine:
    """The database for those who ask. Raises FarandoleError where no projection has been made yet."""
    engine = _engine(url, begin="BEGIN")
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        raise _missing(engine.url)
    with reaching(engine.url), engine.connect() as conn:
        made = inspect(conn).has_table(projection_version.name)
        if not made or conn.scalar(select(projection_version.c.version)) != VERSION:
            raise _missing(engine.url)
    return engine


def drop_projection(engine: Engine) -> None:
    """Forget everything; the next :func:`open_projection` starts from the beginning of the ledger."""
    with engine.begin() as conn:
        metadata.drop_all(conn)


@contextmanager
def reaching(url: URL) -> Iterator[None]:
    """Turns a lost or refused connection into DatabaseUnreachable."""
    try:
        yield
    except DBAPIError as error:
        raise DatabaseUnreachable(
            f"the database does not answer: {str(error.orig).strip()}",
            place=url.render_as_string(),
            hint="check FARANDOLE_DATABASE_URL, and that the server is up and the disk not full",
        ) from error


def _missing(url: URL) -> FarandoleError:
    return FarandoleError("no projection of the ledger here yet", place=url.render_as_string(), hint=REMEDY)


def _engine(url: str, begin: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in {"postgresql", "postgres"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    except (ArgumentError, NoSuchModuleError) as error:
        raise SettingsError(
            f"not a database URL: {error}",
            place="FARANDOLE_DATABASE_URL",
            hint="write sqlite:///folder/file.db or postgresql://user@host/database",
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, begin)
    return engine


def _prepare_sqlite(engine: Engine, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver's own transactions would begin too late
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=15000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)
