"""Did last night run: what was expected of a day and how it stands, what is dead, restated, stopped or incomplete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from farandole.ledger.evidence import books
from farandole.ledger.gaps import gaps
from farandole.ledger.queries import Answer, checked_at, moment
from farandole.ledger.sweeps import standing_findings
from farandole.ledger.tables import expectation, expectation_position, fact, run, run_event

BLIND = timedelta(minutes=5)
"""An answer that is older than this is itself a matter for attention."""

_STOPS = (
    *("guard.stopped", "topic.recreated", "topic.deleted", "data.truncated", "ledger.incomplete"),
    *("output.refused", "watcher.silent"),
)
_GOES_ON = ("guard.released", "topic.accepted", "topic.back", "watcher.back")
_CALLED = {"met": "done", "met_late": "done late", "missed": "missing"}
_FINISHED = ("done", "caught")


@dataclass(frozen=True, slots=True)
class Status:
    """How a day stands. `as_of` is up to when all that counts here is known; None: nobody knows yet."""

    day: date
    as_of: datetime | None
    age: timedelta | None
    expected: list[Answer]
    dead: list[Answer]
    restated: list[Answer]
    stopped: list[Answer]
    incomplete: list[Answer]
    findings: list[Answer]
    runs: int
    pipelines: int

    def in_state(self, *states: str) -> list[Answer]:
        """The expectations that stand so."""
        return [one for one in self.expected if one["stands"] in states]

    @property
    def blind(self) -> bool:
        """Whether the answer is too old to be relied upon."""
        return self.age is None or self.age > BLIND

    @property
    def attention(self) -> bool:
        """Whether a person should look."""
        reopened = any(one["reopens"] for one in self.restated)
        broken = self.dead or self.stopped or self.incomplete or any(not one["hint"] for one in self.findings)
        return bool(reopened or self.blind or broken or self.in_state("late", "missing"))

    def record(self) -> Answer:
        """The answer as JSON has it."""
        counted = ("expected", "completed", "late", "missing", "due", "waived", "dead", "restated", "stopped")
        return {
            "schema": "farandole.cli/status/1",
            "day": self.day.isoformat(),
            "as_of": self.as_of,
            "age_seconds": None if self.age is None else round(self.age.total_seconds(), 3),
            "attention": self.attention,
            "counts": dict(zip(counted, self._counts(), strict=True)) | {"incomplete": len(self.incomplete)},
            "runs": self.runs,
            "pipelines": self.pipelines,
            "expected": self.expected,
            "dead": self.dead,
            "restated": self.restated,
            "stopped": self.stopped,
            "incomplete": self.incomplete,
            "findings": self.findings,
        }

    def _counts(self) -> Iterator[int]:
        yield len(self.expected)
        for states in (("done", "done late"), ("late",), ("missing",), ("due",), ("waived",)):
            yield len(self.in_state(*states))
        yield sum(one["letters"] for one in self.dead)
        yield sum(one["runs"] for one in self.restated)
        yield len(self.stopped)


def status(conn: Connection, day: date, now: datetime) -> Status:
    """How a day stands: expectations due on it and those still missed from before, and what happened in it.

    The day of an expectation is its deadline's, in its zone; everything else goes by the day of this machine's zone.
    """
    known = [checked_at(conn), _moment(conn.scalar(select(func.min(expectation_position.c.checked_at))))]
    as_of = min((one for one in known if one is not None), default=None) if known[0] is not None else None
    start = datetime(day.year, day.month, day.day).astimezone()
    within = (_millis(start), _millis(start + timedelta(days=1)))
    ran = conn.execute(
        select(func.count(), func.count(run.c.pipeline.distinct())).where(
            run.c.state.in_(_FINISHED), run.c.recorded_at >= within[0], run.c.recorded_at < within[1]
        )
    ).one()
    return Status(
        day,
        as_of,
        None if as_of is None else now - as_of,
        _expected(conn, day, as_of or now),
        _dead(conn),
        _restated(conn, within),
        list(stopped(conn)),
        gaps(conn),
        standing_findings(conn),
        int(ran[0]),
        int(ran[1]),
    )


def _expected(conn: Connection, day: date, as_of: datetime) -> list[Answer]:
    """Rows of the day, and older ones that are missed still."""
    e = expectation.c
    asked = select(expectation).where(or_(e.day == day.isoformat(), and_(e.state == "missed", e.day < day.isoformat())))
    rows = conn.execute(asked.order_by(e.deadline, e.name))
    return [_shown(row, _millis(as_of)) for row in rows]


def _shown(row: Row[Any], as_of: int) -> Answer:
    interval = (
        None if row.interval_start is None else {"start": moment(row.interval_start), "end": moment(row.interval_end)}
    )
    return {
        "name": row.name,
        "stands": _stands(row, as_of),
        "state": row.state,
        "day": row.day,
        "deadline": moment(row.deadline),
        "alarm_at": moment(row.alarm_at),
        "late_seconds": _late(row, as_of),
        "interval": interval,
        "pipeline": row.pipeline or None,
        "event_type": row.event_type or None,
        "where": row.criteria or None,
        "arrived_at": moment(row.arrived_at),
        "proof": json.loads(row.proof),
        "actor": row.actor or None,
        "reason": row.reason or None,
        "id": row.id,
    }


def _stands(row: Row[Any], as_of: int) -> str:
    """What a person calls it. Where no sentinel has judged, the data say what it would."""
    if row.state == "pending":
        return "missing" if as_of >= row.alarm_at else "late" if as_of > row.deadline else "due"
    return _CALLED.get(row.state, str(row.state))


def _late(row: Row[Any], as_of: int) -> float | None:
    if row.state in ("met", "waived"):
        return None
    past = (row.arrived_at or as_of) - row.deadline
    return past / 1000 if past > 0 else None


def _dead(conn: Connection) -> list[Answer]:
    """Runs that a person has to look at, by pipeline and cause: dead ones, and effects of which nobody knows."""
    newest = func.max(run.c.recorded_at)
    asked = select(
        run.c.pipeline,
        run.c.state,
        run.c.error_fingerprint,
        func.min(run.c.error_class).label("class"),
        func.min(run.c.error_message).label("message"),
        func.count().label("letters"),
        func.min(run.c.recorded_at).label("first"),
        newest.label("last"),
    ).where(run.c.state.in_(("dead", "uncertain")))
    asked = asked.group_by(run.c.pipeline, run.c.state, run.c.error_fingerprint)
    return [
        {
            "pipeline": row.pipeline,
            "state": row.state,
            "letters": row.letters,
            "fingerprint": row.error_fingerprint,
            "error": f"{row._mapping['class']}: {row.message}" if row._mapping["class"] else None,  # noqa: SLF001
            "first": moment(row.first),
            "last": moment(row.last),
        }
        for row in conn.execute(asked.order_by(func.count().desc(), run.c.pipeline))
    ]


def _restated(conn: Connection, within: tuple[int, int]) -> list[Answer]:
    """What ran again that day in a later epoch: replays and backfills."""
    asked = select(
        run.c.pipeline,
        run.c.epoch,
        func.count().label("runs"),
        func.min(run.c.interval_start).label("start"),
        func.max(run.c.interval_end).label("end"),
        func.max(run.c.recorded_at).label("last"),
    ).where(run.c.epoch > 0, run.c.state.in_(_FINISHED), run.c.recorded_at >= within[0], run.c.recorded_at < within[1])
    rows = conn.execute(asked.group_by(run.c.pipeline, run.c.epoch).order_by(run.c.pipeline, run.c.epoch))
    return [
        {
            "pipeline": r.pipeline,
            "epoch": r.epoch,
            "runs": r.runs,
            "from": moment(r.start),
            "to": moment(r.end),
            "reopens": _reopened(conn, r),
        }
        for r in rows
    ]


def _reopened(conn: Connection, row: Row[Any]) -> list[str]:
    """The intervals whose books were closed before it ran again about a part of them."""
    if row.start is None:
        return []
    closed = [(one, one["statement"]["interval"]) for one in books(conn, row.pipeline)]
    return [
        f"{about['start']}/{about['end']}"
        for one, about in closed
        if about["start"] < (moment(row.end) or "")
        and (moment(row.start) or "") < about["end"]
        and one["recorded_at"] < (moment(row.last) or "")
    ]


def stopped(conn: Connection, pipeline: str = "") -> Iterator[Answer]:
    """Partitions that stopped, and of which nothing says that they went on: no fact, and no run from there since."""
    asked = select(fact).where(fact.c.fact.in_((*_STOPS, *_GOES_ON))).order_by(fact.c.recorded_at, fact.c.id)
    if pipeline:
        asked = asked.where(fact.c.pipeline == pipeline)
    standing: dict[tuple[str, str], Row[Any]] = {}
    for row in conn.execute(asked):
        where = (row.pipeline, _place(json.loads(row.detail)))
        if row.fact in _STOPS:
            standing[where] = row
        else:
            standing.pop(where, None)
            for other in [w for w in standing if w[0] == row.pipeline and w[1].startswith(f"{where[1]}[")]:
                del standing[other]  # a fact about a whole topic
    for (who, place), row in standing.items():
        if not _ran_since(conn, who, place, row.recorded_at):
            yield {
                "pipeline": who,
                "at": place,
                "why": row.fact,
                "since": moment(row.recorded_at),
                "detail": json.loads(row.detail),
            }


def _place(detail: dict[str, str]) -> str:
    at = detail.get("at", "")
    if at.endswith("]"):
        return at
    partition = detail.get("partition", "")
    return f"{detail.get('topic', '')}[{partition}]" if partition else detail.get("topic", "")


def _ran_since(conn: Connection, pipeline: str, place: str, since: int) -> bool:
    topic, _, partition = place.rstrip("]").partition("[")
    asked = select(run.c.id).join(run_event, run_event.c.run_id == run.c.id)
    asked = asked.where(run.c.pipeline == pipeline, run.c.state.in_(_FINISHED), run.c.recorded_at > since)
    asked = asked.where(run_event.c.direction == "in", run_event.c.topic == topic)
    if partition.isdigit():
        asked = asked.where(run_event.c.partition == int(partition))
    return conn.execute(asked.limit(1)).first() is not None


def _moment(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
