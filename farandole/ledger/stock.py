"""What a reconciler keeps of a source's inventory: which events stand in the topic, and which files were settled.

A saving, as all that a reconciler keeps: dropped, the topic is read and the files are listed from the beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import delete, select

from farandole.ledger.sweeps import stock_position, stock_seen, stock_told
from farandole.store.engine import Database, chunks

Stamp = tuple[int, str]
"""Size in bytes, and time or tag, of a file when it was last listed."""


class Stock(NamedTuple):
    """Up to where each partition of which topic was read, and the files whose events stand there, by uri."""

    topic_id: str
    positions: dict[int, int]
    seen: dict[str, Stamp]


def load_stock(database: Database, service: str) -> Stock:
    """What is kept of a source; nothing at all for one that was never compared."""
    at, file = stock_position.c, stock_seen.c
    with database.reading() as conn:
        rows = conn.execute(select(at.topic_id, at.partition, at.next_offset).where(at.service == service)).all()
        files = conn.execute(select(file.uri, file.size, file.stamp).where(file.service == service))
        seen = {uri: (size, stamp) for uri, size, stamp in files}
    return Stock(rows[0].topic_id if rows else "", {row.partition: row.next_offset for row in rows}, seen)


def forget_stock(database: Database, service: str) -> None:
    """Drop what is kept of a source: its topic is another one now."""
    with database.writing() as conn:
        for table in (stock_position, stock_told, stock_seen):
            conn.execute(delete(table).where(table.c.service == service))


def note_told(
    database: Database, service: str, topic_id: str, ids: Iterable[str], positions: Mapping[int, int] | None = None
) -> None:
    """These events stand in the topic; with `positions`, each partition was read up to there."""
    rows = [{"event_id": one} for one in dict.fromkeys(ids)]
    with database.writing() as conn:
        if rows:
            conn.execute(database.fresh(stock_told).values(service=service), rows)
        if positions:
            moved = database.upsert(stock_position, ["topic_id", "next_offset"]).values(service=service)
            conn.execute(
                moved, [{"topic_id": topic_id, "partition": p, "next_offset": at} for p, at in positions.items()]
            )


def told_among(database: Database, service: str, ids: Collection[str]) -> set[str]:
    """Those of these events that are known to stand in the topic, or to have stood there."""
    row, found = stock_told.c, set[str]()
    with database.reading() as conn:
        for some in chunks(list(ids)):
            asked = select(row.event_id).where(row.service == service, database.among(row.event_id, some))
            found.update(conn.scalars(asked))
    return found


def keep_seen(database: Database, service: str, seen: Mapping[str, Stamp]) -> None:
    """The events of these files stand in the topic: they are not looked at again before they change."""
    rows = [{"uri": uri, "size": size, "stamp": stamp} for uri, (size, stamp) in seen.items()]
    if rows:
        with database.writing() as conn:
            conn.execute(database.upsert(stock_seen, ["size", "stamp"]).values(service=service), rows)
