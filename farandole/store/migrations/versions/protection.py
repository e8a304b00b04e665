"""What holds a pipeline back: the breakers of what it depends on, and the partitions that its guard has stopped."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

integer, number, text = sa.Integer(), sa.BigInteger(), sa.Text()


def _column(name: str, kind: Any, default: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default=default)


def upgrade() -> None:
    op.create_table(
        "breaker",
        _column("pipeline", text),
        _column("name", text),
        _column("state", text),
        _column("failures", integer, "0"),
        _column("opened_at", number, "0"),
        _column("until", number, "0"),
        _column("probes", integer, "0"),
        _column("probe_owner", text, ""),
        _column("probe_lease", number, "0"),
        _column("error", text, ""),
        sa.PrimaryKeyConstraint("pipeline", "name", name="breaker_pkey"),
    )
    op.create_table(
        "guard",
        _column("pipeline", text),
        _column("topic_id", text),
        _column("partition", integer),
        _column("version", text),
        _column("why", text),
        _column("stopped_at", number, "0"),
        sa.PrimaryKeyConstraint("pipeline", "topic_id", "partition", name="guard_pkey"),
    )
