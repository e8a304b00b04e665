"""What the projection knows of one pipeline and one interval: the evidence on which a question is decided."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select

from farandole.event import Interval, Position
from farandole.ledger.entry import BEGAN, BOOKS_CLOSED
from farandole.ledger.queries import Answer, moment
from farandole.ledger.tables import expectation, fact, range_count, run, run_event

_AT_ONCE = 400
_BAD = ("dead", "uncertain", "parked", "waiting")

Place = tuple[str, int, int]
"""A topic's UUID, a partition, an offset."""


def runs_about(conn: Connection, pipeline: str, interval: Interval) -> list[Answer]:
    """The runs of a pipeline whose interval overlaps, each with the ids of its events; the newest last."""
    asked = select(run).where(run.c.pipeline == pipeline, run.c.state != "joined")
    asked = asked.where(run.c.interval_start < _millis(interval.end), run.c.interval_end > _millis(interval.start))
    return standing(_told(conn, conn.execute(asked.order_by(run.c.recorded_at, run.c.id)).all()))


def runs_at(conn: Connection, pipeline: str, places: Iterable[Position]) -> dict[Place, Answer]:
    """The newest run of a pipeline that took each of these records, where there is one."""
    by_partition: dict[tuple[str, int], list[int]] = {}
    for place in places:
        by_partition.setdefault((place.topic_id, place.partition), []).append(place.offset)
    found: dict[Place, Answer] = {}
    for (topic_id, partition), offsets in by_partition.items():
        for at in range(0, len(offsets), _AT_ONCE):
            some = and_(run_event.c.topic_id == topic_id, run_event.c.off.in_(offsets[at : at + _AT_ONCE]))
            asked = select(run, run_event.c.off).join(run_event, run_event.c.run_id == run.c.id)
            asked = asked.where(some, run_event.c.partition == partition, run_event.c.direction == "in")
            asked = asked.where(run.c.pipeline == pipeline, run.c.state != "joined")
            rows = conn.execute(asked.order_by(run.c.epoch, run.c.recorded_at)).all()
            for row, told in zip(rows, _told(conn, rows), strict=True):
                found[topic_id, partition, row.off] = told
    return found


def standing(runs: Collection[Answer]) -> list[Answer]:
    """Those that still count: what died is over where its events were done in a later epoch."""
    again: dict[str, int] = {}
    for one in runs:
        if one["state"] == "done":
            again.update({event: max(one["epoch"], again.get(event, 0)) for event in one["events"]})
    return [
        one
        for one in runs
        if one["state"] not in _BAD or not one["events"] or any(again.get(e, -1) <= one["epoch"] for e in one["events"])
    ]


def outcomes_at(conn: Connection, pipeline: str, place: Position) -> dict[str, str]:
    """What became of the records around a place that came to no run: ``filtered`` or ``duplicate``, with the reason."""
    asked = select(range_count.c.outcome, range_count.c.reason).where(
        range_count.c.pipeline == pipeline,
        range_count.c.topic_id == place.topic_id,
        range_count.c.partition == place.partition,
        range_count.c.start_off <= place.offset,
        range_count.c.end_off > place.offset,
    )
    return {row.outcome: row.reason for row in conn.execute(asked)}


def beginnings(conn: Connection, pipeline: str) -> dict[tuple[str, int], int]:
    """Where a pipeline began to read each partition."""
    told = _facts(conn, pipeline, BEGAN)
    return {(one["topic_id"], int(one["partition"])): int(one["at"]) for one in told if one["at"].isdigit()}


def ignored(conn: Connection, pipeline: str) -> list[Answer]:
    """The resets of offsets that a pipeline ignored: ``[from, to)`` of a partition, in their order."""
    return [
        {**one, "from": int(one["committed"]), "to": int(one["position"])}
        for one in _facts(conn, pipeline, "rewind.ignored")
    ]


def breakers(conn: Connection, pipeline: str) -> list[Answer]:
    """The breakers of a pipeline that are open, as far as its facts say."""
    closed = {(one["name"], one["since"]) for one in _facts(conn, pipeline, "breaker.closed")}
    return [one for one in _facts(conn, pipeline, "breaker.opened") if (one["name"], one["since"]) not in closed]


def makers(conn: Connection, event_type: str) -> set[str]:
    """The pipelines that have emitted events of a type."""
    asked = select(run.c.pipeline).distinct().join(run_event, run_event.c.run_id == run.c.id)
    return set(conn.scalars(asked.where(run_event.c.direction == "out", run_event.c.event_type == event_type)))


def outputs_of(conn: Connection, ids: Sequence[str]) -> list[str]:
    """What runs gave: the id of each event with the digest of its value."""
    found: list[str] = []
    for at in range(0, len(ids), _AT_ONCE):
        asked = select(run_event.c.event_id, run_event.c.digest).where(run_event.c.run_id.in_(ids[at : at + _AT_ONCE]))
        rows = conn.execute(asked.where(run_event.c.direction == "out"))
        found += [f"{row.event_id} {row.digest.hex()}" for row in rows]
    return found


def books(conn: Connection, pipeline: str = "") -> list[Answer]:
    """The books that were closed, each with its statement, its signature and the name of its key."""
    asked = select(fact).where(fact.c.fact == BOOKS_CLOSED).order_by(fact.c.recorded_at, fact.c.id)
    if pipeline:
        asked = asked.where(fact.c.pipeline == pipeline)
    found = []
    for row in conn.execute(asked):
        detail = json.loads(row.detail)
        told = {**detail, "statement": json.loads(detail["statement"])}
        found.append({"id": row.id, "pipeline": row.pipeline, "recorded_at": moment(row.recorded_at), **told})
    return found


def has_taken(conn: Connection, pipeline: str, signal: str) -> bool:
    """Whether a subscription of a pipeline has ever taken an event."""
    asked = select(run.c.id).join(run_event, run_event.c.run_id == run.c.id).where(run.c.pipeline == pipeline)
    asked = asked.where(run_event.c.direction == "in", run_event.c.signal == signal, run.c.state != "dead")
    return conn.execute(asked.limit(1)).first() is not None


def expected_about(conn: Connection, interval: Interval, *, pipeline: str = "", event_type: str = "") -> list[Answer]:
    """What is expected of a pipeline, or of an event, about an interval: open rows first, then by deadline."""
    e = expectation.c
    whose: ColumnElement[bool] = e.pipeline == pipeline if pipeline else e.event_type == event_type
    days = [
        interval.start.date() + timedelta(days=n) for n in range(min((interval.end - interval.start).days, 366) + 1)
    ]
    about = and_(e.interval_start < _millis(interval.end), e.interval_end > _millis(interval.start))
    asked = select(expectation).where(
        whose, or_(about, and_(e.interval_start.is_(None), e.day.in_([day.isoformat() for day in days])))
    )
    rows = sorted(conn.execute(asked), key=lambda row: (row.state not in ("pending", "missed"), row.deadline))
    return [
        {
            "id": row.id,
            "name": row.name,
            "state": row.state,
            "deadline": moment(row.deadline),
            "criteria": row.criteria,
            "actor": row.actor,
            "reason": row.reason,
        }
        for row in rows
    ]


def _facts(conn: Connection, pipeline: str, name: str) -> list[Answer]:
    asked = select(fact).where(fact.c.pipeline == pipeline, fact.c.fact == name).order_by(fact.c.recorded_at, fact.c.id)
    return [{**json.loads(row.detail), "recorded_at": moment(row.recorded_at)} for row in conn.execute(asked)]


def _told(conn: Connection, rows: Sequence[Row[Any]]) -> list[Answer]:
    """Runs as answers, each with the ids of the events that it took."""
    events: dict[str, list[str]] = {row.id: [] for row in rows}
    ids = list(events)
    for at in range(0, len(ids), _AT_ONCE):
        asked = select(run_event.c.run_id, run_event.c.event_id).where(run_event.c.run_id.in_(ids[at : at + _AT_ONCE]))
        for edge in conn.execute(asked.where(run_event.c.direction == "in").order_by(run_event.c.ordinal)):
            events[edge.run_id].append(edge.event_id)
    return [
        {
            "id": row.id,
            "state": row.state,
            "epoch": row.epoch,
            "interval": None if row.interval_start is None else _interval(row.interval_start, row.interval_end),
            "error": f"{row.error_class}: {row.error_message}" if row.error_class else None,
            "fingerprint": row.error_fingerprint,
            "stage": row.error_stage,
            "step": row.error_step,
            "attempt": row.attempt,
            "due": moment(row.due),
            "detail": json.loads(row.detail),
            "recorded_at": moment(row.recorded_at),
            "events": events[row.id],
        }
        for row in rows
    ]


def _interval(start: int, end: int) -> Interval:
    return Interval(datetime.fromtimestamp(start / 1000, UTC), datetime.fromtimestamp(end / 1000, UTC))


def _millis(when: datetime) -> int:
    return round(when.timestamp() * 1000)
