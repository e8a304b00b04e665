"""What sweeps leave: the newest of each pipeline as the ledger tells it, and what a reconciler keeps between two.

The reconciler's own tables are a saving and nothing more: dropped, the next sweep reads the whole ledger and comes to
the same answer.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
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

VERSION = 2
"""Of what is kept; what another version has kept is dropped."""

metadata = MetaData()
sweep_version = Table("sweep_version", metadata, Column("version", Integer, primary_key=True))
sweep_position = Table(
    "sweep_position",
    metadata,
    Column("pipeline", String, primary_key=True),
    Column("ledger_id", String, nullable=False),  # a recreated ledger is another ledger
    Column("next_offset", BigInteger, nullable=False),
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
    """What is known of one pipeline: up to where which ledger was read, and each partition's coverage as a record."""

    ledger_id: str
    next_offset: int
    coverage: Mapping[tuple[str, int], dict[str, Any]]


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
        asked = select(sweep_position.c.ledger_id, sweep_position.c.next_offset)
        position = conn.execute(asked.where(sweep_position.c.pipeline == pipeline)).first()
        rows = conn.execute(select(row.topic_id, row.partition, row.covered).where(row.pipeline == pipeline))
        coverage = {(r.topic_id, r.partition): msgspec.msgpack.decode(zlib.decompress(r.covered)) for r in rows}
    if position is None:
        return Kept("", 0, {})
    return Kept(position.ledger_id, position.next_offset, coverage)


def save(database: Database, pipeline: str, kept: Kept) -> None:
    """Keep it for the next sweep, all in one transaction. Of two at once either word is right."""
    with database.writing() as conn:
        for table in (sweep_position, sweep_coverage):
            conn.execute(delete(table).where(table.c.pipeline == pipeline))
        conn.execute(
            insert(sweep_position).values(pipeline=pipeline, ledger_id=kept.ledger_id, next_offset=kept.next_offset)
        )
        rows = [
            {
                "pipeline": pipeline,
                "topic_id": topic_id,
                "partition": partition,
                "covered": zlib.compress(msgspec.msgpack.encode(told), 1),
            }
            for (topic_id, partition), told in kept.coverage.items()
        ]
        if rows:
            conn.execute(insert(sweep_coverage), rows)


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
