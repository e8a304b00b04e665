"""Every table of a pipeline's database, each with its reason; and the database's clock.

Times are milliseconds since the epoch by the database's own clock: hosts are never compared.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

DAY = 86_400_000  # milliseconds


class Bytes(LargeBinary):
    """Bytes as they are: both drivers take and give them, and wrapping each one costs a tenth of a batch."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> None:
        """None: nothing to do."""

    def result_processor(self, dialect: Any, coltype: Any) -> None:
        """None: nothing to do."""


metadata = MetaData()


def _number(name: str, default: str | None = "0", *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null, server_default=default)


def _text(name: str, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=default)


def _bytes(name: str, *, null: bool = False) -> Column[bytes]:
    return Column(name, Bytes, nullable=null)


def _table(name: str, columns: list[Column[Any]], key: tuple[str, ...], *indexes: Index, **options: Any) -> Table:
    return Table(name, metadata, *columns, PrimaryKeyConstraint(*key, name=f"{name}_pkey"), *indexes, **options)


# How far each partition is settled, and who may say so. Below `next_offset` nothing needs a row.
position = _table(
    "position",
    [
        _text("pipeline"),
        Column("epoch", Integer, nullable=False),
        _text("topic_id"),
        Column("partition", Integer, nullable=False),
        _text("topic"),
        _number("next_offset", None, null=True),
        _number("ledger_offset"),
        _number("fence"),
        Column("owner", Text),
        _number("lease_until"),
        # owners in a row that did not end in order at the same offset, and the record the last was careful about
        Column("crashes", Integer, nullable=False, server_default="0"),
        _number("crashed_at", None, null=True),
        _number("suspect", None, null=True),
        _number("cut", None, null=True),  # where the log ended when it was found shorter than what was settled
        Column("suspected", Integer, nullable=False, server_default="0"),  # deaths with this very record in hand
    ],
    ("pipeline", "epoch", "topic_id", "partition"),
)

# What is processed again on purpose, range by range; its position has a row of its own under the epoch.
replay_range = _table(
    "replay_range",
    [
        _text("pipeline"),
        Column("epoch", Integer, nullable=False),
        _text("topic_id"),
        Column("partition", Integer, nullable=False),
        _text("topic"),
        _number("start_off", None),
        _number("end_off", None),
        _text("command"),
        _number("opened_at"),
    ],
    ("pipeline", "epoch", "topic_id", "partition"),
)

# Orders to process events again, as they stand on the control topic; each has an epoch, and its ranges there.
replay_order = _table(
    "replay_order",
    [
        _text("pipeline"),
        _text("id"),
        Column("epoch", Integer, nullable=False),
        _text("state"),
        _text("detail"),
        _number("changed_at"),
        _number("heard_at"),
    ],
    ("pipeline", "id"),
)

# Keys that are not finished: the one place where two owners of one key meet, hence the lock.
inbox_open = _table(
    "inbox_open",
    [
        _text("pipeline"),
        Column("epoch", Integer, nullable=False),
        _bytes("key"),
        _text("run_id"),
        _bytes("okey"),
        _text("state"),
        Column("life", Integer, nullable=False),
        _number("fence"),
        Column("attempt", Integer, nullable=False, server_default="0"),
        _bytes("digest"),
        _text("topic_id"),
        Column("partition", Integer, nullable=False),
        _number("off", None),
        _number("due", None, null=True),
        _number("claimed_at"),
        _text("detail", ""),
    ],
    ("pipeline", "epoch", "key"),
)
_HELD = inbox_open.c.state.in_(("parked", "dead-hold"))
Index("inbox_open_held", inbox_open.c.pipeline, inbox_open.c.okey, sqlite_where=_HELD, postgresql_where=_HELD)

# Keys that are finished. A partition a day on PostgreSQL, so that forgetting is dropping. The day comes
# last in the key: nobody who looks a key up knows its day.
dedup = _table(
    "dedup",
    [
        Column("bucket", Integer, nullable=False),  # days since the epoch
        _text("pipeline"),
        Column("epoch", Integer, nullable=False),
        _bytes("key"),
        _text("run_id"),
        _text("outcome"),
        Column("life", SmallInteger, nullable=False),
        _bytes("digest"),
        _number("settled_at"),
    ],
    ("pipeline", "epoch", "key", "bucket"),
    postgresql_partition_by="LIST (bucket)",
)

# Records that SQL decided and Kafka has yet to publish, byte for byte.
outbox = _table(
    "outbox",
    [
        _text("pipeline"),
        _text("run_id"),
        Column("ordinal", Integer, nullable=False),
        _text("topic"),
        _bytes("record_key", null=True),
        _bytes("headers"),
        _bytes("value", null=True),
        _number("created_at"),
    ],
    ("pipeline", "run_id", "ordinal"),
)

# What a step gave, so that it is not asked again; `started` is the doubt of an effect outside.
checkpoint = _table(
    "checkpoint",
    [
        _text("pipeline"),
        _text("run_id"),
        _text("step"),
        _text("branch", ""),
        _text("state"),
        _bytes("result", null=True),
        _number("fence"),
        Column("attempt", Integer, nullable=False, server_default="0"),
        _number("updated_at"),
    ],
    ("pipeline", "run_id", "step", "branch"),
)

# Who works at a detached step, by the database's clock: whoever holds the highest token, until its time is over.
lease = _table(
    "lease",
    [
        _text("pipeline"),
        _text("run_id"),
        _text("step"),
        _number("token"),
        _text("owner", ""),
        _number("until"),
    ],
    ("pipeline", "run_id", "step"),
)

# One row per join key that is under way: the lock under which a set becomes complete, once.
join_set = _table(
    "join_set",
    [
        _text("pipeline"),
        Column("epoch", Integer, nullable=False),
        _bytes("join_key"),
        _text("state"),
        _text("run_id", ""),
        _text("topic_id", ""),
        Column("partition", Integer, nullable=False, server_default="-1"),
        _number("off", "-1"),
        _number("fence"),
        _number("due", None),
    ],
    ("pipeline", "epoch", "join_key"),
)

# Events that wait for others, whole: their offsets have been committed.
join_member = _table(
    "join_member",
    [
        _text("pipeline"),
        Column("epoch", Integer, nullable=False),
        _bytes("key"),
        _bytes("join_key"),
        _text("signal"),
        Column("seq", Integer, nullable=False),
        _text("topic"),
        _text("topic_id"),
        Column("partition", Integer, nullable=False),
        _number("off", None),
        _number("timestamp", "-1"),
        _bytes("record_key", null=True),
        _bytes("headers"),
        _bytes("value", null=True),
        _bytes("digest"),
        _number("arrived_at"),
        Column("told", SmallInteger, nullable=False, server_default="0"),  # its `waiting` entry is committed
    ],
    ("pipeline", "epoch", "key"),
    Index("join_member_set", "pipeline", "epoch", "join_key"),
)

# Each topic under each UUID that a pipeline has known. One that is not here was made anew, and a person must say so.
known_topic = _table(
    "known_topic",
    [
        _text("pipeline"),
        _text("topic_id"),
        _text("topic"),
        Column("since_applies", Integer, nullable=False),  # to partitions below it; the others begin at their beginning
        Column("partitions", Integer, nullable=False),  # at first sight: with more, keys have moved
        Column("announced", Integer, nullable=False),  # the number that was last told in the ledger
        _number("seen_at"),
    ],
    ("pipeline", "topic_id"),
)

# What a pipeline depends on, by name, and whether it is down: one row that all instances share and change in turn.
breaker = _table(
    "breaker",
    [
        _text("pipeline"),
        _text("name"),
        _text("state"),
        Column("failures", Integer, nullable=False, server_default="0"),
        _number("opened_at"),
        _number("until"),
        Column("probes", Integer, nullable=False, server_default="0"),
        _text("probe_owner", ""),
        _number("probe_lease"),
        _text("error", ""),
    ],
    ("pipeline", "name"),
)

# Partitions that their dead-letter guard has stopped, by which version: a newer one tries again.
guard = _table(
    "guard",
    [
        _text("pipeline"),
        Column("epoch", Integer, nullable=False),
        _text("topic_id"),
        Column("partition", Integer, nullable=False),
        _text("version"),
        _text("why"),
        _number("stopped_at"),
    ],
    ("pipeline", "epoch", "topic_id", "partition"),
)

# Which tables these are. Where the row is gone or another one, they were dropped, and what is not in them says nothing.
incarnation = _table(
    "incarnation",
    [
        _text("pipeline"),
        _text("id"),
        Column("complete", Integer, nullable=False, server_default="0"),  # all that was settled stands in them
        _number("ledger_offset"),  # as the ledger told it, up to here
        _number("made_at"),
    ],
    ("pipeline",),
)

# SQLite only: the machine whose file this is. Its locks hold between processes, not between hosts.
host = _table("host", [_text("pipeline"), _text("machine"), _text("boot"), _number("since")], ("pipeline",))


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, in milliseconds since the epoch, at the start of the statement."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _now_sqlite(_element: now_ms, _compiler: SQLCompiler, **_: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(now_ms, "postgresql")
def _now_postgresql(_element: now_ms, _compiler: SQLCompiler, **_: Any) -> str:
    return "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"
