"""From the expectations topic to a table that people query, beside the projection of the ledger.

The topic is small and folded whole in memory; the table is what it comes to. A table that is dropped, or that was read
from another topic, is written anew.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import delete, insert, select, update

from farandole.clock import Clock, SystemClock
from farandole.errors import FarandoleError, TablesLost, Unreachable
from farandole.expectation import Expectation
from farandole.kafka.expectations import Standing
from farandole.ledger.database import make_projection
from farandole.ledger.tables import expectation, expectation_position
from farandole.store.engine import Database

LOOK = 1.0
"""Seconds between two looks at the topic."""
BACKOFF = 5.0

_COLUMNS = [column.name for column in expectation.columns if column.name != "id"]

_log = structlog.get_logger("farandole.projector")


class ExpectationProjector:
    """Keeps the table of one database. `read` begins to read the topic, and gives its rows and its UUID."""

    def __init__(
        self, database: Database, read: Callable[[], tuple[Standing, str]], clock: Clock | None = None
    ) -> None:
        self._database, self._read = database, read
        self._clock = clock or SystemClock()
        self._book: Standing | None = None
        self._topic_id = ""
        self._offsets: dict[str, int] = {}

    def run(self, stop: threading.Event, *, until_drained: bool = False) -> None:
        """Keep it until `stop` is set; with `until_drained` once. What is away is waited for."""
        while not stop.is_set():
            try:
                self.look()
            except TablesLost:
                make_projection(self._database)
                continue
            except FarandoleError as away:
                _log.warning("expectations.waiting", reason=away.message, place=away.place, hint=away.hint)
                if until_drained and not isinstance(away, Unreachable):
                    return
                stop.wait(BACKOFF)
                continue
            if until_drained:
                return
            stop.wait(LOOK)

    def look(self) -> None:
        """Read on to the end of the topic, and write what is new. Raises Unreachable, TablesLost.

        Raises FarandoleError where the topic is not there.
        """
        if self._book is None:
            self._book, self._topic_id = self._read()
        now, rows = round(self._clock.now().timestamp() * 1000), self._book.rows
        news = self._book.read()
        self._offsets.update(news)
        with self._database.writing() as conn:
            known = conn.scalar(select(expectation_position.c.topic_id))
            if known != self._topic_id:  # nothing written yet, dropped meanwhile, or another topic's
                conn.execute(delete(expectation))
                conn.execute(delete(expectation_position))
                conn.execute(insert(expectation_position).values(topic_id=self._topic_id, checked_at=now))
                news = dict(self._offsets)
            gone = [one for one in news if one not in rows]
            if gone:
                conn.execute(delete(expectation).where(self._database.among(expectation.c.id, gone)))
            if written := [{**row_of(rows[one]), "topic_offset": self._offsets[one]} for one in news if one in rows]:
                # of two projectors the one that is behind changes nothing
                upsert = self._database.upsert(
                    expectation, _COLUMNS, lambda new: new.topic_offset >= expectation.c.topic_offset
                )
                conn.execute(upsert, written)
            conn.execute(update(expectation_position).values(checked_at=now))


def row_of(one: Expectation) -> dict[str, Any]:
    """The columns of an expectation, without the offset."""
    return {
        "id": one.id,
        "expectation": one.expectation,
        "name": one.name,
        "pipeline": one.pipeline,
        "event_type": one.event_type,
        "criteria": one.where,
        "day": one.day,
        "deadline": _millis(one.deadline),
        "alarm_at": _millis(one.alarm_at),
        "interval_start": one.interval and _millis(one.interval.start),
        "interval_end": one.interval and _millis(one.interval.end),
        "state": one.state,
        "arrived_at": one.arrived_at and _millis(one.arrived_at),
        "proof": json.dumps(one.proof),
        "actor": one.actor,
        "reason": one.reason,
        "telling": one.telling,
    }


def _millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
