"""Write down how keys ended, or where they now stand; `done` is left by nothing inside its epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, or_, select, update

from farandole.store.engine import Database, chunks
from farandole.store.rows import FINAL, RANK, Lane, Outcome
from farandole.store.tables import dedup, inbox_open, join_member, join_set, now_ms

_OPEN = (
    *("run_id", "okey", "state", "life", "attempt", "due"),
    *("fence", "digest", "topic_id", "partition", "off", "detail"),
)

Pair = tuple[Lane, Outcome]


class Outcomes:
    """The writer of outcomes of one pipeline, inside somebody's transaction."""

    def __init__(self, database: Database, pipeline: str, bucket: Callable[[Connection], int]) -> None:
        self._database, self._pipeline, self._bucket = database, pipeline, bucket

    def write(self, conn: Connection, pairs: Iterable[Pair]) -> None:
        """Final outcomes to the dedup table, the others to the open rows."""
        by_epoch: dict[int, dict[bytes, Pair]] = defaultdict(dict)
        for lane, outcome in pairs:
            stand = by_epoch[outcome.epoch]
            if outcome.key not in stand or _weight(outcome) >= _weight(stand[outcome.key][1]):
                stand[outcome.key] = (lane, outcome)
        for epoch, stand in by_epoch.items():
            self._write_epoch(conn, epoch, stand)

    def _write_epoch(self, conn: Connection, epoch: int, stand: dict[bytes, Pair]) -> None:
        keys = sorted(stand)  # one order for all writers: two of them cannot wait for each other
        settled = self._settled(conn, epoch, keys)
        final = [stand[key] for key in keys if key not in settled and stand[key][1].state in FINAL]
        still_open = [stand[key] for key in keys if key not in settled and stand[key][1].state not in FINAL]
        if final:
            bucket = self._bucket(conn)
            row = self._database.fresh(dedup).values(
                pipeline=self._pipeline, epoch=epoch, bucket=bucket, settled_at=now_ms()
            )
            conn.execute(row, [_final_row(outcome) for _, outcome in final])
        if still_open:
            conn.execute(self._open_row(epoch), [_open_row(lane, outcome) for lane, outcome in still_open])
        for some in chunks([*settled, *(outcome.key for _, outcome in final)]):
            gone = self._database.among(inbox_open.c.key, some)
            conn.execute(delete(inbox_open).where(self._of(inbox_open, epoch), gone))

    def close_joins(self, conn: Connection, lane: Lane, keys: Sequence[bytes], joins: Iterable[bytes]) -> None:
        """Let members whose key has an outcome go, and their sets once nobody waits in them.

        A set with members left over is open again: they were not part of the run that ended.
        """
        any_set = select(exists().where(join_set.c.pipeline == self._pipeline))
        if not conn.scalar(any_set):
            return
        touched = set(joins)
        for some in chunks(keys):
            asked = select(join_member.c.join_key).where(self._members(lane, some))
            touched.update(conn.scalars(asked))
        # the set's row first, as whoever adds a member does: the look for members left over comes after the lock
        for some in chunks(sorted(touched)):
            these = and_(self._of(join_set, lane.epoch), self._database.among(join_set.c.join_key, some))
            conn.execute(select(join_set.c.join_key).where(these).order_by(join_set.c.join_key).with_for_update())
        for some in chunks(keys):
            conn.execute(delete(join_member).where(self._members(lane, some)))
        waits = exists().where(
            join_member.c.pipeline == join_set.c.pipeline,
            join_member.c.epoch == join_set.c.epoch,
            join_member.c.join_key == join_set.c.join_key,
        )
        for some in chunks(sorted(touched)):
            these = and_(self._of(join_set, lane.epoch), self._database.among(join_set.c.join_key, some))
            conn.execute(delete(join_set).where(these, ~waits))
            own = and_(
                join_set.c.topic_id == lane.topic_id,
                join_set.c.partition == lane.partition,
                join_set.c.fence <= lane.fence,
                join_set.c.state != "open",
            )
            conn.execute(update(join_set).where(these, own).values(state="open", run_id="", partition=-1, off=-1))

    def _members(self, lane: Lane, keys: Sequence[bytes]) -> ColumnElement[bool]:
        return and_(self._of(join_member, lane.epoch), self._database.among(join_member.c.key, keys))

    def _settled(self, conn: Connection, epoch: int, keys: Sequence[bytes]) -> set[bytes]:
        settled: set[bytes] = set()
        for some in chunks(keys):
            asked = select(dedup.c.key).where(self._of(dedup, epoch), self._database.among(dedup.c.key, some))
            settled.update(conn.scalars(asked))
        return settled

    def _open_row(self, epoch: int) -> Any:
        row = self._database.upsert(inbox_open, _OPEN, _not_older)
        return row.values(pipeline=self._pipeline, epoch=epoch, claimed_at=now_ms())

    def _of(self, table: Any, epoch: int) -> ColumnElement[bool]:
        return and_(table.c.pipeline == self._pipeline, table.c.epoch == epoch)


def note_told(conn: Connection, database: Database, pipeline: str, lane: Lane, keys: Sequence[bytes]) -> None:
    """The `waiting` entries of these members, which stand in the lane's partition, are committed."""
    row = join_member.c
    mine = and_(row.pipeline == pipeline, row.epoch == lane.epoch)
    here = and_(mine, row.topic_id == lane.topic_id, row.partition == lane.partition)
    for some in chunks(keys):
        conn.execute(update(join_member).where(here, database.among(row.key, some)).values(told=1))


def _weight(outcome: Outcome) -> tuple[bool, int, int, int]:
    return outcome.state in FINAL, outcome.life, RANK.get(outcome.state, 0), outcome.attempt


def _not_older(new: Any) -> ColumnElement[bool]:
    rank, stands = (case(RANK, value=row.state, else_=0) for row in (new, inbox_open.c))
    not_before = or_(rank > stands, and_(rank == stands, new.attempt >= inbox_open.c.attempt))
    return or_(new.life > inbox_open.c.life, and_(new.life == inbox_open.c.life, not_before))


def _final_row(outcome: Outcome) -> dict[str, Any]:
    return {
        "key": outcome.key,
        "run_id": outcome.run_id,
        "outcome": outcome.state,
        "life": outcome.life,
        "digest": outcome.digest,
    }


def _open_row(lane: Lane, outcome: Outcome) -> dict[str, Any]:
    return {
        "key": outcome.key,
        "run_id": outcome.run_id,
        "okey": outcome.okey,
        "state": outcome.state,
        "life": outcome.life,
        "attempt": outcome.attempt,
        "due": outcome.due,
        "digest": outcome.digest,
        "off": outcome.offset,
        "detail": outcome.detail,
        "fence": lane.fence,
        "topic_id": lane.topic_id,
        "partition": lane.partition,
    }
