"""The topics that a pipeline has known, by UUID: a name alone does not say that a topic is the one it was."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import and_, select, update

from farandole.store.engine import Database
from farandole.store.tables import known_topic, now_ms


class KnownTopic(NamedTuple):
    """A topic under one UUID. `since` applies to the partitions below `since_applies`; the others are read whole.

    `partitions` is how many there were at first sight, `announced` the number that the ledger was last told.
    """

    topic_id: str
    since_applies: int
    partitions: int
    announced: int


class KnownTopics:
    """What the instances of one pipeline know of its topics, together."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline

    def of(self, topic: str) -> list[KnownTopic]:
        """Every UUID under which a topic was known, the oldest first."""
        row = known_topic.c
        asked = select(row.topic_id, row.since_applies, row.partitions, row.announced)
        mine = and_(row.pipeline == self._pipeline, row.topic == topic)
        with self._database.reading() as conn:
            return [KnownTopic(*found) for found in conn.execute(asked.where(mine).order_by(row.seen_at, row.topic_id))]

    def learn(self, topic: str, known: KnownTopic) -> None:
        """Know a topic from now on; of two instances that learn it at once the first one's word stands."""
        with self._database.writing() as conn:
            row = self._database.fresh(known_topic)
            conn.execute(row.values(pipeline=self._pipeline, topic=topic, seen_at=now_ms(), **known._asdict()))

    def announce(self, topic_id: str, partitions: int) -> None:
        """Remember that the ledger was told of so many partitions."""
        mine = and_(known_topic.c.pipeline == self._pipeline, known_topic.c.topic_id == topic_id)
        with self._database.writing() as conn:
            conn.execute(update(known_topic).where(mine).values(announced=partitions))
