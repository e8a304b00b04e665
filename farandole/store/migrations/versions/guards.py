"""A guard stops a partition in one epoch: what a replay stops is not stopped in live work. Nothing was kept before."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_table("guard")
    op.create_table(
        "guard",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("topic_id", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("stopped_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("pipeline", "epoch", "topic_id", "partition", name="guard_pkey"),
    )
