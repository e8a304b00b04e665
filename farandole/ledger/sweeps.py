"""What sweeps leave: the newest of each pipeline as the ledger tells it, and what a reconciler keeps between two.

The reconciler's own tables are a saving and nothing more: dropped, the next sweep reads the whole ledger and comes to
the same answer.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
)

from farandole.ledger.queries import Answer, moment
from farandole.ledger.tables import fact
from farandole.store.engine import Database

_DAY = timedelta(days=1)
VERSION = 3
"""Of what is kept; what another version has kept is dropped."""

metadata = MetaData()
sweep_version = Table("sweep_version", metadata, Column("version", Integer, primary_key=True))
sweep_position = Table(
    "sweep_position",
    metadata,
    Column("pipeline", String, primary_key=True),
    Column("ledger_id", String, nullable=False),  # a recreated ledger is another ledger
    Column("next_offset", BigInteger, nullable=False),
    Column("known", LargeBinary, nullable=False),
)
sweep_coverage = Table(
    "sweep_coverage",
    metadata,
    Column("pipeline", String, primary_key=True),
    Column("topic_id", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("covered", LargeBinary, nullable=False),
)
stock_position = Table(
    "stock_position",
    metadata,
    Column("service", String),
    Column("topic_id", String, nullable=False),  # a recreated topic is another topic
    Column("partition", Integer),
    Column("next_offset", BigInteger, nullable=False),
    PrimaryKeyConstraint("service", "partition", name="stock_position_pkey"),
)
stock_told = Table(
    "stock_told",
    metadata,
    Column("service", String),
    Column("event_id", String),
    PrimaryKeyConstraint("service", "event_id", name="stock_told_pkey"),
)
stock_seen = Table(
    "stock_seen",
    metadata,
    Column("service", String),
    Column("uri", String),
    Column("size", BigInteger, nullable=False),
    Column("stamp", String, nullable=False),
    PrimaryKeyConstraint("service", "uri", name="stock_seen_pkey"),
)


class Kept(NamedTuple):
    """What is known of one pipeline: up to where which ledger was read, and each partition's coverage as a record.

    `known` is what findings are made of.
    """

    ledger_id: str
    next_offset: int
    coverage: Mapping[tuple[str, int], dict[str, Any]]
    known: Mapping[str, Any]


def open_sweeps(url: str, service: str) -> Database:
    """The reconciler's database, with its tables. Raises SettingsError, DatabaseUnreachable."""
    database = Database(url, service)
    try:
        with database.writing() as conn:
            made = inspect(conn).has_table(sweep_version.name)
            if not made or conn.scalar(select(sweep_version.c.version)) != VERSION:
                metadata.drop_all(conn)
                metadata.create_all(conn)
                conn.execute(insert(sweep_version).values(version=VERSION))
    except BaseException:
        database.close()
        raise
    database.opening = False
    return database


def load(database: Database, pipeline: str) -> Kept:
    """What an earlier sweep has kept; nothing at all for a pipeline that was never swept."""
    row = sweep_coverage.c
    with database.reading() as conn:
        position = conn.execute(select(sweep_position).where(sweep_position.c.pipeline == pipeline)).first()
        rows = conn.execute(select(row.topic_id, row.partition, row.covered).where(row.pipeline == pipeline))
        coverage = {(r.topic_id, r.partition): _unpacked(r.covered) for r in rows}
    if position is None:
        return Kept("", 0, {}, {})
    return Kept(position.ledger_id, position.next_offset, coverage, _unpacked(position.known))


def save(database: Database, pipeline: str, kept: Kept) -> None:
    """Keep it for the next sweep, all in one transaction. Of two at once either word is right."""
    with database.writing() as conn:
        for table in (sweep_position, sweep_coverage):
            conn.execute(delete(table).where(table.c.pipeline == pipeline))
        position = {"ledger_id": kept.ledger_id, "next_offset": kept.next_offset, "known": _packed(kept.known)}
        conn.execute(insert(sweep_position).values(pipeline=pipeline, **position))
        rows = [
            {"pipeline": pipeline, "topic_id": topic_id, "partition": partition, "covered": _packed(told)}
            for (topic_id, partition), told in kept.coverage.items()
        ]
        if rows:
            conn.execute(insert(sweep_coverage), rows)


def _packed(told: Any) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(told), 1)


def _unpacked(kept: bytes) -> Any:
    return msgspec.msgpack.decode(zlib.decompress(kept))


def forget(database: Database) -> None:
    """Drop everything; the next sweep reads the ledger from its beginning."""
    with database.writing() as conn:
        metadata.drop_all(conn)
        metadata.create_all(conn)
        conn.execute(insert(sweep_version).values(version=VERSION))


def last_sweep(conn: Connection, pipeline: str = "") -> list[Answer]:
    """The newest sweep of a pipeline, or of each, from the projection: when it ended and what it found."""
    asked = select(fact.c.detail, fact.c.recorded_at).where(fact.c.fact == "sweep.done")
    newest: dict[str, Answer] = {}
    for row in conn.execute(asked.order_by(fact.c.recorded_at)):
        detail = json.loads(row.detail)
        if pipeline in ("", detail["pipeline"]):
            newest[detail["pipeline"]] = {"at": moment(row.recorded_at), **detail}
    return list(newest.values())


def standing_findings(conn: Connection) -> list[Answer]:
    """What the newest sweep of each pipeline found, by the projection; those that need nobody come last.

    A pipeline that was last swept a day before the others is swept no more, and says nothing.
    """
    sweeps = last_sweep(conn)
    since = max((sweep["at"] for sweep in sweeps), default="")
    found = [
        {"pipeline": sweep["pipeline"], **one, "at": sweep["at"]}
        for sweep in sweeps
        if datetime.fromisoformat(since) - datetime.fromisoformat(sweep["at"]) < _DAY
        for one in json.loads(sweep.get("findings") or "[]")
    ]
    return sorted(found, key=lambda one: bool(one["hint"]))
