"""Alembic's door: runs the migrations on the connection that `migrate` hands over."""

from alembic import context

from farandole.store.migrate import VERSION_TABLE
from farandole.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
