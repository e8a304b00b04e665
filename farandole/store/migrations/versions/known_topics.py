"""The topics that a pipeline has known, by UUID."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

integer, number, text = sa.Integer(), sa.BigInteger(), sa.Text()


def _column(name: str, kind: Any, default: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default=default)


def upgrade() -> None:
    op.create_table(
        "known_topic",
        _column("pipeline", text),
        _column("topic_id", text),
        _column("topic", text),
        _column("since_applies", integer),
        _column("partitions", integer),
        _column("announced", integer),
        _column("seen_at", number, "0"),
        sa.PrimaryKeyConstraint("pipeline", "topic_id", name="known_topic_pkey"),
    )
