"""Leases of detached steps: who works at one, by the database's clock, until it says so no more."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, select, update

from farandole.store.engine import Database, chunks
from farandole.store.fence import held_as, hold
from farandole.store.rows import Lane, Lease
from farandole.store.tables import lease, now_ms


class Leases:
    """The leases of one pipeline. Each holder of a step gets a token above all before it."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline

    def take(self, lane: Lane, run_id: str, step: str, owner: str, milliseconds: int) -> Lease | None:
        """Become the holder of a step for so long; None while somebody else is.

        `lane` is the partition of the retry topic where the run waits: only its owner may. Raises Fenced.
        """
        row = lease.c
        mine = and_(row.pipeline == self._pipeline, row.run_id == run_id, row.step == step, row.until <= now_ms())
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            conn.execute(self._database.fresh(lease).values(pipeline=self._pipeline, run_id=run_id, step=step))
            taken = update(lease).where(mine).values(token=row.token + 1, owner=owner, until=now_ms() + milliseconds)
            token = conn.scalar(taken.returning(row.token))
        return None if token is None else Lease(run_id, step, token, owner)

    def renew(self, owner: str, milliseconds: int) -> set[Lease]:
        """A sign of life of a holder, for all its leases at once; those that it holds still."""
        row = lease.c
        mine = and_(row.pipeline == self._pipeline, row.owner == owner)
        renewed = update(lease).where(mine).values(until=now_ms() + milliseconds)
        with self._database.writing() as conn:
            rows = conn.execute(renewed.returning(row.run_id, row.step, row.token)).all()
        return {Lease(run_id, step, token, owner) for run_id, step, token in rows}

    def release(self, held: Collection[Lease]) -> None:
        """Let go at once; of one that is somebody else's by now nothing is changed."""
        with self._database.writing() as conn:
            for one in sorted(held, key=str):
                mine = and_(held_as(self._pipeline, one), lease.c.token == one.fence)
                conn.execute(update(lease).where(mine).values(owner="", until=0))

    def free(self, run_ids: Collection[str]) -> set[str]:
        """Those of these runs at whose detached step nobody works."""
        row, held = lease.c, set[str]()
        with self._database.reading() as conn:
            for some in chunks(list(run_ids)):
                mine = and_(row.pipeline == self._pipeline, self._database.among(row.run_id, some))
                held.update(conn.scalars(select(row.run_id).where(mine, row.until > now_ms())))
        return set(run_ids) - held
