"""The projection's own database: opened, made, and made anew when it is of another version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, text

from farandole.errors import FarandoleError
from farandole.ledger import views as _views  # noqa: F401 - made and dropped with the tables
from farandole.ledger.tables import VERSION, metadata, projection_version
from farandole.store.engine import Database

SERVICE = "projector"
"""What stands for ``{pipeline}`` in the database's URL."""
_LOCK = 0x70726F6A  # any number that is ours among the database's advisory locks


def open_projection(url: str) -> Database:
    """The database for the projector, with its tables. A projection of another version is dropped: it is a view.

    Raises SettingsError for a URL that is none, DatabaseUnreachable.
    """
    with _closed_on_error(Database(url, SERVICE, metadata.tables)) as database:
        make_projection(database)
    database.opening = False
    return database


def make_projection(database: Database) -> None:
    """Make the tables, empty, where they are not those of this version; who comes second finds them made."""
    with database.writing() as conn:
        if database.postgresql:
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if not _is_current(conn):
            metadata.drop_all(conn)
            metadata.create_all(conn)
            conn.execute(insert(projection_version).values(version=VERSION))


def read_projection(url: str) -> Database:
    """The database for those who ask. Raises FarandoleError where no projection has been made yet."""
    with _closed_on_error(Database(url, SERVICE, metadata.tables)) as database:
        if not database.postgresql and not Path(str(database.url.database)).exists():
            raise _missing(database)
        with database.reading() as conn:
            if not _is_current(conn):
                raise _missing(database)
    database.opening = False
    return database


def drop_projection(database: Database) -> None:
    """Forget everything; the next :func:`open_projection` starts from the beginning of the ledger."""
    with database.writing() as conn:
        metadata.drop_all(conn)


@contextmanager
def _closed_on_error(database: Database) -> Iterator[Database]:
    try:
        yield database
    except BaseException:
        database.close()
        raise


def _is_current(conn: Connection) -> bool:
    made = set(inspect(conn).get_table_names()).issuperset(metadata.tables)
    return made and conn.scalar(select(projection_version.c.version)) == VERSION


def _missing(database: Database) -> FarandoleError:
    return FarandoleError(
        "no projection of the ledger here yet",
        place=database.place,
        hint="`farandole run projector` builds it from the ledger and keeps it fresh",
    )
