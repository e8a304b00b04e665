"""Which database this is, and how it is filled anew where it is not the one that its pipeline has written to.

Tables that are empty say nothing about what was done. So a row says which tables these are and whether all that was
settled stands in them; it goes with any of them, and whoever finds another one than he began with takes no work.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, select, update

from farandole.errors import TablesLost
from farandole.orders import Range
from farandole.store.buckets import Buckets
from farandole.store.engine import Database
from farandole.store.host import register_host
from farandole.store.migrate import prepare_tables, tables_there
from farandole.store.outcomes import Outcomes, Pair
from farandole.store.rows import Lane
from farandole.store.tables import (
    checkpoint,
    dedup,
    inbox_open,
    incarnation,
    join_member,
    join_set,
    now_ms,
    outbox,
    position,
    replay_range,
)
from farandole.store.waiting import Member, WaitingRoom

_AT_ONCE = 5000  # rows that are fetched together
_ANSWERS: Mapping[Table, Sequence[str]] = {
    dedup: ("epoch", "key", "run_id", "outcome", "life", "digest"),
    inbox_open: ("epoch", "key", "run_id", "state", "life", "digest", "attempt"),
    join_member: ("epoch", "key", "join_key", "signal", "topic_id", "partition", "off", "digest", "value"),
    replay_range: ("epoch", "topic_id", "partition", "start_off", "end_off", "command"),
}
"""What makes an answer of each table; owners, times and days are none."""


@dataclass(slots=True)
class Batch:
    """What some entries of the ledger come to, in rows. `doubts` are (run, step, up to which try)."""

    outcomes: list[Pair] = field(default_factory=list)
    waiting: dict[Lane, list[Member]] = field(default_factory=dict)
    closed: dict[int, tuple[list[bytes], list[bytes]]] = field(default_factory=dict)
    doubts: list[tuple[str, str, int]] = field(default_factory=list)
    ranges: list[tuple[int, str, Range]] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)


class Recovery:
    """The database of one pipeline as a whole."""

    def __init__(self, database: Database, pipeline: str, waiting: WaitingRoom, buckets: Buckets) -> None:
        self._database, self._pipeline = database, pipeline
        self._waiting, self._buckets = waiting, buckets
        self._outcomes = Outcomes(database, pipeline, buckets.current)

    def open(self) -> bool:
        """Make what is missing, and learn which database this is; whether all that was settled stands in it.

        Raises SettingsError, DatabaseUnreachable.
        """
        database = self._database
        if database.moved:
            database.engine.dispose()
            self._buckets.forget()
        prepare_tables(database)
        if not database.postgresql:
            register_host(database, self._pipeline)
        new = database.fresh(incarnation).values(pipeline=self._pipeline, id=uuid.uuid4().hex, made_at=now_ms())
        with database.writing() as conn:
            conn.execute(new)
            row = conn.execute(select(incarnation).where(self._mine)).one()
        if row.id != database.incarnation:
            self._buckets.forget()
        database.incarnation = row.id
        database.remember_file()
        return bool(row.complete)

    @property
    def incarnation(self) -> str:
        """Which tables these are."""
        return self._database.incarnation

    def whole(self) -> bool:
        """Whether these are the tables that were opened, and all that was settled stands in them."""
        if not self._database.incarnation or self._database.moved:
            return False
        try:
            with self._database.reading() as conn:
                row = conn.execute(select(incarnation).where(self._mine)).one_or_none() if tables_there(conn) else None
        except TablesLost:
            return False
        return row is not None and row.id == self._database.incarnation and bool(row.complete)

    def put(self, batch: Batch, within: float) -> bool:
        """Write these rows, whoever else does; False where all has been written meanwhile, and work may be under way.

        `within` (seconds) is how long a join waits.
        """
        with self._database.writing() as conn:
            if not self._lock(conn):
                return False
            for lane, members in batch.waiting.items():
                self._waiting.put_back(conn, lane, members, within)
            self._outcomes.write(conn, batch.outcomes)
            for epoch, (keys, joins) in batch.closed.items():
                self._outcomes.close_joins(conn, Lane("", "", -1, 0, epoch), keys, joins)
            self._doubt(conn, batch.doubts)
            self._epochs(conn, batch)
        return True

    def complete(self, ledger_offset: int) -> None:
        """All that was settled stands here now, as the ledger told it up to this offset."""
        with self._database.writing() as conn:
            if self._lock(conn):
                conn.execute(update(incarnation).where(self._mine).values(complete=1, ledger_offset=ledger_offset))

    def forget(self) -> None:
        """Drop what the ledger tells again: from here on it is another database. Only where no instance runs.

        Fences, the results of steps, and what is known of topics stand nowhere else, and stay.
        """
        with self._database.writing() as conn:
            for table in (*_ANSWERS, join_set, incarnation):
                conn.execute(delete(table).where(table.c.pipeline == self._pipeline))

    def undecided(self) -> int:
        """Records that SQL has decided and Kafka was not told: they stand nowhere else."""
        with self._database.reading() as conn:
            asked = select(func.count()).select_from(outbox).where(outbox.c.pipeline == self._pipeline)
            return int(conn.scalar(asked) or 0)

    def digests(self) -> dict[str, tuple[int, str]]:
        """Of each table that gives answers: how many rows, and one number over them that no order changes."""
        with self._database.reading() as conn:
            return {table.name: self._digest(conn, table, columns) for table, columns in _ANSWERS.items()}

    def _digest(self, conn: Connection, table: Table, columns: Sequence[str]) -> tuple[int, str]:
        asked = select(*(table.c[name] for name in columns)).where(table.c.pipeline == self._pipeline)
        if table is inbox_open:
            asked = asked.where(inbox_open.c.state != "claimed")  # of a run that began and did not end
        rows, total = 0, 0
        for row in conn.execution_options(yield_per=_AT_ONCE).execute(asked):
            rows += 1
            total += int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(tuple(row))).digest())
        return rows, f"{total % 2**256:064x}"

    def _lock(self, conn: Connection) -> bool:
        """Whether there is still something to be written, and nobody says otherwise before the transaction ends."""
        asked = select(incarnation.c.id, incarnation.c.complete).where(self._mine).with_for_update()
        row = conn.execute(asked).one_or_none()
        if row is None or row.id != self._database.incarnation:
            raise lost(self._database)
        return not row.complete

    def _doubt(self, conn: Connection, doubts: Sequence[tuple[str, str, int]]) -> None:
        if doubts:
            row = self._database.upsert(checkpoint, ("attempt",), lambda new: new.attempt > checkpoint.c.attempt)
            row = row.values(pipeline=self._pipeline, branch="", state="started", fence=0, updated_at=now_ms())
            conn.execute(row, [{"run_id": run, "step": step, "attempt": tries} for run, step, tries in doubts])

    def _epochs(self, conn: Connection, batch: Batch) -> None:
        ranges = [
            {
                "epoch": epoch,
                "command": command,
                "topic": one.topic,
                "topic_id": one.topic_id,
                "partition": one.partition,
                "start_off": one.start,
                "end_off": one.end,
            }
            for epoch, command, one in batch.ranges
        ]
        if ranges:
            new = self._database.fresh(replay_range).values(pipeline=self._pipeline, opened_at=0)
            conn.execute(new, ranges)
        if batch.finished:
            row = replay_range.c
            done = select(row.epoch, row.topic, row.topic_id, row.partition, row.end_off.label("next_offset"))
            done = done.where(row.pipeline == self._pipeline, row.epoch.in_(batch.finished))
            rows = [one._asdict() for one in conn.execute(done)]
            if rows:
                moved = self._database.upsert(position, ("next_offset",))
                conn.execute(moved.values(pipeline=self._pipeline, fence=now_ms()), rows)

    @property
    def _mine(self) -> ColumnElement[bool]:
        return and_(incarnation.c.pipeline == self._pipeline)


def assured(conn: Connection, database: Database, pipeline: str) -> None:
    """Raise TablesLost unless these are the tables that the store was opened with.

    Asked after a look-up, in its transaction: what it found, or did not, is then what stood there.
    """
    if database.incarnation and (
        database.moved
        or conn.scalar(select(incarnation.c.id).where(incarnation.c.pipeline == pipeline)) != database.incarnation
    ):
        raise lost(database)


def lost(database: Database) -> TablesLost:
    """The error of tables that are others than those a store was opened with."""
    return TablesLost(
        "these are other tables than those that were written to",
        place=database.place,
        hint="nothing to do: what was settled comes back from the ledger",
    )
