"""The keys that were settled, who has the others in hand, and up to where each partition came.

Kafka decides, SQL is the view of it (class i); or SQL decides and Kafka publishes (classes ii and iii).
Either way one statement per batch, and every write carries the fence of the partition it speaks for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, delete, func, select

from farandole.errors import Fenced
from farandole.store.buckets import Buckets
from farandole.store.claims import Claims
from farandole.store.engine import Database, chunks
from farandole.store.fence import cut, hold, lock_order, move, release, suspect, take_over
from farandole.store.outcomes import Outcomes, note_told
from farandole.store.recovery import assured
from farandole.store.rows import HOLDING, Claim, Known, Lane, OutboxRow, Outcome, Settlement, Taken
from farandole.store.tables import checkpoint, dedup, inbox_open, lease, now_ms, outbox

__all__ = ["Claim", "Inbox", "Known", "Lane", "OutboxRow", "Outcome", "Settlement", "Taken"]

_HEADERS = msgspec.msgpack.Decoder(list[tuple[str, bytes]])


class Inbox:
    """The inbox of one pipeline. Every method is one transaction, unless it is given a connection."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline
        self._claims = Claims(database, pipeline)
        self.buckets = Buckets(database, pipeline)
        self._outcomes = Outcomes(database, pipeline, self.buckets.current)

    def take_over(self, topic: str, topic_id: str, partition: int, owner: str, epoch: int = 0) -> Taken:
        """Become the owner of a partition: from here what an older owner writes affects nothing."""
        return take_over(self._database, self._pipeline, Lane(topic, topic_id, partition, 0, epoch), owner)

    def check(self, lane: Lane) -> None:
        """Raise Fenced unless the lane still has its fence."""
        with self._database.reading() as conn:
            hold(conn, self._pipeline, lane, lock=False)

    def suspect(self, lane: Lane, offset: int) -> None:
        """Note the record that is about to be handled, where processes have died before. Raises Fenced."""
        suspect(self._database, self._pipeline, lane, offset)

    def cut(self, lane: Lane, end: int, *, accepted: int | None = None) -> None:
        """Note that the log ends too early; or, `accepted`, go on at that offset. Raises Fenced."""
        cut(self._database, self._pipeline, lane, end, accepted=accepted)

    def release(self, lanes: Sequence[Lane]) -> None:
        """End in order: the next owner finds nobody before it."""
        release(self._database, self._pipeline, lanes)

    def known(self, epoch: int, keys: Collection[bytes]) -> dict[bytes, Known]:
        """What is known of these keys; a key of which nothing is known is not in the answer. Raises TablesLost."""
        with self._database.reading() as conn:
            found = {
                key: known
                for some in chunks(list(keys))
                for key, known in self._claims.known(conn, epoch, some).items()
            }
            assured(conn, self._database, self._pipeline)
        return found

    def claim(self, lane: Lane, claims: Sequence[Claim]) -> dict[bytes, Known]:
        """Claim keys before they are run; returns the keys *not* won, with what is known of them.

        A claim that this very lane holds for the same offset is won again; one whose owner lost its
        partition is taken over. Keys must differ within one call. Raises Fenced.
        """
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            return self._claims.claim(conn, lane, claims)

    def lock_claim(self, conn: Connection, lane: Lane, claim: Claim) -> Known | None:
        """Claim one key inside the transaction that will also hold its effect; None if it was won.

        Another owner's open transaction on this key is waited for, up to the lock timeout: then it
        counts as claimed. Raises Fenced.
        """
        hold(conn, self._pipeline, lane, lock=False)  # user code follows: a new owner must not wait for it
        return self._claims.lock(conn, replace(lane, epoch=claim.epoch), claim)

    def park(self, parked: Sequence[tuple[Lane, Outcome]]) -> list[Lane]:
        """Hold these keys, and with them the later events of their record keys, before Kafka is told.

        Returns the lanes that lost their fence, for which nothing was written. The settlement of the Kafka
        transaction confirms the rows.
        """
        fenced: dict[Lane, None] = {}
        with self._database.writing() as conn:
            for lane in sorted({lane for lane, _ in parked}, key=lock_order):
                try:
                    hold(conn, self._pipeline, lane)
                except Fenced:
                    fenced[lane] = None
            self._outcomes.write(
                conn,
                [(lane, replace(one, state="parked", detail=HOLDING)) for lane, one in parked if lane not in fenced],
            )
        return list(fenced)

    def held(self, epoch: int, okeys: Collection[bytes], state: str = "") -> set[bytes]:
        """Those of these record keys of which an earlier event is parked, or dead and holds them (only `state`)."""
        row, found = inbox_open.c, set[bytes]()
        states = (state,) if state else ("parked", "dead-hold")
        mine = and_(row.pipeline == self._pipeline, row.state.in_(states), row.epoch == epoch)
        with self._database.reading() as conn:
            for some in chunks(list(okeys)):
                found.update(conn.scalars(select(row.okey).where(mine, self._database.among(row.okey, some))))
        return found

    def record_decision(
        self, conn: Connection, lane: Lane, outcomes: Sequence[Outcome], outbox_rows: Sequence[OutboxRow]
    ) -> None:
        """Decide in the caller's transaction: outcomes, and the bytes that Kafka is to publish. Raises Fenced."""
        hold(conn, self._pipeline, lane)
        if outbox_rows:
            row = self._database.fresh(outbox).values(pipeline=self._pipeline, created_at=now_ms())
            conn.execute(row, [_outbox_row(one) for one in outbox_rows])
        self._outcomes.write(conn, [(lane, one) for one in outcomes])

    def settle(self, settlements: Sequence[Settlement]) -> list[Lane]:
        """Write down what became of a batch, for all lanes in one transaction; returns the lanes that lost their fence.

        A lane that lost its fence writes nothing at all. An offset never moves back.
        """
        left: list[Settlement] = []
        fenced: dict[Lane, None] = {}
        with self._database.writing() as conn:
            for one in sorted(settlements, key=lambda one: lock_order(one.lane)):
                if move(conn, self._pipeline, one.lane, one.next_offset, one.ledger_offset):
                    left.append(one)
                else:
                    fenced[one.lane] = None
            if fenced:
                assured(conn, self._database, self._pipeline)
            self._outcomes.write(conn, [(one.lane, outcome) for one in left for outcome in one.outcomes])
            for one in left:
                keys = [outcome.key for outcome in one.outcomes]
                self._outcomes.close_joins(conn, one.lane, keys, one.closed_joins)
            for one in left:
                note_told(conn, self._database, self._pipeline, one.lane, one.waits)
            for table, runs in (
                (outbox, [run for one in left for run in one.published]),
                (checkpoint, finished := [run for one in left for run in one.finished]),
                (lease, finished),
            ):
                for some in chunks(runs):
                    gone = self._database.among(table.c.run_id, some)
                    conn.execute(delete(table).where(table.c.pipeline == self._pipeline, gone))
        return list(fenced)

    def unpublished(self, run_ids: Sequence[str]) -> dict[str, list[OutboxRow]]:
        """The outbox rows of these runs, in order of emission."""
        found: dict[str, list[OutboxRow]] = {}
        row = outbox.c
        asked = select(row.run_id, row.ordinal, row.topic, row.record_key, row.headers, row.value)
        with self._database.reading() as conn:
            for some in chunks(list(run_ids)):
                mine = and_(row.pipeline == self._pipeline, self._database.among(row.run_id, some))
                for run, ordinal, topic, key, headers, value in conn.execute(
                    asked.where(mine).order_by(row.run_id, row.ordinal)
                ):
                    found.setdefault(run, []).append(
                        OutboxRow(run, ordinal, topic, key, _HEADERS.decode(headers), value)
                    )
        return found

    def touch_ledger_offset(self, lanes: Sequence[Lane], ledger_offset: int) -> None:
        """Note how far the ledger was read, for partitions on which nothing happens."""
        with self._database.writing() as conn:
            for lane in sorted(lanes, key=lock_order):
                move(conn, self._pipeline, lane, None, ledger_offset)
            assured(conn, self._database, self._pipeline)

    def drop_buckets(self, older_than_bucket: int) -> int:
        """Forget what was settled before a day (days since the epoch). Only for an owner that is not behind."""
        return self.buckets.drop(older_than_bucket)

    def count(self, outcome: str | None = None) -> int:
        """How many keys are settled, in all epochs."""
        asked = select(func.count()).select_from(dedup).where(dedup.c.pipeline == self._pipeline)
        if outcome is not None:
            asked = asked.where(dedup.c.outcome == outcome)
        with self._database.reading() as conn:
            return int(conn.scalar(asked) or 0)


def _outbox_row(row: OutboxRow) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "ordinal": row.ordinal,
        "topic": row.topic,
        "record_key": row.record_key,
        "headers": msgspec.msgpack.encode(row.headers),
        "value": row.value,
    }
