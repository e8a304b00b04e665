"""What people ask of the projection: which runs, how one went, what a fact led to and where it came from."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from farandole.clock import iso_of
from farandole.errors import FarandoleError
from farandole.ledger.tables import fact, ledger_position, range_count, run, run_event, run_step

Answer = dict[str, Any]

_AT_ONCE = 400  # ids in one IN list: below every database's limit


def runs(
    conn: Connection,
    *,
    pipeline: str = "",
    states: Collection[str] = (),
    since: datetime | None = None,
    limit: int = 50,
) -> list[Answer]:
    """The newest runs first; `since` is when the ledger recorded them, by the broker's clock.

    A member that waited in a join and found its run (``joined``) is shown only if it is asked for.
    """
    asked: list[ColumnElement[bool]] = []
    if pipeline:
        asked.append(run.c.pipeline == pipeline)
    asked.append(run.c.state.in_(sorted(states)) if states else run.c.state != "joined")
    if since is not None:
        asked.append(run.c.recorded_at >= round(since.timestamp() * 1000))
    order = (run.c.recorded_at.desc(), run.c.ledger_partition, run.c.ledger_offset.desc())
    newest = select(run).where(*asked).order_by(*order).limit(limit)
    return [_run(row) for row in conn.execute(newest)]


def run_ids(conn: Connection, prefix: str, limit: int = 10) -> list[str]:
    """The ids of runs that begin so; one if it is the whole id of a run."""
    if conn.scalar(select(run.c.id).where(run.c.id == prefix)):
        return [prefix]
    beginning = select(run.c.id).where(run.c.id.startswith(prefix, autoescape=True)).order_by(run.c.id).limit(limit)
    return list(conn.scalars(beginning))


def run_shown(conn: Connection, prefix: str) -> Answer:
    """One run, whole: its steps, the events that it came from, the events that it emitted.

    Raises FarandoleError where no run, or more than one, begins so.
    """
    found = run_ids(conn, prefix)
    if len(found) != 1:
        raise _unclear(prefix, found)
    row = conn.execute(select(run).where(run.c.id == found[0])).one()
    steps = conn.execute(select(run_step).where(run_step.c.run_id == row.id).order_by(run_step.c.ordinal))
    edges = list(conn.execute(select(run_event).where(run_event.c.run_id == row.id).order_by(run_event.c.ordinal)))
    return {
        **_run(row),
        "parameters": json.loads(row.parameters),
        "instance": row.instance,
        "fence": row.fence,
        "correlation_id": row.correlation_id,
        "causation_id": row.causation_id,
        "traceparent": row.traceparent,
        "join_key": row.join_key,
        "error_detail": _error(row),
        "steps": [_step(step) for step in steps],
        "triggers": [_edge(edge) for edge in edges if edge.direction == "in"],
        "outputs": [_edge(edge) for edge in edges if edge.direction == "out"],
        "ledger": f"{row.ledger_partition}:{row.ledger_offset}",
    }


def counts(conn: Connection, pipeline: str = "") -> list[Answer]:
    """Per pipeline and epoch: runs by state, and the events that came to no run by reason."""
    of_runs = select(run.c.pipeline, run.c.epoch, run.c.state.label("what"), func.count().label("number"))
    of_runs = of_runs.group_by(run.c.pipeline, run.c.epoch, run.c.state)
    of_ranges = select(
        range_count.c.pipeline,
        range_count.c.epoch,
        range_count.c.outcome.label("what"),
        range_count.c.reason,
        func.sum(range_count.c.events).label("number"),
    ).group_by(range_count.c.pipeline, range_count.c.epoch, range_count.c.outcome, range_count.c.reason)
    if pipeline:
        of_runs, of_ranges = (
            of_runs.where(run.c.pipeline == pipeline),
            of_ranges.where(range_count.c.pipeline == pipeline),
        )
    found = [{**row._mapping, "reason": ""} for row in conn.execute(of_runs)]  # noqa: SLF001  (its public name)
    found += [{**row._mapping, "number": int(row.number)} for row in conn.execute(of_ranges)]  # noqa: SLF001
    return sorted(found, key=lambda row: (row["pipeline"], row["epoch"], row["what"], row["reason"]))


def facts(conn: Connection, name: str = "", limit: int = 50) -> list[Answer]:
    """The newest facts about pipelines and the ledger itself, such as ``ledger.lower-rank``."""
    asked = select(fact).order_by(fact.c.recorded_at.desc(), fact.c.id).limit(limit)
    if name:
        asked = asked.where(fact.c.fact == name)
    return [
        {
            "fact": row.fact,
            "pipeline": row.pipeline,
            "epoch": row.epoch,
            "recorded_at": moment(row.recorded_at),
            "detail": json.loads(row.detail),
        }
        for row in conn.execute(asked)
    ]


def position_of(conn: Connection, topic: str, event_id: str) -> tuple[int, int] | None:
    """Partition and offset of an event that some run took from this topic; None for one that none took."""
    asked = select(run_event.c.partition, run_event.c.off).where(
        run_event.c.event_id == event_id, run_event.c.topic == topic, run_event.c.off.is_not(None)
    )
    found = conn.execute(asked.order_by(run_event.c.partition, run_event.c.off).limit(1)).first()
    return None if found is None else (found.partition, found.off)


def states(conn: Connection, ids: Collection[str]) -> dict[str, tuple[int, str]]:
    """Life and state of each of these runs that is known."""
    wanted, found = sorted(set(ids)), {}
    for at in range(0, len(wanted), _AT_ONCE):
        asked = select(run.c.id, run.c.life, run.c.state).where(run.c.id.in_(wanted[at : at + _AT_ONCE]))
        found.update({row.id: (row.life, row.state) for row in conn.execute(asked)})
    return found


def checked_at(conn: Connection) -> datetime | None:
    """Up to when the projection is known to be complete; None before the projector has finished its first look."""
    least = conn.scalar(select(func.min(ledger_position.c.checked_at)))
    return datetime.fromtimestamp(least / 1000, UTC) if least else None


def moment(milliseconds: int | None) -> str | None:
    """RFC 3339 of a stored time."""
    return None if milliseconds is None else iso_of(milliseconds)


def _run(row: Row[Any]) -> Answer:
    lasted = None if row.started_at is None or row.ended_at is None else (row.ended_at - row.started_at) / 1000
    return {
        "id": row.id,
        "pipeline": row.pipeline,
        "state": row.state,
        "epoch": row.epoch,
        "life": row.life,
        "interval": _interval(row),
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
        "seconds": lasted,
        "error": f"{row.error_class}: {row.error_message}" if row.error_class else None,
        "version": row.version,
        "attempt": row.attempt or None,
        "due": moment(row.due),
        "detail": json.loads(row.detail),
        "recorded_at": moment(row.recorded_at),
    }


def _interval(row: Row[Any]) -> Mapping[str, str | None] | None:
    if row.interval_start is None:
        return None
    return {"start": moment(row.interval_start), "end": moment(row.interval_end)}


def _error(row: Row[Any]) -> Answer | None:
    if row.error_class is None:
        return None
    return {
        "class": row.error_class,
        "message": row.error_message,
        "fingerprint": row.error_fingerprint,
        "stage": row.error_stage,
        "step": row.error_step,
    }


def _step(row: Row[Any]) -> Answer:
    lasted = None if row.started_at is None or row.ended_at is None else (row.ended_at - row.started_at) / 1000
    return {
        "name": row.name,
        "state": row.state,
        "attempts": row.attempts,
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
        "seconds": lasted,
        "reused": row.reused,
        "version": row.version or None,
        "error": row.error,
    }


def _edge(row: Row[Any]) -> Answer:
    shown: Answer = {"id": row.event_id, "type": row.event_type, "topic": row.topic, "digest": row.digest.hex()}
    if row.direction == "in":
        shown |= {
            "signal": row.signal,
            "source": row.event_source,
            "topic_id": row.topic_id,
            "partition": row.partition,
            "offset": row.off,
            "derived": row.derived,
        }
    return shown


def _unclear(prefix: str, found: Sequence[str]) -> FarandoleError:
    if not found:
        return FarandoleError(
            f"no run {prefix!r} in the projection",
            place="runs",
            hint="`farandole runs list` shows the newest; the projection may be behind: `farandole run projector`",
        )
    return FarandoleError(
        f"more than one run begins with {prefix!r}: {_few(found)}", place="runs", hint="give more of the id"
    )


def _few(ids: Iterable[str]) -> str:
    return ", ".join(list(ids)[:5])
