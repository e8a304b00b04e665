"""What came when, as the projection remembers it: the history that a rhythm is learned from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, case, func, select

from farandole.event import Interval
from farandole.ledger.tables import expectation, run, run_event
from farandole.rhythm import Came

_QUARTER = 900_000  # milliseconds; what says no interval is remembered once a quarter of an hour


def of_pipelines(conn: Connection, since: datetime, pipeline: str = "") -> dict[str, list[Came]]:
    """Per pipeline, when which data interval was done first. Live work only: a backfill says nothing of a rhythm."""
    quarter = case((run.c.interval_start.is_(None), run.c.recorded_at // _QUARTER))
    asked = select(run.c.pipeline, run.c.interval_start, run.c.interval_end, func.min(run.c.recorded_at).label("at"))
    asked = asked.where(run.c.state == "done", run.c.epoch == 0, run.c.recorded_at >= _millis(since))
    if pipeline:
        asked = asked.where(run.c.pipeline == pipeline)
    found: dict[str, list[Came]] = defaultdict(list)
    for row in conn.execute(asked.group_by(run.c.pipeline, run.c.interval_start, run.c.interval_end, quarter)):
        found[row.pipeline].append(Came(_moment(row.at), _interval(row.interval_start, row.interval_end)))
    return dict(found)


def of_events(conn: Connection, since: datetime, event_type: str = "") -> dict[str, list[Came]]:
    """The same of event types that no pipeline gives. An event is as old as the first entry of a run that took it."""
    given = select(run_event.c.event_type).where(run_event.c.direction == "out").distinct()
    quarter = case((run.c.interval_start.is_(None), run.c.recorded_at // _QUARTER))
    at = func.min(run.c.recorded_at).label("at")
    asked = select(run_event.c.event_type, run.c.interval_start, run.c.interval_end, at)
    asked = asked.join(run, run.c.id == run_event.c.run_id)
    asked = asked.where(run_event.c.direction == "in", run.c.epoch == 0, run.c.recorded_at >= _millis(since))
    asked = asked.where(run_event.c.event_type.not_in(given))
    if event_type:
        asked = asked.where(run_event.c.event_type == event_type)
    found: dict[str, list[Came]] = defaultdict(list)
    for row in conn.execute(asked.group_by(run_event.c.event_type, run.c.interval_start, run.c.interval_end, quarter)):
        found[row.event_type].append(Came(_moment(row.at), _interval(row.interval_start, row.interval_end)))
    return dict(found)


def already_expected(conn: Connection) -> Mapping[str, str]:
    """The pipelines and event types of which something is expected now, with the name of the expectation."""
    newest = select(expectation.c.pipeline, expectation.c.event_type, func.max(expectation.c.name).label("name"))
    newest = newest.where(expectation.c.state == "pending").group_by(expectation.c.pipeline, expectation.c.event_type)
    return {row.pipeline or row.event_type: row.name for row in conn.execute(newest)}


def _interval(start: int | None, end: int | None) -> Interval | None:
    return None if start is None or end is None else Interval(_moment(start), _moment(end))


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
