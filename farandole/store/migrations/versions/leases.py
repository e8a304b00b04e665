"""Who works at a detached step."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("owner", sa.Text(), nullable=False, server_default=""),
        sa.Column("until", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("pipeline", "run_id", "step", name="lease_pkey"),
    )
