"""Bring the tables up to date, once, whoever of several instances comes first."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, delete, inspect, text

from farandole.errors import SettingsError
from farandole.store.engine import Database
from farandole.store.tables import incarnation, metadata

HEAD = "0010"
"""The newest revision; a start that finds it in the database loads no alembic. A test compares."""

VERSION_TABLE = "farandole_store_version"
_LOCK = 0x6661726E  # any number that is ours among the database's advisory locks


def prepare_tables(database: Database) -> None:
    """Create or upgrade the tables; a table that somebody dropped is made again, and then all count as lost.

    Raises SettingsError if the tables are those of a newer release.
    """
    with database.reading() as conn:
        if _ready(conn):
            return
    with database.writing() as conn:  # SQLite: this is the lock
        if database.postgresql:
            conn.execute(text("SET LOCAL lock_timeout = '60s'"))
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if not _ready(conn):
            _upgrade(conn, database.place)
            if not tables_there(conn):
                metadata.create_all(conn)
                conn.execute(delete(incarnation))  # whatever else stands there, something that was settled does not


def tables_there(conn: Connection, *others: str) -> bool:
    """Whether none of our tables is missing."""
    return set(inspect(conn).get_table_names()).issuperset([*metadata.tables, *others])


def _ready(conn: Connection) -> bool:
    if not tables_there(conn, VERSION_TABLE):
        return False
    version = conn.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - a constant
    return bool(version == HEAD)


def _upgrade(conn: Connection, place: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SettingsError(
            "the tables are those of a newer farandole",
            place=place,
            hint="run that release, or name another database",
        ) from error
