"""Epochs: deliberate passes over records that were settled before, each over exact ranges of offsets.

Live work is epoch 0 and has no rows here. A range is done when its position, which is that of the epoch, has come to
its end; so a crash goes on inside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, or_, select

from farandole.orders import RUNNING, Range
from farandole.store.engine import Database
from farandole.store.tables import now_ms, position, replay_order, replay_range

TOGETHER = 60_000
"""Milliseconds within which rewinds of several partitions, found by several instances, are one request."""
REWIND = "rewind"
"""The command of a range that was opened because somebody set the group back."""


class Epochs:
    """The epochs of one pipeline."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline
        self.known = 0
        """The highest epoch that the ledger knows: the tables may have been lost."""

    def open(self, command: str, ranges: Sequence[Range]) -> int:
        """The epoch in which these ranges are processed again: the same command twice is the same epoch."""
        with self._database.writing() as conn:
            self.alone(conn)
            return self.opened(conn, command, ranges)

    def opened(self, conn: Connection, command: str, ranges: Sequence[Range], epoch: int = 0) -> int:
        """:meth:`open` inside a transaction of which :meth:`alone` was asked; `epoch` is the one it had before."""
        known = conn.scalar(select(func.max(replay_range.c.epoch)).where(self._mine, _of(command)))
        return int(known) if known is not None else self._insert(conn, epoch or self._next(conn), command, ranges)

    def alone(self, conn: Connection) -> None:
        """Let no other instance open an epoch of this pipeline before this transaction ends."""
        if self._database.postgresql:  # on SQLite there is one writer anyway
            conn.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"epochs of {self._pipeline}"))))

    def rewound(self, ranges: Sequence[Range]) -> int:
        """The epoch of ranges that a person asked for by setting the group back.

        Found again before the live position was committed, it is the same one; rewinds that are found within a
        minute of each other are one request.
        """
        with self._database.writing() as conn:
            self.alone(conn)
            new = [one for one in ranges if self._unfinished(conn, one) is None]
            if not new:
                return max(e for one in ranges if (e := self._unfinished(conn, one)) is not None)
            newest = conn.scalar(
                select(func.max(replay_range.c.epoch)).where(
                    self._mine, _of(REWIND), replay_range.c.opened_at > now_ms() - TOGETHER
                )
            )
            joins = newest is not None and not any(self._has(conn, newest, one) for one in new)
            return self._insert(conn, newest if joins else self._next(conn), REWIND, new)

    def under_way(self) -> dict[int, list[Range]]:
        """The ranges that are not done, by epoch; without those of orders that are not to go on."""
        found: dict[int, list[Range]] = {}
        row = replay_range.c
        asked = select(row.epoch, row.topic, row.topic_id, row.partition, row.start_off, row.end_off)
        order = replay_order.c
        halted = exists().where(order.pipeline == row.pipeline, order.epoch == row.epoch, order.state != RUNNING)
        at_end = func.coalesce(position.c.next_offset, row.start_off) >= row.end_off
        with self._database.reading() as conn:
            for epoch, *rest in conn.execute(
                asked.outerjoin_from(replay_range, position, _OWN).where(self._mine, ~at_end, ~halted)
            ):
                found.setdefault(epoch, []).append(Range(*rest))
        return found

    def ranges(self, epoch: int) -> list[Range]:
        """All ranges of an epoch."""
        row = replay_range.c
        asked = select(row.topic, row.topic_id, row.partition, row.start_off, row.end_off)
        with self._database.reading() as conn:
            return [Range(*one) for one in conn.execute(asked.where(self._mine, row.epoch == epoch))]

    @property
    def _mine(self) -> ColumnElement[bool]:
        return replay_range.c.pipeline == self._pipeline

    def _next(self, conn: Connection) -> int:
        standing = conn.scalar(select(func.coalesce(func.max(replay_range.c.epoch), 0)).where(self._mine))
        return max(int(standing or 0), self.known) + 1

    def _unfinished(self, conn: Connection, one: Range) -> int | None:
        row = replay_range.c
        same = and_(row.topic_id == one.topic_id, row.partition == one.partition, row.start_off == one.start)
        open_ = or_(position.c.next_offset.is_(None), position.c.next_offset < row.end_off)
        asked = select(func.max(row.epoch)).select_from(replay_range.outerjoin(position, _OWN))
        found: int | None = conn.scalar(asked.where(self._mine, _of(REWIND), same, row.end_off == one.end, open_))
        return found

    def _has(self, conn: Connection, epoch: int, one: Range) -> bool:
        row = replay_range.c
        same = and_(row.epoch == epoch, row.topic_id == one.topic_id, row.partition == one.partition)
        return conn.scalar(select(row.epoch).where(self._mine, same)) is not None

    def _insert(self, conn: Connection, epoch: int, command: str, ranges: Sequence[Range]) -> int:
        rows = [
            {
                "topic": one.topic,
                "topic_id": one.topic_id,
                "partition": one.partition,
                "start_off": one.start,
                "end_off": one.end,
            }
            for one in ranges
        ]
        new = insert(replay_range).values(pipeline=self._pipeline, epoch=epoch, command=command, opened_at=now_ms())
        conn.execute(new, rows)
        return epoch


_OWN = and_(
    position.c.pipeline == replay_range.c.pipeline,
    position.c.epoch == replay_range.c.epoch,
    position.c.topic_id == replay_range.c.topic_id,
    position.c.partition == replay_range.c.partition,
)


def _of(command: str) -> ColumnElement[bool]:
    return replay_range.c.command == command
