"""One engine with the rules of its database: how a write begins, and how a failure is told."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from sqlalchemy import URL, ColumnElement, Connection, Engine, Table, any_, create_engine, event, literal, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from farandole.errors import DatabaseUnreachable, FarandoleError, SettingsError, TablesLost

T = TypeVar("T")

SETTING = "FARANDOLE_DATABASE_URL"
BUSY_TIMEOUT = 30  # seconds that SQLite waits for another writer
CHUNK = 5000  # values in one IN list; SQLite takes 32,766 parameters in a statement

_NO_TABLE = "42P01"
_POSTGRESQL = {
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "60s",
    "synchronous_commit": "on",
}
_NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class Database:
    """An engine, and what differs between SQLite and PostgreSQL. `own` names the tables that must be there."""

    def __init__(self, url: str, pipeline: str, own: Collection[str] = ()) -> None:
        self.own = frozenset(own)
        self.url = _parsed(url.replace("{pipeline}", pipeline))
        self.place = self.url.render_as_string(hide_password=True)
        self.incarnation = ""  # which tables a store was opened with; none: it does not matter
        self._file = 0
        self.opening = True  # what is wrong now is a setting; later the same is trouble that passes
        self.postgresql = self.url.get_backend_name() == "postgresql"
        self.engine = _postgresql_engine(self.url) if self.postgresql else _sqlite_engine(self.url, self.place)
        self._writer = self.engine.execution_options(begin="BEGIN IMMEDIATE")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: BEGIN IMMEDIATE on SQLite, since a deferred one fails at the upgrade."""
        with self.told(), self._writer.begin() as conn:
            yield conn

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self.told(), self.engine.connect() as conn:
            yield conn

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what the driver raises about the database itself into our words; let other errors pass."""
        try:
            yield
        except PoolTimeout as error:
            raise DatabaseUnreachable(
                "every connection to the database is taken",
                place=self.place,
                hint="a transaction hangs, or the pool is too small for this many slots",
            ) from error
        except DBAPIError as error:
            told = _told(error, self.place, opening=self.opening) or self._lost(error)
            if told is None:
                raise
            raise told from error

    def _lost(self, error: DBAPIError) -> FarandoleError | None:
        """Somebody dropped a table of ours; a table of the author's that is missing is a matter of the step."""
        text = str(error.orig).strip().splitlines()[0]
        if sqlstate(error) != _NO_TABLE and not text.startswith("no such table"):
            return None
        gone = self.own & set(re.findall(r"\w+", text))
        if not gone:
            return None
        return TablesLost(
            f"the table {min(gone)} is gone",
            place=self.place,
            hint="nothing to do: it is made anew, and what was settled comes back from the ledger",
        )

    def fresh(self, table: Table) -> Any:
        """An INSERT that leaves an existing row alone; by the constraint's name, since an index may be rebuilding."""
        if self.postgresql:
            return postgresql.insert(table).on_conflict_do_nothing(constraint=str(table.primary_key.name))
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=list(table.primary_key.columns))

    def upsert(self, table: Table, columns: Sequence[str], where: Callable[[Any], Any] | None = None) -> Any:
        """An INSERT that gives `columns` of an existing row the new values if `where(new row)` holds."""
        insert: Any = postgresql.insert(table) if self.postgresql else sqlite.insert(table)
        change: dict[str, Any] = {
            "set_": {name: insert.excluded[name] for name in columns},
            "where": None if where is None else where(insert.excluded),
        }
        if self.postgresql and table.primary_key.name:
            return insert.on_conflict_do_update(constraint=str(table.primary_key.name), **change)
        return insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), **change)

    def among(self, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
        """`column` is one of `values`: one array on PostgreSQL, so that the statement is always the same text."""
        if self.postgresql:
            return column == any_(literal(list(values), postgresql.ARRAY(column.type)))
        return column.in_(values)

    @property
    def moved(self) -> bool:
        """Whether another file has come in the place of the one that was opened, or none: SQLite goes on in the old."""
        return bool(self._file) and self._file != self._inode()

    def remember_file(self) -> None:
        """The file that stands there now is the one in use."""
        self._file = 0 if self.postgresql else self._inode()

    def _inode(self) -> int:
        try:
            return Path(str(self.url.database)).stat().st_ino
        except OSError:
            return -1

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in pieces that fit into one statement."""
    for at in range(0, len(values), CHUNK):
        yield values[at : at + CHUNK]


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise SettingsError(
            "this is no database URL",
            place=SETTING,
            hint="write it like sqlite:///.farandole/{pipeline}.db or postgresql://user:password@host/name",
        ) from error
    if parsed.drivername in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg":
        return parsed
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    raise SettingsError(
        f"{parsed.drivername!r} without a file cannot keep anything"
        if parsed.get_backend_name() == "sqlite"
        else f"databases of the kind {parsed.drivername!r} are not served",
        place=SETTING,
        hint="use sqlite:///path/to/file.db on one machine, postgresql://… wherever there are more",
    )


def _postgresql_engine(url: URL) -> Engine:
    network = {name: value for name, value in _NETWORK.items() if name not in url.query}
    engine = create_engine(
        url, isolation_level="READ COMMITTED", connect_args=network, pool_pre_ping=True, pool_size=8, max_overflow=8
    )

    @event.listens_for(engine, "connect")
    def settle_in(connection: Any, _record: Any) -> None:
        autocommit, connection.autocommit = connection.autocommit, True
        for name, value in _POSTGRESQL.items():
            connection.execute(f"SET {name} = '{value}'")
        connection.autocommit = autocommit

    return engine


def _sqlite_engine(url: URL, place: str) -> Engine:
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT}, pool_size=8, max_overflow=8)
    except NoSuchModuleError as error:
        raise SettingsError(str(error), place=SETTING, hint="write sqlite:///path/to/file.db") from error
    except OSError as error:
        raise SettingsError(
            f"the folder of the database cannot be made: {error.strerror}",
            place=place,
            hint=f"make it writable, or name another file in {SETTING}",
        ) from error

    @event.listens_for(engine, "connect")
    def settle_in(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not where the driver thinks they should
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000}")
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. While another process does the same, SQLite says busy without waiting."""
    for _ in range(int(BUSY_TIMEOUT * 50)):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY"):
                raise
            Event().wait(0.02)
        else:
            return
    connection.execute("PRAGMA journal_mode=WAL")  # the last time it may say so


_SQLITE_TOLD = {  # primary result code -> (what happened, what to do, whether it is a setting that is wrong)
    "BUSY": ("another writer holds the database for longer than 30 s", "find the process that holds it open", False),
    "LOCKED": ("the database is locked", "find the process that holds it open", False),
    "FULL": ("the disk is full", "free space; work goes on by itself", False),
    "IOERR": ("the disk gives input/output errors", "look at the system's log; move the file to a sound disk", False),
    "READONLY": ("the database cannot be written", "make the file and its folder writable for this user", True),
    "PERM": ("the database cannot be opened", "make the file and its folder readable and writable", True),
    "CANTOPEN": ("the database cannot be opened", "the path must be a file in a folder this user can write", True),
    "NOTADB": ("this file is no SQLite database", f"name another file in {SETTING}", True),
    "CORRUPT": ("the database file is damaged", "move it away; what was settled comes back from the ledger", True),
}

_CREDENTIALS = ("the database refuses the user or the password", f"correct user and password in {SETTING}", True)
_NO_DATABASE = ("there is no such database on this server", f"create it, or name another one in {SETTING}", True)
_POSTGRESQL_TOLD = {  # SQLSTATE, or its class of two characters
    "28": _CREDENTIALS,
    "3D": _NO_DATABASE,
    "08": ("the connection to the database broke", "work goes on by itself once it is back", False),
    "53100": ("the database's disk is full", "free space; work goes on by itself", False),
    "53300": ("the database takes no more connections", "raise max_connections, or run fewer instances", False),
    "53": ("the database is out of resources", "look at the server's log", False),
    "57": ("the database server is stopping or starting", "work goes on by itself once it is back", False),
    "58": ("the database server has trouble with its disk", "look at the server's log", False),
    "25006": ("the database is read-only", f"{SETTING} must name the primary, not a standby", True),
    "25P03": ("the database ended a transaction that stood idle for 60 s", "split the step: no waiting inside", False),
    "40": ("the database undid a transaction that met another one", "it is tried again", False),
    "55P03": ("another transaction holds the row for longer than 5 s", "it is tried again", False),
}
_CONNECT_TOLD = (  # libpq gives no SQLSTATE for a refused connection; its text only chooses the remedy
    ("password", _CREDENTIALS),
    ("role", _CREDENTIALS),
    ("authentication", _CREDENTIALS),
    ("database", _NO_DATABASE),
)


def sqlstate(error: DBAPIError) -> str:
    """The five characters that PostgreSQL gives an error, or "" where there are none."""
    return getattr(error.orig, "sqlstate", None) or ""


def _told(error: DBAPIError, place: str, *, opening: bool) -> FarandoleError | None:
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        found = _SQLITE_TOLD.get(name.split("_")[1])
    elif code := sqlstate(error):
        found = _POSTGRESQL_TOLD.get(code) or _POSTGRESQL_TOLD.get(code[:2])
    elif type(error.orig).__name__ in {"OperationalError", "ConnectionTimeout", "InterfaceError"}:
        found = _refused(str(error.orig))
    else:
        found = None
    if found is None:
        return None
    what, hint, setting = found
    kind = SettingsError if opening and setting else DatabaseUnreachable
    return kind(f"{what} ({str(error.orig).strip().splitlines()[0]})", place=place, hint=hint)


def _refused(text: str) -> tuple[str, str, bool]:
    fatal = text.partition("FATAL:")[2]
    for word, told in _CONNECT_TOLD:
        if fatal.strip().startswith(word) or f"no {word} supplied" in text:
            return told
    return ("the database does not answer", f"is the server up, and is {SETTING} right?", False)
