"""Where a fact came from and what it led to: events and runs, both ways along the edges of the projection."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, select

from farandole.errors import FarandoleError
from farandole.ledger.queries import moment, run_ids
from farandole.ledger.tables import run, run_event

MOST = 2000
"""A lineage stops growing at so many nodes and says that it did."""

_AT_ONCE = 400


class Key(NamedTuple):
    """What a node is: an event or a run, by its id."""

    kind: Literal["event", "run"]
    id: str


class Edge(NamedTuple):
    """`effect` came of `cause`. `how`: took (a run an event), gave (a run an event), story (the same correlation)."""

    cause: Key
    effect: Key
    how: str


@dataclass(slots=True)
class Lineage:
    """A graph around its root. `nodes` holds what is known of each, `cut` says that there is more than :data:`MOST`."""

    root: Key
    nodes: dict[Key, dict[str, Any]] = field(default_factory=dict)
    edges: dict[Edge, None] = field(default_factory=dict)
    cut: bool = False

    def causes(self, key: Key) -> list[Key]:
        """What this came of, directly."""
        return [edge.cause for edge in self.edges if edge.effect == key]

    def effects(self, key: Key) -> list[Key]:
        """What came of this, directly."""
        return [edge.effect for edge in self.edges if edge.cause == key]


def lineage(conn: Connection, identity: str, *, up: bool = True, down: bool = True) -> Lineage:
    """The lineage of an event id or a run id; the beginning of one is enough if only one begins so.

    Raises FarandoleError for an id that the projection does not know, or knows more than once.
    """
    found = Lineage(_root(conn, identity))
    if up:
        _walk(conn, found, upward=True)
    if down:
        _walk(conn, found, upward=False)
    _describe(conn, found)
    return found


def _root(conn: Connection, identity: str) -> Key:
    if conn.scalar(select(run_event.c.event_id).where(run_event.c.event_id == identity).limit(1)):
        return Key("event", identity)
    of_runs = run_ids(conn, identity)
    if of_runs == [identity]:
        return Key("run", identity)
    beginning = run_event.c.event_id.startswith(identity, autoescape=True)
    of_events = list(conn.scalars(select(run_event.c.event_id).where(beginning).distinct().limit(10)))
    keys = [*(Key("run", i) for i in of_runs), *(Key("event", i) for i in of_events)]
    if len(keys) == 1:
        return keys[0]
    if keys:
        raise FarandoleError(
            f"more than one id begins with {identity!r}: {', '.join(f'{k.kind} {k.id}' for k in keys[:5])}",
            place="lineage",
            hint="give more of the id",
        )
    raise FarandoleError(
        f"no run took or gave {identity!r}, as far as the projection knows",
        place="lineage",
        hint="an event that every pipeline filtered leaves no run; the projection may be behind: "
        "`farandole run projector`",
    )


def _walk(conn: Connection, found: Lineage, *, upward: bool) -> None:
    seen = {found.root}
    border = [found.root]
    while border:
        events = [key.id for key in border if key.kind == "event"]
        runs = [key.id for key in border if key.kind == "run"]
        edges = [*(_above(conn, events, runs) if upward else _below(conn, events, runs))]
        border = []
        for edge in edges:
            key = edge.cause if upward else edge.effect
            if key not in seen:
                if len(seen) >= MOST:
                    found.cut = True
                    continue
                seen.add(key)
                border.append(key)
            found.edges[edge] = None


def _above(conn: Connection, events: Sequence[str], runs: Sequence[str]) -> Iterator[Edge]:
    given = set()
    for row in _edges(conn, run_event.c.event_id, events, "out"):
        given.add(row.event_id)
        yield Edge(Key("run", row.run_id), Key("event", row.event_id), "gave")
    for row in _edges(conn, run_event.c.event_id, [e for e in events if e not in given], "in"):
        if row.correlation_id and row.correlation_id != row.event_id:
            yield Edge(Key("event", row.correlation_id), Key("event", row.event_id), "story")
    for row in _edges(conn, run_event.c.run_id, runs, "in"):
        yield Edge(Key("event", row.event_id), Key("run", row.run_id), "took")


def _below(conn: Connection, events: Sequence[str], runs: Sequence[str]) -> Iterator[Edge]:
    for row in _edges(conn, run_event.c.event_id, events, "in"):
        yield Edge(Key("event", row.event_id), Key("run", row.run_id), "took")
    for row in _edges(conn, run_event.c.run_id, runs, "out"):
        yield Edge(Key("run", row.run_id), Key("event", row.event_id), "gave")


def _edges(conn: Connection, column: Any, ids: Sequence[str], direction: str) -> Iterator[Row[Any]]:
    real = select(run_event).join(run, run.c.id == run_event.c.run_id).where(run.c.state != "joined")
    for at in range(0, len(ids), _AT_ONCE):
        some = real.where(column.in_(ids[at : at + _AT_ONCE]), run_event.c.direction == direction)
        yield from conn.execute(some.order_by(run_event.c.run_id, run_event.c.ordinal))


def _describe(conn: Connection, found: Lineage) -> None:
    keys = dict.fromkeys([found.root, *(key for edge in found.edges for key in (edge.cause, edge.effect))])
    found.nodes = {key: {"kind": key.kind, "id": key.id} for key in keys}
    for row in _rows(conn, run, run.c.id, [key.id for key in keys if key.kind == "run"]):
        found.nodes[Key("run", row.id)] |= {
            "pipeline": row.pipeline,
            "state": row.state,
            "epoch": row.epoch,
            "started_at": moment(row.started_at),
            "ended_at": moment(row.ended_at),
            "error": row.error_class,
        }
    for row in _rows(conn, run_event, run_event.c.event_id, [key.id for key in keys if key.kind == "event"]):
        node = found.nodes[Key("event", row.event_id)]
        node |= {"type": row.event_type, "topic": row.topic}
        if row.off is not None:  # who took the event knows where it stands; who gave it does not
            node |= {"source": row.event_source, "partition": row.partition, "offset": row.off}


def _rows(conn: Connection, table: Any, column: Any, ids: Collection[str]) -> Iterator[Row[Any]]:
    wanted = list(ids)
    for at in range(0, len(wanted), _AT_ONCE):
        yield from conn.execute(select(table).where(column.in_(wanted[at : at + _AT_ONCE])))
