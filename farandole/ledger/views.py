"""The views of the projection that people ask with SQL: what is promised, where the tables below may change.

They are real views, so that any client of the database sees them too. Times are text in RFC 3339 in SQLite and
``timestamptz`` in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, FromClause, event, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from farandole.ledger.tables import expectation, fact, metadata, range_count, run, run_event, run_step


class moment_of(FunctionElement[Any]):  # noqa: N801 - a function of SQL
    """Milliseconds since 1970 as a time."""

    inherit_cache = True
    name = "moment_of"


@compiles(moment_of, "sqlite")
def _in_sqlite(element: Any, compiler: Any, **words: Any) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {compiler.process(element.clauses, **words)} / 1000.0, 'unixepoch')"


@compiles(moment_of, "postgresql")
def _in_postgresql(element: Any, compiler: Any, **words: Any) -> str:
    return f"to_timestamp({compiler.process(element.clauses, **words)} / 1000.0)"


class Shown(NamedTuple):
    """A column of a view: its name, what it holds, where that comes from, and its type as Arrow calls it."""

    name: str
    about: str
    source: ColumnElement[Any]
    kind: str


@dataclass(frozen=True, slots=True)
class View:
    """A view: its name, what a row is, its columns, the table below, and the column that orders its rows."""

    name: str
    about: str
    columns: Sequence[Shown]
    table: FromClause
    order: str


_KINDS: dict[type, str] = {str: "string", int: "int64", bool: "bool_"}


def _at(name: str, about: str, source: Column[Any]) -> Shown:
    return Shown(name, about, moment_of(source), "timestamp")


def _is(about: str, source: Column[Any], name: str = "") -> Shown:
    return Shown(name or source.name, about, source, _KINDS[source.type.python_type])


def _seconds(start: Column[Any], end: Column[Any], about: str, name: str = "seconds") -> Shown:
    return Shown(name, about, (end - start) / 1000.0, "float64")


VIEWS = (
    View(
        "runs",
        "A run of a pipeline, as it stands now.",
        (
            _is("Its id.", run.c.id),
            _is("The pipeline.", run.c.pipeline),
            _is("0 for live work; each replay or backfill has a number of its own.", run.c.epoch),
            _is("`done`, `caught`, `dead`, `parked`, `waiting`, `joined`, `uncertain`, `resolved`, …", run.c.state),
            _is("How often it was redriven.", run.c.life),
            _at("interval_start", "The data that it is about, from here,", run.c.interval_start),
            _at("interval_end", "up to here.", run.c.interval_end),
            _at("started_at", "By the clock of its instance.", run.c.started_at),
            _at("ended_at", "By the same clock.", run.c.ended_at),
            _seconds(run.c.started_at, run.c.ended_at, "How long it took."),
            _is("The class of the error, of a run that failed.", run.c.error_class, "error"),
            _is("Its text.", run.c.error_message, "message"),
            _is("What errors of one cause have in common.", run.c.error_fingerprint, "fingerprint"),
            _is("Where it failed: `decode`, `match`, `join`, `handle`, …", run.c.error_stage, "stage"),
            _is("The step that failed.", run.c.error_step, "step"),
            _is("The version that ran.", run.c.version),
            _is("The instance that ran it.", run.c.instance),
            _is("The next attempt, of a parked run.", run.c.attempt),
            _at("due", "Not before.", run.c.due),
            _is("The story it belongs to.", run.c.correlation_id),
            _is("The event that began it.", run.c.causation_id),
            _is("The set that its events met in.", run.c.join_key),
            _is("More, as JSON.", run.c.detail),
            _at("recorded_at", "When the ledger took this state: the broker's clock.", run.c.recorded_at),
        ),
        run,
        "id",
    ),
    View(
        "steps",
        "A step of a run.",
        (
            _is("Its run.", run_step.c.run_id),
            _is("Its place among the steps.", run_step.c.ordinal),
            _is("Its name.", run_step.c.name),
            _is("How it ended.", run_step.c.state),
            _is("How often it was tried.", run_step.c.attempts),
            _at("started_at", "By the clock of the instance.", run_step.c.started_at),
            _at("ended_at", "By the same clock.", run_step.c.ended_at),
            _seconds(run_step.c.started_at, run_step.c.ended_at, "How long it took."),
            _is("What it failed with.", run_step.c.error),
            _is("Whether its result was kept from an attempt before.", run_step.c.reused),
            _is("The version that gave the result.", run_step.c.version),
        ),
        run_step,
        "run_id, ordinal",
    ),
    View(
        "events",
        "An event that a run took (`in`) or gave (`out`): the edges of lineage.",
        (
            _is("The run.", run_event.c.run_id),
            _is("`in` or `out`.", run_event.c.direction),
            _is("Its place among those.", run_event.c.ordinal),
            _is("The event's id.", run_event.c.event_id),
            _is("Its type.", run_event.c.event_type),
            _is("Who made it, of one that was taken.", run_event.c.event_source, "source"),
            _is("Its topic.", run_event.c.topic),
            _is("Its partition, of one that was taken.", run_event.c.partition),
            _is("Its offset, of one that was taken.", run_event.c.off, "record_offset"),
            _is("The subscription that took it.", run_event.c.signal),
            _is("Whether it brought no id of its own.", run_event.c.derived),
            _is("The story it belongs to.", run_event.c.correlation_id),
        ),
        run_event,
        "run_id, direction, ordinal",
    ),
    View(
        "ranges",
        "Events of a range of offsets that came to no run, counted by reason.",
        (
            _is("The entry of the ledger.", range_count.c.id),
            _is("`filtered` or `duplicate`.", range_count.c.outcome),
            _is("Which criteria refused them.", range_count.c.reason),
            _is("The pipeline.", range_count.c.pipeline),
            _is("0 for live work.", range_count.c.epoch),
            _is("The topic.", range_count.c.topic),
            _is("The partition.", range_count.c.partition),
            _is("From this offset,", range_count.c.start_off, "first_offset"),
            _is("up to this one, which is not in it.", range_count.c.end_off, "end_offset"),
            _is("How many.", range_count.c.events),
            _at("recorded_at", "When the ledger took it.", range_count.c.recorded_at),
        ),
        range_count,
        "id, outcome, reason",
    ),
    View(
        "facts",
        "Something that was out of the ordinary: a gap, a breaker, a replay, a sweep.",
        (
            _is("The entry of the ledger.", fact.c.id),
            _is("What: `data.gap`, `breaker.opened`, …", fact.c.fact),
            _is("The pipeline.", fact.c.pipeline),
            _is("0 for live work.", fact.c.epoch),
            _is("More, as JSON.", fact.c.detail),
            _at("recorded_at", "When the ledger took it.", fact.c.recorded_at),
        ),
        fact,
        "id",
    ),
    View(
        "expectations",
        "A deadline: what must have come by then, and how it stands.",
        (
            _is("Its id.", expectation.c.id),
            _is("The name of what is expected.", expectation.c.name),
            _is("The pipeline that must have run, or", expectation.c.pipeline),
            _is("the type of the event that must have come,", expectation.c.event_type),
            _is("of those that meet this.", expectation.c.criteria),
            _is("The day of the deadline, in its zone.", expectation.c.day),
            _at("deadline", "By when.", expectation.c.deadline),
            _at("alarm_at", "Deadline and grace.", expectation.c.alarm_at),
            _at("interval_start", "About which data, from here,", expectation.c.interval_start),
            _at("interval_end", "up to here.", expectation.c.interval_end),
            _is("`pending`, `met`, `met_late`, `missed` or `waived`.", expectation.c.state),
            _at("arrived_at", "When it was met.", expectation.c.arrived_at),
            _seconds(
                expectation.c.deadline,
                expectation.c.arrived_at,
                "After the deadline; before it, less than 0.",
                "late_seconds",
            ),
            _is("The ids of what met it, as JSON.", expectation.c.proof),
            _is("Who waived it,", expectation.c.actor),
            _is("and why.", expectation.c.reason),
        ),
        expectation,
        "id",
    ),
)  # fmt: skip
"""All views, each with its columns in their order."""


@event.listens_for(metadata, "after_create")
def _create(_target: Any, conn: Connection, **_: Any) -> None:
    for view in VIEWS:
        asked = select(*(one.source.label(one.name) for one in view.columns)).select_from(view.table)
        told = asked.compile(dialect=conn.dialect, compile_kwargs={"literal_binds": True})
        conn.exec_driver_sql(f"CREATE VIEW {view.name} AS {told}")


@event.listens_for(metadata, "before_drop")
def _drop(_target: Any, conn: Connection, **_: Any) -> None:
    for view in VIEWS:
        conn.exec_driver_sql(f"DROP VIEW IF EXISTS {view.name}")
