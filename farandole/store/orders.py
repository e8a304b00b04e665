"""Orders to process events again: what a pipeline has heard of, each with its epoch, its state and how far it is."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Row, and_, insert, inspect, select, update

from farandole.cascade import ALL, restatement
from farandole.orders import RUNNING, Order, Progress
from farandole.store.engine import Database
from farandole.store.epochs import Epochs
from farandole.store.tables import now_ms, position, replay_order


@dataclass(frozen=True, slots=True)
class Heard:
    """What hearing an order has come to: whether nobody had heard it before, or not in this state."""

    epoch: int
    first: bool
    news: bool


class Orders:
    """The orders of one pipeline."""

    def __init__(self, database: Database, pipeline: str, epochs: Epochs) -> None:
        self._database, self._pipeline, self._epochs = database, pipeline, epochs
        self._reach: dict[int, str] = {}

    def hear(self, order: Order, at: int, epoch: int = 0) -> Heard:
        """Take an order, or a change of its state, given `at` (milliseconds, by the broker's clock).

        Heard twice, or by several instances, it is the same epoch; of changes the latest stands. `epoch` is the one
        that the ledger knows it by, where these tables may have been lost.
        """
        row, this = replay_order.c, self._this(order.id)
        with self._database.writing() as conn:
            self._epochs.alone(conn)
            stands = conn.execute(select(row.epoch, row.state, row.changed_at).where(this)).one_or_none()
            if stands is None:
                epoch = self._epochs.opened(conn, f"order:{order.id}", order.ranges, epoch)
                new = {"pipeline": self._pipeline, "id": order.id, "epoch": epoch, "state": order.state}
                told = {"detail": json.dumps(order.detail()), "changed_at": at}
                conn.execute(insert(replay_order).values(**new, **told, heard_at=now_ms()))
                return Heard(epoch, first=True, news=True)
            late = at > stands.changed_at and order.state != stands.state
            if late:
                conn.execute(update(replay_order).where(this).values(state=order.state, changed_at=at))
            return Heard(stands.epoch, first=False, news=late)

    def halted(self) -> set[int]:
        """The epochs whose order is not to go on: paused, cancelled, refused."""
        row = replay_order.c
        with self._database.reading() as conn:
            return set(conn.scalars(select(row.epoch).where(self._mine, row.state != RUNNING)))

    def of(self, epoch: int) -> Order | None:
        """The order of an epoch; None for one that a person opened by setting the group back."""
        with self._database.reading() as conn:
            found = conn.execute(select(replay_order).where(self._mine, replay_order.c.epoch == epoch)).one_or_none()
        return None if found is None else self._order(found)

    def restates(self, epoch: int) -> str:
        """The header of what an epoch emits; asked once of each epoch."""
        if epoch not in self._reach:
            order = self.of(epoch)
            self._reach[epoch] = restatement(ALL if order is None else order.cascade, self._pipeline, epoch)
        return self._reach[epoch]

    def progress(self) -> list[Progress]:
        """How far each order is, the newest first."""
        with self._database.reading() as conn:
            rows = conn.execute(select(replay_order).where(self._mine).order_by(replay_order.c.heard_at.desc())).all()
            at = and_(position.c.pipeline == self._pipeline, position.c.epoch > 0)
            asked = select(position.c.epoch, position.c.topic_id, position.c.partition, position.c.next_offset)
            places = {(epoch, *place): offset or 0 for epoch, *place, offset in conn.execute(asked.where(at))}
        found = []
        for row in rows:
            order = self._order(row)
            stands = [(s, places.get((row.epoch, s.range.topic_id, s.range.partition), 0)) for s in order.stretches]
            done, total = (sum(s.below(p) for s, p in stands), sum(s.below(s.range.end) for s, _ in stands))
            found.append(Progress(order, row.epoch, done, total, row.heard_at))
        return found

    def _order(self, row: Row[tuple[object, ...]]) -> Order:
        return Order.read(self._pipeline, json.loads(row.detail), row.state)

    def _this(self, order: str) -> ColumnElement[bool]:
        return and_(self._mine, replay_order.c.id == order)

    @property
    def _mine(self) -> ColumnElement[bool]:
        return replay_order.c.pipeline == self._pipeline


def read_progress(url: str, pipeline: str) -> list[Progress]:
    """How far the orders of a pipeline are, asked from outside; nothing where it has no tables yet."""
    with closing(Database(url, pipeline)) as database:
        if not database.postgresql and not Path(str(database.url.database)).exists():
            return []
        if replay_order.name not in inspect(database.engine).get_table_names():
            return []
        return Orders(database, pipeline, Epochs(database, pipeline)).progress()
