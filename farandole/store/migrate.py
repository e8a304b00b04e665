"""Bring the tables up to date, once, whoever of several instances comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, delete, inspect, text

from farandole.errors import SettingsError
from farandole.store.engine import Database
from farandole.store.tables import incarnation, metadata

HEAD = "0010"
"""The newest revision; a start that finds it in the database loads no alembic. A test compares."""

VERSION_TABLE = "farandole_store_version"
_VERSION = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
_LOCK = 0x6661726E  # any number that is ours among the database's advisory locks


def prepare_tables(database: Database) -> None:
    """Create or upgrade the tables; a table that somebody dropped is made again, and then all count as lost.

    Raises SettingsError if the tables are those of a newer release, or of another one that nothing names.
    """
    with database.reading() as conn:
        if _ready(conn):
            return
    with database.writing() as conn:  # SQLite: this is the lock
        if database.postgresql:
            conn.execute(text("SET LOCAL lock_timeout = '60s'"))
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if not _ready(conn):
            unnamed = _unnamed(conn, database.place)
            _migrate(conn, database.place, "stamp" if unnamed else "upgrade")
            if unnamed or not tables_there(conn):
                metadata.create_all(conn)
                conn.execute(delete(incarnation))  # whatever else stands there, something that was settled does not


def tables_there(conn: Connection, *others: str) -> bool:
    """Whether none of our tables is missing."""
    return set(inspect(conn).get_table_names()).issuperset([*metadata.tables, *others])


def _ready(conn: Connection) -> bool:
    if not tables_there(conn, VERSION_TABLE):
        return False
    return bool(conn.scalar(_VERSION) == HEAD)


def _unnamed(conn: Connection, place: str) -> bool:
    """Whether tables of ours stand there and not the one that says of which release: dropped one by one, under work."""
    here = inspect(conn)
    there = set(here.get_table_names())
    ours = [table for name, table in metadata.tables.items() if name in there]
    if not ours or (VERSION_TABLE in there and conn.scalar(_VERSION) is not None):
        return False
    for table in ours:
        if {column["name"] for column in here.get_columns(table.name)} != set(table.columns.keys()):
            raise SettingsError(
                f"the table {table.name} is of another release, and {VERSION_TABLE} does not say of which",
                place=place,
                hint="drop all tables of farandole there: what was settled comes back from the ledger",
            )
    return True


def _migrate(conn: Connection, place: str, how: Literal["upgrade", "stamp"]) -> None:
    """Bring the tables to the newest revision, or only say that they are of it."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    try:
        getattr(command, how)(config, "head")
    except CommandError as error:
        raise SettingsError(
            "the tables are those of a newer farandole",
            place=place,
            hint="run that release, or name another database",
        ) from error
