"""Whether the ledger says of a member of a join that it waits: only then may its set be run.

Of those that are there nothing is noted: a position behind them tells the same.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("join_member", sa.Column("told", sa.SmallInteger(), nullable=False, server_default="0"))
