"""Which tables these are, and whether all that was settled stands in them: those that are in use are whole."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "incarnation",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("complete", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("ledger_offset", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("made_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("pipeline", name="incarnation_pkey"),
    )
    op.execute("INSERT INTO incarnation (pipeline, id, complete) SELECT DISTINCT pipeline, 'upgraded', 1 FROM position")
