"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

integer, number, text, raw = sa.Integer(), sa.BigInteger(), sa.Text(), sa.LargeBinary()


def _column(name: str, kind: Any, default: str | None = None, *, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null, server_default=default)


def upgrade() -> None:
    _inbox()
    _results()
    _joins()


def _inbox() -> None:
    op.create_table(
        "position",
        _column("pipeline", text),
        _column("epoch", integer),
        _column("topic_id", text),
        _column("partition", integer),
        _column("topic", text),
        _column("next_offset", number, null=True),
        _column("ledger_offset", number, "0"),
        _column("fence", number, "0"),
        _column("owner", text, null=True),
        _column("lease_until", number, "0"),
        _column("crashes", integer, "0"),
        _column("crashed_at", number, null=True),
        _column("suspect", number, null=True),
        _column("suspected", integer, "0"),
        sa.PrimaryKeyConstraint("pipeline", "epoch", "topic_id", "partition", name="position_pkey"),
    )
    op.create_table(
        "inbox_open",
        _column("pipeline", text),
        _column("epoch", integer),
        _column("key", raw),
        _column("run_id", text),
        _column("okey", raw),
        _column("state", text),
        _column("life", integer),
        _column("fence", number, "0"),
        _column("attempt", integer, "0"),
        _column("digest", raw),
        _column("topic_id", text),
        _column("partition", integer),
        _column("off", number),
        _column("due", number, null=True),
        _column("claimed_at", number, "0"),
        _column("detail", text, ""),
        sa.PrimaryKeyConstraint("pipeline", "epoch", "key", name="inbox_open_pkey"),
    )
    held = sa.text("state IN ('parked', 'dead-hold')")
    op.create_index("inbox_open_held", "inbox_open", ["pipeline", "okey"], sqlite_where=held, postgresql_where=held)
    op.create_table(
        "dedup",
        _column("bucket", integer),
        _column("pipeline", text),
        _column("epoch", integer),
        _column("key", raw),
        _column("run_id", text),
        _column("outcome", text),
        _column("life", sa.SmallInteger()),
        _column("digest", raw),
        _column("settled_at", number, "0"),
        sa.PrimaryKeyConstraint("pipeline", "epoch", "key", "bucket", name="dedup_pkey"),
        postgresql_partition_by="LIST (bucket)",
    )


def _results() -> None:
    op.create_table(
        "outbox",
        _column("pipeline", text),
        _column("run_id", text),
        _column("ordinal", integer),
        _column("topic", text),
        _column("record_key", raw, null=True),
        _column("headers", raw),
        _column("value", raw, null=True),
        _column("created_at", number, "0"),
        sa.PrimaryKeyConstraint("pipeline", "run_id", "ordinal", name="outbox_pkey"),
    )
    op.create_table(
        "checkpoint",
        _column("pipeline", text),
        _column("run_id", text),
        _column("step", text),
        _column("branch", text, ""),
        _column("state", text),
        _column("result", raw, null=True),
        _column("fence", number, "0"),
        _column("attempt", integer, "0"),
        _column("updated_at", number, "0"),
        sa.PrimaryKeyConstraint("pipeline", "run_id", "step", "branch", name="checkpoint_pkey"),
    )
    op.create_table(
        "host",
        _column("pipeline", text),
        _column("machine", text),
        _column("boot", text),
        _column("since", number, "0"),
        sa.PrimaryKeyConstraint("pipeline", name="host_pkey"),
    )


def _joins() -> None:
    op.create_table(
        "join_set",
        _column("pipeline", text),
        _column("epoch", integer),
        _column("join_key", raw),
        _column("state", text),
        _column("run_id", text, ""),
        _column("topic_id", text, ""),
        _column("partition", integer, "-1"),
        _column("off", number, "-1"),
        _column("fence", number, "0"),
        _column("due", number),
        sa.PrimaryKeyConstraint("pipeline", "epoch", "join_key", name="join_set_pkey"),
    )
    op.create_table(
        "join_member",
        _column("pipeline", text),
        _column("epoch", integer),
        _column("key", raw),
        _column("join_key", raw),
        _column("signal", text),
        _column("seq", integer),
        _column("topic", text),
        _column("topic_id", text),
        _column("partition", integer),
        _column("off", number),
        _column("timestamp", number, "-1"),
        _column("record_key", raw, null=True),
        _column("headers", raw),
        _column("value", raw, null=True),
        _column("digest", raw),
        _column("arrived_at", number, "0"),
        sa.PrimaryKeyConstraint("pipeline", "epoch", "key", name="join_member_pkey"),
    )
    op.create_index("join_member_set", "join_member", ["pipeline", "epoch", "join_key"])
