"""Who runs a key: the claim row is the lock, and it comes *before* the look into the dedup table.

Check first and insert then lets two owners run one key around the change of a day's bucket.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import OperationalError

from farandole.delivery import GIVEN_UP
from farandole.store.engine import Database, sqlstate
from farandole.store.rows import UNTOLD, Claim, Known, Lane
from farandole.store.tables import dedup, inbox_open, join_member, join_set, now_ms, outbox, position

_ROUNDS = 5  # a row that is gone when looked at was settled or undone just now: look again
_LOCK_NOT_AVAILABLE = "55P03"


class Claims:
    """Look-ups and claims of one pipeline's keys, inside somebody's transaction."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline

    def known(self, conn: Connection, epoch: int, keys: Collection[bytes]) -> dict[bytes, Known]:
        """What is known of `keys`: one query over all that can hold them. A settled key is settled, whatever else."""
        asked = union_all(
            self._waiting(epoch, keys).add_columns(literal_column("0").label("rank")),
            self._open(epoch, keys).add_columns(literal_column("1").label("rank")),
            self._settled(epoch, keys).add_columns(literal_column("2").label("rank")),
        )
        rows = sorted(conn.execute(asked), key=lambda row: int(row.rank))
        return {row.key: _known(row) for row in rows}

    def settled(self, conn: Connection, epoch: int, keys: Collection[bytes]) -> dict[bytes, Known]:
        """Those of `keys` that stand in the dedup table."""
        return {row.key: _known(row) for row in conn.execute(self._settled(epoch, keys))}

    def claim(self, conn: Connection, lane: Lane, claims: Iterable[Claim]) -> dict[bytes, Known]:
        """Claim all keys for `lane`; what is known of those that were not won."""
        wanted: dict[bytes, Claim] = {}
        for claim in claims:
            wanted.setdefault(claim.key, claim)
        lost: dict[bytes, Known] = {}
        left = sorted(wanted)  # sorted: two owners lock the same keys in the same order
        for _ in range(_ROUNDS):
            if not left:
                return lost
            conn.execute(self._insert(lane), [_parameters(wanted[key]) for key in left])
            left = self._sort_out(conn, lane, [wanted[key] for key in left], lost)
        return lost | {key: Known(key, "claimed", wanted[key].run_id, 0, wanted[key].digest) for key in left}

    def lock(self, conn: Connection, lane: Lane, claim: Claim) -> Known | None:
        """Claim one key and keep its row locked until the transaction ends; None if it was won."""
        try:
            with conn.begin_nested():
                if claim.life >= 0 and self._goes_on(conn, claim):
                    return None
                return self.claim(conn, lane, [claim]).get(claim.key)
        except OperationalError as error:
            if sqlstate(error) != _LOCK_NOT_AVAILABLE:
                raise
            return Known(claim.key, "claimed", claim.run_id, 0, claim.digest)  # its owner is in the middle of it

    def _goes_on(self, conn: Connection, claim: Claim) -> bool:
        """Whether the open row of a key is one that its retry record may run: parked, or given up in an earlier life.

        The row stays as it is, locked: it also holds the later events of its record key back.
        """
        row = inbox_open.c
        asked = select(row.state, row.life).where(_of(self._pipeline, inbox_open, claim.epoch), row.key == claim.key)
        there = conn.execute(asked.with_for_update()).one_or_none()
        if there is None:
            return False
        return there.state == "parked" or (there.state in GIVEN_UP and there.life < claim.life)

    def _sort_out(self, conn: Connection, lane: Lane, claims: Sequence[Claim], lost: dict[bytes, Known]) -> list[bytes]:
        """Tell won from lost after the insert; returns the keys of which neither can be said yet."""
        keys = [claim.key for claim in claims]
        rows = {row.key: row for row in conn.execute(self._open_and_stale(lane.epoch, keys))}
        settled = self.settled(conn, lane.epoch, keys)
        lost |= settled
        again, stale, needless = [], [], []
        for claim in claims:
            row = rows.get(claim.key)
            mine = row is not None and row[6:10] == (lane.fence, lane.topic_id, lane.partition, claim.offset)
            left_behind = row is not None and row.state == "claimed" and row.stale and not mine
            if claim.key in settled:
                needless += [claim.key] if mine or left_behind else []
            elif row is None:
                again.append(claim.key)
            elif left_behind:
                stale.append(_compared(claim, row))
                again.append(claim.key)
            elif row.state != "claimed" or not mine:
                lost[claim.key] = _known(row)
        if needless:
            mine_or_left = and_(
                _of(self._pipeline, inbox_open, lane.epoch), self._database.among(inbox_open.c.key, needless)
            )
            conn.execute(delete(inbox_open).where(mine_or_left))
        if stale:
            conn.execute(self._take_over(lane), stale)
        return again

    def _insert(self, lane: Lane) -> Any:
        return self._database.fresh(inbox_open).values(
            pipeline=self._pipeline,
            epoch=lane.epoch,
            state="claimed",
            life=0,
            attempt=1,
            fence=lane.fence,
            topic_id=lane.topic_id,
            partition=lane.partition,
            claimed_at=now_ms(),
        )

    def _take_over(self, lane: Lane) -> Any:
        # compare and set: the row must still be the one that was found left behind
        return (
            update(inbox_open)
            .where(
                _of(self._pipeline, inbox_open, lane.epoch),
                inbox_open.c.key == bindparam("found_key"),
                inbox_open.c.state == "claimed",
                inbox_open.c.fence == bindparam("found_fence"),
                inbox_open.c.topic_id == bindparam("found_topic"),
                inbox_open.c.partition == bindparam("found_partition"),
            )
            .values(
                attempt=inbox_open.c.attempt + 1,
                fence=lane.fence,
                topic_id=lane.topic_id,
                partition=lane.partition,
                claimed_at=now_ms(),
            )
        )

    def _settled(self, epoch: int, keys: Collection[bytes]) -> Select[Any]:
        unpublished = exists().where(outbox.c.pipeline == dedup.c.pipeline, outbox.c.run_id == dedup.c.run_id)
        row = dedup.c
        return select(
            row.key,
            row.outcome.label("state"),
            row.run_id,
            row.life,
            row.digest,
            unpublished.label("unpublished"),
            literal_column("0").label("fence"),
            literal_column("''").label("topic_id"),
            literal_column("-1").label("partition"),
            literal_column("-1").label("off"),
            *_NOT_PARKED,
        ).where(_of(self._pipeline, dedup, epoch), self._database.among(row.key, keys))

    def _open(self, epoch: int, keys: Collection[bytes]) -> Select[Any]:
        row = inbox_open.c
        return select(
            row.key,
            row.state,
            row.run_id,
            row.life,
            row.digest,
            literal_column("1 = 0").label("unpublished"),
            row.fence,
            row.topic_id,
            row.partition,
            row.off,
            row.attempt,
            row.due,
            row.detail,
        ).where(_of(self._pipeline, inbox_open, epoch), self._database.among(row.key, keys))

    def _open_and_stale(self, epoch: int, keys: Collection[bytes]) -> Select[Any]:
        owner = and_(
            position.c.pipeline == inbox_open.c.pipeline,
            position.c.epoch == inbox_open.c.epoch,
            position.c.topic_id == inbox_open.c.topic_id,
            position.c.partition == inbox_open.c.partition,
        )
        stale = or_(position.c.fence.is_(None), position.c.fence > inbox_open.c.fence)
        return self._open(epoch, keys).add_columns(stale.label("stale")).outerjoin_from(inbox_open, position, owner)

    def _waiting(self, epoch: int, keys: Collection[bytes]) -> Select[Any]:
        row = join_member.c
        its_set = and_(
            join_set.c.pipeline == row.pipeline, join_set.c.epoch == row.epoch, join_set.c.join_key == row.join_key
        )
        return (
            select(
                row.key,
                literal_column("'waiting'").label("state"),
                func.coalesce(join_set.c.run_id, literal_column("''")).label("run_id"),
                literal_column("0").label("life"),
                row.digest,
                literal_column("1 = 0").label("unpublished"),
                func.coalesce(join_set.c.fence, literal_column("0")).label("fence"),
                row.topic_id,
                row.partition,
                row.off,
                *_NOT_PARKED[:2],
                case((row.told == 0, literal_column(f"'{UNTOLD}'")), else_=literal_column("''")).label("detail"),
            )
            .outerjoin_from(join_member, join_set, its_set)
            .where(_of(self._pipeline, join_member, epoch), self._database.among(row.key, keys))
        )


_NOT_PARKED: tuple[ColumnElement[Any], ...] = (
    literal_column("0").label("attempt"),
    cast(null(), BigInteger).label("due"),
    literal_column("''").label("detail"),
)


def _of(pipeline: str, table: Any, epoch: int) -> ColumnElement[bool]:
    return and_(table.c.pipeline == pipeline, table.c.epoch == epoch)


def _parameters(claim: Claim) -> dict[str, Any]:
    return {
        "key": claim.key,
        "run_id": claim.run_id,
        "okey": claim.okey,
        "digest": claim.digest,
        "off": claim.offset,
    }


def _compared(claim: Claim, row: Row[Any]) -> dict[str, Any]:
    found = {"key": row.key, "fence": row.fence, "topic": row.topic_id, "partition": row.partition}
    new = {"run_id": claim.run_id, "okey": claim.okey, "digest": claim.digest, "off": claim.offset}
    return new | {f"found_{name}": value for name, value in found.items()}


def _known(row: Sequence[Any]) -> Known:
    key, state, run_id, life, digest, unpublished, *rest = row[:13]
    return Known(key, state, run_id, life, digest, bool(unpublished), *rest)
