"""Gaps: records that are lost to a pipeline, known by their range. While one is open, the pipeline is incomplete."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Row, select

from farandole.clock import iso_of
from farandole.control import Command
from farandole.errors import FarandoleError
from farandole.ledger.entry import GAP, GAP_CLOSED, Entry
from farandole.ledger.queries import Answer, moment
from farandole.ledger.tables import fact


def gaps(conn: Connection, pipeline: str = "", *, closed: bool = False) -> list[Answer]:
    """The open gaps of a pipeline, or of all; with `closed` those too that somebody has marked as known."""
    asked = select(fact).where(fact.c.fact.in_((GAP, GAP_CLOSED))).order_by(fact.c.recorded_at, fact.c.id)
    if pipeline:
        asked = asked.where(fact.c.pipeline == pipeline)
    rows = list(conn.execute(asked))
    marks = dict(_marks(rows))
    found = [_gap(row, marks.get(_name(row))) for row in rows if row.fact == GAP]
    return [gap for gap in found if closed or gap["state"] == "open"]


def gap_named(conn: Connection, prefix: str) -> Answer:
    """The one gap whose id begins so. Raises FarandoleError where none does, or more than one."""
    found = [gap for gap in gaps(conn, closed=True) if gap["id"].startswith(prefix)]
    exact = [gap for gap in found if gap["id"] == prefix] or found
    if len(exact) == 1:
        return exact[0]
    if not exact:
        raise FarandoleError(
            f"no gap {prefix!r} in the projection", place="gaps", hint="farandole gaps list --all shows all"
        )
    raise FarandoleError(
        f"more than one gap begins with {prefix!r}: {', '.join(gap['id'] for gap in exact[:5])}",
        place="gaps",
        hint="give more of the id",
    )


def closed(gap: Answer, command: Command) -> Entry:
    """The fact that a person knows of a gap: from here on its pipeline is complete again, but for others."""
    detail = {"gap": gap["id"], "actor": command.actor, "reason": command.reason, "at": iso_of(command.at)}
    name = gap["id"].replace(":", f":{GAP_CLOSED}:", 1)
    return Entry(
        "fact", gap["pipeline"], f"fact:{name}", state="fact", fact=GAP_CLOSED, detail=detail,
        started_at=command.at, ended_at=command.at,
    )  # fmt: skip


def _name(row: Row[Any]) -> str:
    """The id of a gap: that of its fact, without what all have in common."""
    return str(row.id).removeprefix("fact:").replace(f":{GAP}:", ":", 1)


def _marks(rows: list[Row[Any]]) -> Iterator[tuple[str, Mapping[str, str]]]:
    for row in rows:
        if row.fact == GAP_CLOSED:
            detail = json.loads(row.detail)
            yield detail.get("gap", ""), detail


def _gap(row: Row[Any], mark: Mapping[str, str] | None) -> Answer:
    detail = json.loads(row.detail)
    start, end = int(detail["from"]), int(detail["to"]) if detail["to"].isdigit() else None
    return {
        "id": _name(row),
        "pipeline": row.pipeline,
        "state": "open" if mark is None else "closed",
        "topic": detail.get("topic", ""),
        "topic_id": detail.get("topic_id", ""),
        "partition": int(detail.get("partition", "-1")),
        "from": start,
        "to": end,
        "records_at_most": None if end is None else end - start,  # markers of transactions take offsets too
        "recorded_at": moment(row.recorded_at),
        "actor": None if mark is None else mark.get("actor"),
        "reason": None if mark is None else mark.get("reason"),
    }
