"""The dedup table by days: PostgreSQL keeps a partition for each, so that forgetting is dropping, not deleting."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, exists, literal_column, or_, select, text

from farandole.store.engine import Database
from farandole.store.tables import DAY, dedup, now_ms

_LOCK = 0x64656475  # the advisory lock under which partitions are made and dropped
_BATCH = 1000  # rows that SQLite deletes in one transaction
_ROW_NUMBER: ColumnElement[int] = literal_column("rowid")
_PARTITIONS = """
SELECT part.relname, inherits.inhdetachpending
  FROM pg_class AS part
  JOIN pg_class AS parent ON parent.oid = 'dedup'::regclass AND parent.relnamespace = part.relnamespace
  LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = part.oid AND inherits.inhparent = parent.oid
 WHERE part.relname ~ '^dedup_[0-9]+$'
"""


class Buckets:
    """The days of the dedup table."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline
        self._there: set[int] = set()

    def forget(self) -> None:
        """These may be other tables now: no partition counts as made."""
        self._there.clear()

    def day(self, conn: Connection) -> int:
        """Today by the database's clock, in days since the epoch."""
        return int(conn.scalar(select(now_ms())) or 0) // DAY

    def current(self, conn: Connection) -> int:
        """Today's bucket; its partition, and tomorrow's, stand ready."""
        day = self.day(conn)
        if self._database.postgresql and day not in self._there:
            self._create(day)
            self._create(day + 1)
        return day

    def _create(self, bucket: int) -> None:
        # made aside and then attached: CREATE … PARTITION OF would stop every reader and writer meanwhile
        name = f"dedup_{bucket}"
        with self._database.writing() as conn:
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            if not conn.scalar(text("SELECT to_regclass(:name)"), {"name": name}):
                conn.execute(text(f"CREATE TABLE {name} (LIKE dedup INCLUDING ALL)"))
                conn.execute(text(f"ALTER TABLE dedup ATTACH PARTITION {name} FOR VALUES IN ({bucket})"))
        self._there.add(bucket)

    def drop(self, older_than: int) -> int:
        """Forget this pipeline's days before `older_than`; the number of days or rows that went."""
        return self._drop_partitions(older_than) if self._database.postgresql else self._drop_rows(older_than)

    def _drop_rows(self, older_than: int) -> int:
        gone = 0
        # oldest first by row number, so that no index on the day is needed
        oldest = select(dedup.c.bucket, _ROW_NUMBER).order_by(_ROW_NUMBER).limit(_BATCH)
        while True:
            with self._database.writing() as conn:
                mine = dedup.c.pipeline == self._pipeline
                rows = [row.rowid for row in conn.execute(oldest.where(mine)) if row.bucket < older_than]
                if rows:
                    conn.execute(delete(dedup).where(_ROW_NUMBER.in_(rows)))
            gone += len(rows)
            if len(rows) < _BATCH:
                return gone

    def _drop_partitions(self, older_than: int) -> int:
        gone = 0
        with self._database.reading() as conn:
            found = [(int(row.relname[6:]), row.inhdetachpending) for row in conn.execute(text(_PARTITIONS))]
        for bucket, pending in sorted(found):
            if bucket < older_than and not self._shared(bucket):
                # None: somebody died between the two statements; True: in the middle of the first
                how = {None: "", True: "FINALIZE", False: "CONCURRENTLY"}[pending]
                self._drop_partition(f"dedup_{bucket}", how)
                self._there.discard(bucket)
                gone += 1
        return gone

    def _shared(self, bucket: int) -> bool:
        """Whether another pipeline still remembers something of this day; then only our own rows go."""
        other = or_(dedup.c.pipeline < self._pipeline, dedup.c.pipeline > self._pipeline)
        with self._database.writing() as conn:
            shared = bool(conn.scalar(select(exists().where(dedup.c.bucket == bucket, other))))
            if shared:
                mine = dedup.c.pipeline == self._pipeline
                conn.execute(delete(dedup).where(dedup.c.bucket == bucket, mine))
        return shared

    def _drop_partition(self, name: str, how: str) -> None:
        autocommit = self._database.engine.execution_options(isolation_level="AUTOCOMMIT")
        with self._database.told(), autocommit.connect() as conn:
            if how:
                conn.execute(text(f"ALTER TABLE dedup DETACH PARTITION {name} {how}"))
            conn.execute(text(f"DROP TABLE IF EXISTS {name}"))
