"""Kafka's place on a stage: topics are lists, a transaction is an append. Decides nothing, as the real doors do.

What stands here has the shape of `kafka/source.py`, `kafka/sink.py` and `kafka/reader.py`, as far as the
loop uses them; the loop itself is the real one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from farandole.clock import Clock
from farandole.event import RawRecord, Record
from farandole.kafka.admin import Topic
from farandole.kafka.codec import Codec
from farandole.kafka.registry import ParsedSchema
from farandole.kafka.sink import Commit

Key = tuple[str, int]


@dataclass(slots=True)
class Log:
    """Every topic with one partition, the committed offsets of one group, and all that was produced, in order."""

    clock: Clock
    topics: dict[str, list[RawRecord]] = field(default_factory=dict)
    committed: dict[Key, tuple[int, str]] = field(default_factory=dict)
    produced: list[RawRecord] = field(default_factory=list)
    transactions: int = 0

    def append(self, record: Record) -> RawRecord:
        """Put a record at the end of its topic."""
        there = self.topics.setdefault(record.topic, [])
        raw = RawRecord(
            record.topic, f"stage-{record.topic}", 0, len(there), self.clock.millis(), record.key, record.value,
            list(record.headers),
        )  # fmt: skip
        there.append(raw)
        return raw


class ListSource:
    """A consumer that owns partition 0 of every topic it reads."""

    def __init__(self, log: Log, topics: Sequence[str]) -> None:
        self._log = log
        self._next: dict[Key, int] = {(topic, 0): 0 for topic in topics}
        self._held: set[Key] = set(self._next)
        self.topic_ids = {topic: f"stage-{topic}" for topic in topics}
        self.lost_offsets: set[Key] = set()  # nothing is ever lost here

    @property
    def partitions(self) -> list[Key]:
        """All that is assigned."""
        return list(self._next)

    def unread(self) -> bool:
        """Whether a partition that flows has more."""
        return any(at < len(self._topic(key)) for key, at in self._next.items() if key not in self._held)

    def poll(self, at_most: int, _timeout: float) -> list[RawRecord]:
        """The next records of the partitions that flow."""
        batch: list[RawRecord] = []
        for key, at in self._next.items():
            if key not in self._held:
                some = self._topic(key)[at : at + at_most - len(batch)]
                batch += some
                self._next[key] = at + len(some)
        return batch

    def _topic(self, key: Key) -> list[RawRecord]:
        return self._log.topics.get(key[0], [])

    def hold(self, partitions: Sequence[Key]) -> None:
        """Pause."""
        self._held.update(partitions)

    def held(self, partition: Key) -> bool:
        """Whether it is paused."""
        return partition in self._held

    def release(self, partitions: Sequence[Key]) -> None:
        """Resume."""
        self._held.difference_update(partitions)

    def place(self, partition: Key, offset: int) -> bool:
        """Go on from `offset`."""
        self._next[partition] = offset
        self._held.discard(partition)
        return True

    def described(self, topics: Collection[str]) -> dict[str, Topic]:
        """Topics as the brokers describe them."""
        return {name: Topic(name, self.topic_ids[name], 1, 1) for name in topics}

    def committed(self, partitions: Sequence[Key], _: float = 10) -> dict[Key, tuple[int, str]]:
        """Committed offset and metadata; a negative offset is none."""
        return {key: self._log.committed.get(key, (-1001, "")) for key in partitions}

    def watermarks(self, partition: Key) -> tuple[int, int]:
        """First offset and end."""
        return 0, len(self._topic(partition))

    def end_seen(self, partition: Key) -> int:
        """The end."""
        return len(self._topic(partition))

    def positions(self, partitions: Sequence[Key]) -> dict[Key, int]:
        """The next offset of each."""
        return {key: self._next[key] for key in partitions}

    def membership(self) -> None:
        """A stage has no group."""


class ListSession:
    """A transactional producer; a transaction is all there at once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.ledger_offset = -1

    def open(self) -> None:
        """Nobody is fenced on a stage."""

    def publish(self, records: Sequence[Record], offset: Commit, _membership: None, ledger: str) -> None:
        """All records and the consumed offset."""
        for record in records:
            raw = self._log.append(record)
            self._log.produced.append(raw)
            if raw.topic == ledger:
                self.ledger_offset = raw.offset
        self._log.committed[(offset.topic, offset.partition)] = (offset.offset, offset.metadata)
        self._log.transactions += 1

    def quiet(self) -> None:
        """Nothing is heard on a stage."""

    def drop(self) -> None:
        """Nothing to close."""


class ListReader:
    """A reader of one topic, as takeover uses it."""

    def __init__(self, log: Log, topic: str) -> None:
        self._records = log.topics.get(topic, [])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def undecided_ends(self) -> dict[int, int]:
        """As `ends`: nothing is ever undecided here."""
        return self.ends()

    def ends(self) -> dict[int, int]:
        """The end of the only partition."""
        return {0: len(self._records)}

    def read(self, start: Mapping[int, int], until: Mapping[int, int]) -> Iterator[list[RawRecord]]:
        """The records from `start` to before `until`."""
        yield self._records[start[0] : until[0]]


class StageCodec:
    """The real codec for event types that have a schema; any other record is kept as it is, under its text.

    `writers` are the schemas of foreign bytes, by the id or the GUID that these carry.
    """

    def __init__(
        self, schemas: Mapping[str, Mapping[str, Any]], writers: Mapping[int | str, Mapping[str, Any]] | None = None
    ) -> None:
        self._codec = Codec(_Schemas(schemas, writers or {}), schemas)  # type: ignore[arg-type]  # three questions only
        self._known = frozenset(schemas)
        self._plain: dict[bytes, dict[str, Any]] = {}

    def encode(self, event_type: str, record: dict[str, Any]) -> bytes:
        """The bytes of a record. Raises Unencodable where it does not fit its schema."""
        if event_type in self._known:
            return self._codec.encode(event_type, record)
        told = f"{event_type} {record!r}".encode()
        self._plain[told] = record
        return told

    def decode(self, event_type: str, value: bytes | None, headers: Any = None) -> dict[str, Any] | None:
        """The record again. Raises Undecodable."""
        if value in self._plain:
            return self._plain[value]
        return self._codec.decode(event_type, value, headers)


class _Schemas:
    """A registry in which every schema stands under its place in the list, and foreign ones under their own ids."""

    url = "stage"
    _OWN = 1 << 30  # no registry has come so far: the ids of letters keep their meaning

    def __init__(
        self, schemas: Mapping[str, Mapping[str, Any]], writers: Mapping[int | str, Mapping[str, Any]]
    ) -> None:
        own = enumerate(schemas.values(), self._OWN)
        self._places = {f"{name}-value": at for at, name in enumerate(schemas, self._OWN)}
        self._schemas: dict[int | str, Mapping[str, Any]] = {**writers, **dict(own)}

    def lookup(self, subject: str, _schema: Any) -> int:
        return self._places[subject]

    def schema(self, schema_id: int) -> ParsedSchema:
        return self._found(schema_id)

    def schema_by_guid(self, guid: str) -> ParsedSchema:
        return self._found(guid)

    def _found(self, name: int | str) -> ParsedSchema:
        from farandole.kafka.registry import UnreadableSchema

        if name not in self._schemas:
            raise UnreadableSchema(f"there is no schema {name} on this stage")
        return ParsedSchema(name if isinstance(name, int) else -1, "", dict(self._schemas[name]))
