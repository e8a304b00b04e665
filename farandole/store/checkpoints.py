"""What a step gave, so that it is not asked again: not after a crash, a retry or a redrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, select, update

from farandole.errors import Fenced
from farandole.store.engine import Database, chunks
from farandole.store.fence import hold
from farandole.store.rows import Lane, Lease
from farandole.store.tables import checkpoint, now_ms


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a step came: `done` with its result, or `started`, which leaves a doubt."""

    step: str
    branch: str
    state: str  # started, done
    result: bytes | None
    fence: int
    attempt: int


class Checkpoints:
    """The checkpoints of one pipeline."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline

    def load(self, run_ids: Sequence[str]) -> dict[str, list[Checkpoint]]:
        """What these runs' steps have given; a run without any is not in the answer."""
        found: dict[str, list[Checkpoint]] = {}
        row = checkpoint.c
        asked = select(row.run_id, row.step, row.branch, row.state, row.result, row.fence, row.attempt)
        with self._database.reading() as conn:
            for some in chunks(run_ids):
                mine = and_(row.pipeline == self._pipeline, self._database.among(row.run_id, some))
                for run, *rest in conn.execute(asked.where(mine).order_by(row.updated_at)):
                    found.setdefault(run, []).append(Checkpoint(*rest))
        return found

    def started(self, lane: Lane | Lease, run_id: str, step: str, attempt: int, branch: str = "") -> None:
        """Note, before an effect outside, that it may happen from now on. Raises Fenced."""
        again = self._database.upsert(
            checkpoint, ("state", "fence", "attempt", "updated_at"), lambda _: checkpoint.c.state == "started"
        )
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            row = self._row(lane, run_id, step, branch, state="started", attempt=attempt)
            if conn.scalar(again.values(row).returning(checkpoint.c.fence)) is None:
                raise _overtaken(lane, run_id, step)

    def done(self, lane: Lane | Lease, run_id: str, step: str, result: bytes, branch: str = "") -> None:
        """Keep the result of a step with an effect. Raises Fenced if it was not started under this fence."""
        mine = and_(
            checkpoint.c.pipeline == self._pipeline,
            checkpoint.c.run_id == run_id,
            checkpoint.c.step == step,
            checkpoint.c.branch == branch,
            checkpoint.c.state == "started",
            checkpoint.c.fence == lane.fence,
        )
        kept = update(checkpoint).where(mine).values(state="done", result=result, updated_at=now_ms())
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            if conn.execute(kept).rowcount != 1:
                raise _overtaken(lane, run_id, step)

    def keep(self, lane: Lane | Lease, run_id: str, step: str, result: bytes, branch: str = "") -> None:
        """Keep the result of a step without effect; a result that is there already stays. Raises Fenced."""
        kept = self._database.upsert(
            checkpoint, ("state", "result", "fence", "updated_at"), lambda _: checkpoint.c.state != "done"
        )
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            conn.execute(kept.values(self._row(lane, run_id, step, branch, state="done", result=result)))

    def _row(self, lane: Lane | Lease, run_id: str, step: str, branch: str, **values: Any) -> dict[str, Any]:
        return {
            "pipeline": self._pipeline,
            "run_id": run_id,
            "step": step,
            "branch": branch,
            "fence": lane.fence,
            "updated_at": now_ms(),
            **values,
        }


def _overtaken(lane: Lane | Lease, run_id: str, step: str) -> Fenced:
    return Fenced(
        f"step {step} of run {run_id} is no longer this instance's: another one has started or finished it",
        place=str(lane),
        hint="nothing to do: what was under way here is dropped",
    )
