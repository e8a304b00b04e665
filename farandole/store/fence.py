"""Who owns a partition, in SQL: each take-over raises the fence, and what carries an older one writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, null, select, update

from farandole.errors import Fenced, TablesLost
from farandole.store.engine import Database
from farandole.store.rows import Lane, Lease, Taken
from farandole.store.tables import incarnation as whole
from farandole.store.tables import lease, now_ms, position

HARDLY = 500
DEATHS = 2
"""Records of progress below which an owner that ends in disorder counts as one more in a row."""
LEASE = 60_000  # milliseconds that a sign of life holds


def row_of(pipeline: str, lane: Lane) -> ColumnElement[bool]:
    """The position row of a lane's partition, whoever owns it."""
    return and_(
        position.c.pipeline == pipeline,
        position.c.epoch == lane.epoch,
        position.c.topic_id == lane.topic_id,
        position.c.partition == lane.partition,
    )


def take_over(database: Database, pipeline: str, lane: Lane, owner: str) -> Taken:
    """Raise the fence of the lane's partition by one, in the name of `owner`.

    An owner that takes it over once more is evidently alive: that is no end in disorder.
    """
    mine = row_of(pipeline, lane)
    with database.writing() as conn:
        conn.execute(
            database.fresh(position).values(
                pipeline=pipeline,
                epoch=lane.epoch,
                topic_id=lane.topic_id,
                partition=lane.partition,
                topic=lane.topic,
                fence=now_ms(),  # a fence that was given out before the tables were lost is never given out again
                ledger_offset=select(func.coalesce(func.max(whole.c.ledger_offset), 0))
                .where(whole.c.pipeline == pipeline)
                .scalar_subquery(),
            )
        )
        row = position.c
        asked = select(row.owner, row.next_offset, row.crashes, row.crashed_at, row.suspect, row.suspected)
        before = conn.execute(asked.where(mine).with_for_update()).one()
        stands = (before.next_offset or 0) - (before.crashed_at or 0) < HARDLY
        died = before.owner not in (None, owner)
        more = before.crashes + 1 if stands and before.crashes else 1
        crashes = more if died else before.crashes if before.owner else 0
        was, in_hand = _suspect_of(before.suspect if crashes else None)
        deaths = 0 if was is None else before.suspected + (in_hand and died)
        # remembered, but not in hand any more: a death before it is taken up again is not its doing
        told = {
            "crashes": crashes,
            "crashed_at": before.next_offset,
            "suspect": None if was is None else -1 - was,
            "suspected": deaths,
        }
        after = conn.execute(
            update(position)
            .where(mine)
            .values(fence=position.c.fence + 1, owner=owner, topic=lane.topic, lease_until=now_ms() + LEASE, **told)
            .returning(position.c.next_offset, position.c.ledger_offset, position.c.fence, position.c.cut)
        ).one()
    # one death may come from outside while an innocent record was in hand; two in a row over the same one do not
    suspect = was if deaths >= DEATHS else None
    return Taken(after.next_offset, after.ledger_offset, after.fence, before.owner, crashes, suspect, after.cut)


def _suspect_of(stored: int | None) -> tuple[int | None, bool]:
    """The offset under suspicion, and whether it was in hand at the end; where it was not, -1 - offset is stored."""
    if stored is None:
        return None, False
    return (stored, True) if stored >= 0 else (-1 - stored, False)


def suspect(database: Database, pipeline: str, lane: Lane, offset: int) -> None:
    """Note the record that is about to be handled: should the process end now, it was this one. Raises Fenced."""
    mine = and_(row_of(pipeline, lane), position.c.fence == lane.fence)
    with database.writing() as conn:
        again = case((position.c.suspect.in_((offset, -1 - offset)), position.c.suspected), else_=0)
        if conn.execute(update(position).where(mine).values(suspect=offset, suspected=again)).rowcount != 1:
            raise Fenced("another instance took this partition over", place=str(lane))


def cut(database: Database, pipeline: str, lane: Lane, end: int, *, accepted: int | None = None) -> None:
    """Note where the log ended that is too short; or, `accepted`, go on at that offset of it. Raises Fenced.

    The one place where a position moves back: what was settled is known by its keys.
    """
    mine = and_(row_of(pipeline, lane), position.c.fence == lane.fence)
    stands = {"cut": end} if accepted is None else {"cut": None, "next_offset": accepted, "suspect": None}
    with database.writing() as conn:
        if conn.execute(update(position).where(mine).values(**stands)).rowcount != 1:
            raise Fenced("another instance took this partition over", place=str(lane))


def release(database: Database, pipeline: str, lanes: Sequence[Lane]) -> None:
    """Say that these lanes ended in order. A lane that lost its fence says nothing."""
    with database.writing() as conn:
        for lane in sorted(lanes, key=lock_order):
            mine = and_(row_of(pipeline, lane), position.c.fence == lane.fence)
            conn.execute(update(position).where(mine).values(owner=null(), lease_until=0))


def hold(conn: Connection, pipeline: str, lane: Lane | Lease, *, lock: bool = True) -> None:
    """Raise Fenced unless the lane still has its fence, or the lease its token.

    With `lock`, nobody takes it over before the commit.
    """
    if isinstance(lane, Lease):
        asked = select(lease.c.token).where(held_as(pipeline, lane))
    else:
        asked = select(position.c.fence).where(row_of(pipeline, lane))
    fence = conn.scalar(asked.with_for_update(read=True) if lock else asked)
    if fence is None and isinstance(lane, Lane):
        raise TablesLost(
            "nothing is known of this partition any more",
            place=str(lane),
            hint="nothing to do: the tables were made anew, and what was settled comes back from the ledger",
        )
    if fence != lane.fence:
        raise Fenced(
            f"another instance took this over (fence {fence}, mine is {lane.fence})",
            place=str(lane),
            hint="nothing to do: its new owner runs what was under way here",
        )


def held_as(pipeline: str, mine: Lease) -> ColumnElement[bool]:
    """The row of a lease, as long as its holder is this one."""
    row = lease.c
    return and_(row.pipeline == pipeline, row.run_id == mine.run_id, row.step == mine.step, row.owner == mine.owner)


def move(conn: Connection, pipeline: str, lane: Lane, next_offset: int | None, ledger_offset: int) -> bool:
    """Move the lane's position forward, never back; False if the lane has lost its fence."""
    values: dict[str, Any] = {
        "ledger_offset": _at_least(position.c.ledger_offset, ledger_offset),
        "lease_until": now_ms() + LEASE,
    }
    if next_offset is not None:
        stays = case((position.c.next_offset >= next_offset, position.c.suspect), else_=null())
        values |= {"next_offset": _at_least(position.c.next_offset, next_offset), "suspect": stays}
    mine = and_(row_of(pipeline, lane), position.c.fence == lane.fence)
    return conn.execute(update(position).where(mine).values(**values)).rowcount == 1


def _at_least(column: ColumnElement[int], value: int) -> ColumnElement[int]:
    return case((column > value, column), else_=value)


def lock_order(lane: Lane) -> tuple[int, str, int]:
    """The one order in which lanes' rows are locked, so that two owners never wait for each other."""
    return lane.epoch, lane.topic_id, lane.partition
