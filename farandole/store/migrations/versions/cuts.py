"""Where the log of a partition ended when it was found shorter than what was settled."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("position", sa.Column("cut", sa.BigInteger(), nullable=True))
