"""The breakers that a pipeline's instances share, and the partitions that its guard has stopped.

A change is made under the row's lock: of several instances that see the same thing, one makes the transition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import astuple
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, select, true, update

from farandole.breaker import CLOSED, Breaker
from farandole.store.engine import Database
from farandole.store.rows import Lane
from farandole.store.tables import breaker, guard, now_ms

Place = tuple[str, int]
"""A topic's id and a partition."""
_COLUMNS = ("name", "state", "failures", "opened_at", "until", "probes", "probe_owner", "probe_lease", "error")
_ROW = [breaker.c[name] for name in _COLUMNS]


class Change(NamedTuple):
    """A breaker before and after, and the database's clock."""

    before: Breaker
    after: Breaker
    now: int


class Breakers:
    """The shared state of what one pipeline depends on."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline

    def load(self) -> tuple[dict[str, Breaker], int]:
        """Every breaker that ever had a failure, by name, and the database's clock."""
        with self._database.reading() as conn:
            rows = conn.execute(select(now_ms(), *_ROW).where(breaker.c.pipeline == self._pipeline)).all()
            now = rows[0][0] if rows else conn.scalar(select(now_ms()))
        return {row.name: Breaker(*row[1:]) for row in rows}, int(now or 0)

    def change(self, name: str, act: Callable[[Breaker, int], Breaker]) -> Change:
        """Make of a breaker what `act` makes of it at the database's time, with nobody else between."""
        mine = and_(breaker.c.pipeline == self._pipeline, breaker.c.name == name)
        with self._database.writing() as conn:
            conn.execute(self._database.fresh(breaker).values(pipeline=self._pipeline, name=name, state=CLOSED))
            row = conn.execute(select(*_ROW).where(mine).with_for_update()).one()
            now = int(conn.scalar(select(now_ms())) or 0)  # asked under the lock: it may have been waited for
            before = Breaker(*row)
            after = act(before, now)
            if after != before:
                conn.execute(update(breaker).where(mine).values(dict(zip(_COLUMNS, astuple(after), strict=True))))
        return Change(before, after, now)


class Guards:
    """The partitions of one pipeline that take no new records until somebody has looked."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline

    def stop(self, lane: Lane, version: str, why: str) -> bool:
        """Note that a partition was stopped; False where it was already."""
        row = {"epoch": lane.epoch, "topic_id": lane.topic_id, "partition": lane.partition}
        with self._database.writing() as conn:
            insert = self._database.fresh(guard).values(
                pipeline=self._pipeline, stopped_at=now_ms(), version=version, why=why, **row
            )
            return conn.execute(insert.returning(guard.c.partition)).first() is not None

    def standing(self, epoch: int) -> dict[Place, tuple[str, str]]:
        """The partitions that were stopped in an epoch, each with the version that did it and the reason."""
        row = guard.c
        asked = select(row.topic_id, row.partition, row.version, row.why).where(self._of(epoch))
        with self._database.reading() as conn:
            return {(r.topic_id, r.partition): (r.version, r.why) for r in conn.execute(asked)}

    def reset(self, epoch: int, places: Collection[Place], before: int | None = None) -> list[Place]:
        """Let partitions go on, those that were stopped before a moment (ms since 1970) or all; which they are."""
        freed = []
        late = true() if before is None else guard.c.stopped_at < before
        with self._database.writing() as conn:
            for topic_id, partition in sorted(places):
                mine = and_(guard.c.topic_id == topic_id, guard.c.partition == partition)
                if conn.execute(delete(guard).where(self._of(epoch), mine, late)).rowcount:
                    freed.append((topic_id, partition))
        return freed

    def _of(self, epoch: int) -> ColumnElement[bool]:
        return and_(guard.c.pipeline == self._pipeline, guard.c.epoch == epoch)
