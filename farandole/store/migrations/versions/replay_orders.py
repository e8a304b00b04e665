"""Orders to process events again. Nothing was ordered before."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "replay_order",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("heard_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("pipeline", "id", name="replay_order_pkey"),
    )
