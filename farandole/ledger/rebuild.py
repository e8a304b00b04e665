"""The projection dropped and read anew from the ledger; and a digest that tells whether it gives the same answers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, Table, select

from farandole.errors import FarandoleError
from farandole.kafka.reader import TopicReader
from farandole.ledger.database import drop_projection, make_projection
from farandole.ledger.projection import positions
from farandole.ledger.projector import Decode, Projector
from farandole.ledger.tables import by_entry, by_run
from farandole.store.engine import Database

_AT_ONCE = 5000  # rows that are fetched together


@dataclass(frozen=True, slots=True)
class Digest:
    """The rows of a table, as one number that no order changes: how many, and the sum of their hashes."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild came to. No `before`: there was no projection, or one of another version."""

    before: Mapping[str, Digest] | None
    after: Mapping[str, Digest]
    lines: int

    @property
    def same(self) -> bool | None:
        """Whether both give the same answers; None where there is nothing to compare with."""
        return None if self.before is None else self.before == self.after


def digests(conn: Connection) -> dict[str, Digest]:
    """The digest of each table of the projection, by name."""
    return {table.name: _digest(conn, table) for table in (*by_run, *by_entry)}


def _digest(conn: Connection, table: Table) -> Digest:
    rows, total = 0, 0
    found = conn.execution_options(yield_per=_AT_ONCE).execute(select(table))
    for row in found:
        rows += 1
        total += int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(tuple(row))).digest())
    return Digest(rows, f"{total % 2**256:064x}")


def rebuild(
    database: Database, reader: TopicReader, decode: Decode, told: Callable[[int], None] = lambda _: None
) -> Rebuilt:
    """Read the projection up to the ledger's end, drop it, read it anew to the same place, then on to the end.

    `told` hears how many lines were taken so far. Raises Unreachable; FarandoleError where another projector is at
    work, so that the two cannot be compared.
    """
    topic_id = reader.describe().topic_id
    with database.reading() as conn:
        comparable = {read for _, read in positions(conn).values()} == {topic_id}
    before: dict[str, Digest] | None = None
    ends = reader.ends()
    if comparable:
        Projector(database, reader, decode).run(threading.Event(), until_drained=True)
        before, ends = _stands(database)
    drop_projection(database)
    make_projection(database)
    projector = Projector(database, reader, decode)
    projector.read_to(ends, told)
    after, reached = _stands(database)
    if before is not None and reached != ends:
        raise FarandoleError(
            "the projection was built anew, and another projector has read on meanwhile: nothing can be compared",
            place=database.place,
            hint="to compare, stop the service projector and do it again",
        )
    projector.run(threading.Event(), until_drained=True)
    return Rebuilt(before, after, projector.projected)


def _stands(database: Database) -> tuple[dict[str, Digest], dict[int, int]]:
    with database.reading() as conn:
        if database.postgresql:  # one moment for all tables
            conn.execution_options(isolation_level="REPEATABLE READ")
        return digests(conn), {p: at for p, (at, _) in positions(conn).items()}
