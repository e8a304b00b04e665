"""From the ledger topic to tables that people query. Its offsets move in the same SQL transaction.

A view of the ledger and nothing more: dropped, it is read anew from the beginning to the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from farandole.errors import TablesLost
from farandole.ledger.entry import FINAL, Entry, Moment, outranks, rank
from farandole.ledger.tables import by_entry, by_run, fact, ledger_position, range_count, run, run_event, run_step

Row = dict[str, Any]

_AT_ONCE = 400  # ids in one IN list: below every database's limit


class Line(NamedTuple):
    """An entry and where it stands. No entry is a tombstone: what is known of `id` is forgotten."""

    partition: int
    offset: int
    entry: Entry | None
    id: str = ""
    recorded_at: int = 0  # milliseconds since 1970, the broker's time


@dataclass(slots=True)
class Projected:
    """What a batch did: lines taken, lines that were known already, lines of a lower rank than what is final."""

    taken: int = 0
    known: int = 0
    refused: int = 0


def positions(conn: Connection) -> dict[int, tuple[int, str]]:
    """The next offset of each ledger partition, and the UUID of the topic that it counts in."""
    rows = conn.execute(select(ledger_position.c.partition, ledger_position.c.next_offset, ledger_position.c.topic_id))
    return {row.partition: (row.next_offset, row.topic_id) for row in rows}


def project(
    conn: Connection,
    lines: Sequence[Line],
    *,
    read_to: Mapping[int, int] | None = None,
    topic_id: str = "",
    checked_at: Mapping[int, int] | None = None,
    expected: Mapping[int, int] | None = None,
) -> Projected:
    """Take a batch of lines, in the order of their offsets, inside the caller's transaction.

    `read_to` says up to where each partition was read, transaction markers included; the lines alone
    cannot. `checked_at` says up to when (milliseconds since 1970) a partition is known to be complete.
    Lines below the stored position are known already: a repeated batch changes nothing. `expected` is where
    the caller believes each partition to stand. Raises TablesLost where one stands before that: somebody dropped
    the projection, and what was read before is not in it any more.
    """
    ends = {p: o for line in lines for p, o in [(line.partition, line.offset + 1)]} | dict(read_to or {})
    stood = _lock(conn, sorted(ends), topic_id)
    if any(stood[p] < at for p, at in (expected or {}).items() if p in stood):
        raise TablesLost(
            "the projection was dropped meanwhile", place="projection", hint="nothing to do: it is read anew"
        )
    fresh = [line for line in lines if line.offset >= stood[line.partition]]
    book = _Book(_standing(conn, {line.entry.id for line in fresh if line.entry and line.entry.kind == "run"}))
    for line in fresh:
        book.take(line)
    book.write(conn)
    checked = {line.partition: line.recorded_at for line in fresh} | dict(checked_at or {})
    for partition, end in ends.items():
        moved: Row = {"next_offset": max(end, stood[partition])}
        if partition in checked:
            moved["checked_at"] = checked[partition]
        conn.execute(update(ledger_position).where(ledger_position.c.partition == partition).values(moved))
    return Projected(len(fresh), len(lines) - len(fresh), book.refused)


def _lock(conn: Connection, partitions: Sequence[int], topic_id: str) -> dict[int, int]:
    """Position rows, locked until the transaction ends: of two projectors the second finds the lines known."""
    if not partitions:
        return {}
    new = [{"partition": p, "next_offset": 0, "topic_id": topic_id, "checked_at": 0} for p in partitions]
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    conn.execute(dialect.insert(ledger_position).on_conflict_do_nothing(), new)
    wanted = select(ledger_position.c.partition, ledger_position.c.next_offset)
    wanted = wanted.where(ledger_position.c.partition.in_(partitions)).order_by(ledger_position.c.partition)
    return {row.partition: row.next_offset for row in conn.execute(wanted.with_for_update())}


def _standing(conn: Connection, ids: set[str]) -> dict[str, tuple[int, str]]:
    found = {}
    for some in _portions(sorted(ids)):
        rows = conn.execute(select(run.c.id, run.c.life, run.c.state).where(run.c.id.in_(some)))
        found.update({row.id: (row.life, row.state) for row in rows})
    return found


@dataclass(slots=True)
class _Book:
    """What a batch comes to, before any of it is written: the last word per id."""

    standing: dict[str, tuple[int, str]]
    runs: dict[str, Line] = field(default_factory=dict)
    others: dict[str, Line] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    refused: int = 0

    def take(self, line: Line) -> None:
        entry = line.entry
        if entry is None:
            self.gone.add(line.id)
            for known in (self.standing, self.runs, self.others):
                known.pop(line.id, None)
            return
        if entry.kind != "run":
            self.others[entry.id] = line
            return
        before = self.standing.get(entry.id)
        if before is not None and not outranks((entry.life, entry.state), before):
            if rank(before[1]) >= FINAL:
                self.refuse(line, entry, before)
            return
        self.standing[entry.id] = (entry.life, entry.state)
        self.runs[entry.id] = line

    def refuse(self, line: Line, entry: Entry, before: tuple[int, str]) -> None:
        self.refused += 1
        said = Entry(
            "fact",
            entry.pipeline,
            f"lower-rank:{line.partition}/{line.offset}",
            epoch=entry.epoch,
            fact="ledger.lower-rank",
            detail={
                "run": entry.id,
                "stands": f"{before[1]}, life {before[0]}",
                "refused": f"{entry.state}, life {entry.life}",
                "instance": entry.instance,
                "at": f"{line.partition}/{line.offset}",
            },
        )
        self.others[said.id] = line._replace(entry=said)

    def write(self, conn: Connection) -> None:
        for tables, ids in ((by_run, self.gone | set(self.runs)), (by_entry, self.gone | set(self.others))):
            for some in _portions(sorted(ids)):
                for table, column in tables.items():
                    _forget(conn, table, column, some)
        runs = [(line, line.entry) for line in self.runs.values() if line.entry]
        others = [(line, line.entry) for line in self.others.values() if line.entry]
        for table, rows in (
            (run, [_run(line, entry) for line, entry in runs]),
            (run_step, [row for _, entry in runs for row in _steps(entry)]),
            (run_event, [row for _, entry in runs for row in _edges(entry)]),
            (range_count, [row for line, entry in others for row in _counts(line, entry)]),
            (fact, [_fact(line, entry) for line, entry in others if entry.kind == "fact"]),
        ):
            if rows:
                conn.execute(insert(table), rows)


def _forget(conn: Connection, table: Table, column: Column[str], ids: Sequence[str]) -> None:
    conn.execute(delete(table).where(column.in_(ids)))


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE))


def _run(line: Line, entry: Entry) -> Row:
    error = entry.error or {}
    return {
        "id": entry.id,
        "pipeline": entry.pipeline,
        "epoch": entry.epoch,
        "state": entry.state,
        "life": entry.life,
        "okey": entry.okey,
        "parameters": _json(entry.parameters),
        "interval_start": entry.interval and _milliseconds(entry.interval.start),
        "interval_end": entry.interval and _milliseconds(entry.interval.end),
        "error_class": error.get("class"),
        "error_message": error.get("message"),
        "error_fingerprint": error.get("fingerprint"),
        "error_stage": error.get("stage"),
        "error_step": error.get("step"),
        "version": entry.version,
        "instance": entry.instance,
        "fence": entry.fence,
        "started_at": _milliseconds(entry.started_at),
        "ended_at": _milliseconds(entry.ended_at),
        "correlation_id": entry.correlation_id,
        "causation_id": entry.causation_id,
        "traceparent": entry.traceparent,
        "join_key": entry.join_key,
        "attempt": entry.attempt,
        "due": _milliseconds(entry.due),
        "detail": _json(entry.detail),
        "recorded_at": line.recorded_at,
        "ledger_partition": line.partition,
        "ledger_offset": line.offset,
    }


def _steps(entry: Entry) -> Iterator[Row]:
    for ordinal, step in enumerate(entry.steps):
        yield {
            "run_id": entry.id,
            "ordinal": ordinal,
            "name": step["name"],
            "state": step["state"],
            "attempts": step["attempts"],
            "started_at": _milliseconds(step["started_at"]),
            "ended_at": _milliseconds(step["ended_at"]),
            "error": step["error"],
            "reused": step["reused"],
            "version": step["version"],
        }


def _edges(entry: Entry) -> Iterator[Row]:
    for ordinal, origin in enumerate(entry.triggers):
        yield {
            "run_id": entry.id,
            "direction": "in",
            "ordinal": ordinal,
            "event_id": origin["event_id"],
            "event_source": origin["event_source"],
            "event_type": origin["event_type"],
            "topic": origin["topic"],
            "topic_id": origin["topic_id"],
            "partition": origin["partition"],
            "off": origin["offset"],
            "signal": origin["signal"],
            "digest": origin["digest"],
            "derived": origin["derived"],
            "correlation_id": entry.correlation_id,
        }
    for ordinal, emitted in enumerate(entry.outputs):
        yield {
            "run_id": entry.id,
            "direction": "out",
            "ordinal": ordinal,
            "event_id": emitted["id"],
            "event_source": "",
            "event_type": emitted["type"],
            "topic": emitted["topic"],
            "topic_id": "",
            "partition": None,
            "off": None,
            "signal": "",
            "digest": emitted["digest"],
            "derived": False,
            "correlation_id": entry.correlation_id,
        }


def _counts(line: Line, entry: Entry) -> Iterator[Row]:
    span = entry.span
    if span is None:
        return
    counted: Iterable[tuple[str, str, int]] = (
        *(("filtered", reason, len(offsets)) for reason, offsets in span["filtered"].items()),
        *((("duplicate", "", len(span["duplicates"])),) if span["duplicates"] else ()),
    )
    for outcome, reason, events in counted:
        yield {
            "id": entry.id,
            "outcome": outcome,
            "reason": reason,
            "pipeline": entry.pipeline,
            "epoch": entry.epoch,
            "topic": span["topic"],
            "topic_id": span["topic_id"],
            "partition": span["partition"],
            "start_off": span["start"],
            "end_off": span["end"],
            "events": events,
            "recorded_at": line.recorded_at,
        }


def _fact(line: Line, entry: Entry) -> Row:
    return {
        "id": entry.id,
        "fact": entry.fact or "",
        "pipeline": entry.pipeline,
        "epoch": entry.epoch,
        "detail": _json(entry.detail),
        "recorded_at": line.recorded_at,
    }


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _milliseconds(moment: Moment) -> int | None:
    return round(moment.timestamp() * 1000) if isinstance(moment, datetime) else moment
