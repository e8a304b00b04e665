"""A plain look at a topic: assigned, read-committed, without a group; it decides nothing and commits nothing.

Reads the ledger's tail at takeover, the whole ledger for the projection, and topics for the command line.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from farandole.clock import Clock, SystemClock
from farandole.errors import BrokerUnreachable, FarandoleError, SettingsError
from farandole.event import RawRecord
from farandole.kafka.admin import Admin, Topic

Batch = list[RawRecord]

_EOF = KafkaError._PARTITION_EOF
_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
_MOVING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
}
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
}


class TopicReader:
    """All partitions of one topic, read from given offsets. One thread at a time.

    `patience` is how long (seconds) a bounded read waits for the broker without any progress before it
    raises :class:`BrokerUnreachable`; an unbounded read waits for ever.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        client_properties: Mapping[str, Any] | None = None,
        *,
        patience: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self.topic = topic
        self._bootstrap = bootstrap
        self._properties = dict(client_properties or {})
        self._patience = patience
        self._clock = clock or SystemClock()
        self._admin = Admin(bootstrap, client_properties)
        self._pause = threading.Event()
        self._consumer: Consumer | None = None
        self._described: Topic | None = None
        self._refusal: KafkaError | None = None
        self.positions: dict[int, int] = {}
        """Where the read in progress stands, transaction markers included: everything below was yielded."""
        self.at_end: set[int] = set()
        """The partitions of the read in progress whose end was seen after their last record."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe(self) -> Topic:
        """The topic with its UUID and number of partitions; asked once. Raises FarandoleError if it is not there."""
        if self._described is None:
            found = self._admin.topics([self.topic])
            if self.topic not in found:
                raise FarandoleError(
                    f"topic {self.topic} does not exist",
                    place=f"kafka {self._bootstrap}",
                    hint="`farandole topology apply` creates the topics that are declared",
                )
            self._described = found[self.topic]
        return self._described

    def starts(self) -> dict[int, int]:
        """The first offset that each partition still holds."""
        return self._settled(lambda: self._admin.starts(self._all()))

    def ends(self) -> dict[int, int]:
        """The last stable offset of each partition: nothing below it is undecided."""
        return self._settled(lambda: self._admin.ends(self._all(), committed=True))

    def undecided_ends(self) -> dict[int, int]:
        """The end of each partition, records of open transactions included: a read up to here waits for all of them."""
        return self._settled(lambda: self._admin.ends(self._all(), committed=False))

    def offsets_at(self, milliseconds: int) -> dict[int, int]:
        """The first offset of each partition at or after a time (milliseconds since 1970)."""
        return self._settled(lambda: self._admin.offsets_at(self._all(), milliseconds))

    def read(
        self,
        offsets: Mapping[int, int],
        *,
        until: Mapping[int, int] | None = None,
        at_most: int = 1000,
        wait: float = 0.5,
    ) -> Iterator[Batch]:
        """Batches from `offsets` on; with `until` it ends there, otherwise never and gives empty batches when idle.

        Only the named partitions are read. An offset that retention has eaten counts as the first that is
        still there; a partition whose `until` is reached already is left out. Raises FarandoleError for an
        offset beyond the end.
        """
        topic_id = self.describe().topic_id
        starts = self.starts()
        self.positions = {p: max(at, starts.get(p, at)) for p, at in offsets.items()}
        self.at_end = set()
        goal = None if until is None else {p: until.get(p, 0) for p in offsets}
        if self._reached(goal):
            return
        consumer = self._open()
        consumer.assign([TopicPartition(self.topic, p, at) for p, at in self.positions.items() if self._left(p, goal)])
        try:
            heard = self._clock.monotonic()
            while not self._reached(goal):
                first = consumer.poll(wait)  # comes with the first record, where `consume` waits for the last
                messages = [] if first is None else [first, *consumer.consume(at_most - 1, 0)]
                self._admitted()
                batch = [r for m in messages if (r := self._take(m, topic_id, goal)) is not None]
                if messages:
                    heard = self._clock.monotonic()
                elif goal is not None and self._clock.monotonic() - heard > self._patience:
                    self._silent()
                if batch or goal is None:
                    yield batch
        finally:
            consumer.unassign()

    def last(self, count: int, ends: Mapping[int, int] | None = None) -> Batch:
        """The newest `count` records below `ends` (by default the last stable offsets), oldest first."""
        starts, stop = self.starts(), ends or self.ends()
        window = count
        while True:
            offsets = {p: max(starts.get(p, 0), end - window) for p, end in stop.items()}
            found = [record for batch in self.read(offsets, until=stop) for record in batch]
            held = Counter(record.partition for record in found)
            if all(held[p] >= count or at <= starts.get(p, 0) for p, at in offsets.items()):
                found.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
                return found[len(found) - min(count, len(found)) :]
            window *= 4  # markers and aborted records fill offsets too

    def at(self, partition: int, offset: int) -> RawRecord:
        """One record. Raises FarandoleError where none stands at this offset, and says why."""
        starts, ends = self.starts(), self.ends()
        place = f"{self.topic}[{partition}]@{offset}"
        if partition not in ends:
            raise FarandoleError("there is no such partition", place=place, hint=f"the topic has {len(ends)}, from 0")
        if not starts[partition] <= offset < ends[partition]:
            gone = offset < starts[partition]
            raise FarandoleError(
                "the record is gone: retention has passed it" if gone else "nothing stands there yet",
                place=place,
                hint=f"the partition holds offsets {starts[partition]} to {ends[partition] - 1}",
            )
        for batch in self.read({partition: offset}, until={partition: offset + 1}):
            for record in batch:
                return record
        raise FarandoleError(
            "no event stands there: a transaction's marker, an aborted or a compacted record",
            place=place,
            hint="`farandole events tail` shows what stands in the topic",
        )

    def close(self) -> None:
        """Let the connection go."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _all(self) -> list[tuple[str, int]]:
        return [(self.topic, p) for p in range(self.describe().partitions)]

    def _settled(self, ask: Callable[[], Mapping[tuple[str, int], int]]) -> dict[int, int]:
        """What the leaders of all partitions answer; asked again while one of them moves, which passes by itself."""
        since = self._clock.monotonic()
        while True:
            try:
                return {p: at for (_, p), at in ask().items()}
            except FarandoleError as error:
                cause = error.__context__
                if not isinstance(cause, KafkaException) or cause.args[0].code() not in _MOVING:
                    raise
                if self._clock.monotonic() - since > self._patience:
                    self._silent()
                self._pause.wait(0.2)

    def _left(self, partition: int, goal: Mapping[int, int] | None) -> bool:
        return goal is None or self.positions[partition] < goal[partition]

    def _reached(self, goal: Mapping[int, int] | None) -> bool:
        return goal is not None and not any(self._left(p, goal) for p in goal)

    def _open(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    "client.id": "farandole-reader",
                    "log_level": 0,  # what went wrong is told by the error that is raised, once
                    "fetch.wait.max.ms": 100,
                    "queued.max.messages.kbytes": 16384,  # of each partition, ahead of whoever reads
                    **self._properties,
                    "bootstrap.servers": self._bootstrap,
                    "group.id": "farandole-reader",  # the client demands one; it is neither joined nor committed to
                    "max.poll.interval.ms": 300_000,  # a shorter one, meant for the group, would be refused here
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "error",
                    "enable.partition.eof": True,  # tells the position behind transaction markers
                    "allow.auto.create.topics": False,
                    "check.crcs": True,
                    "error_cb": self._heard,
                }
            )
        return self._consumer

    def _take(self, message: Message, topic_id: str, goal: Mapping[int, int] | None) -> RawRecord | None:
        error = message.error()
        partition, offset = message.partition(), message.offset()
        if error is not None and error.code() != _EOF:
            self._note(error, partition)
            return None
        if partition is None or offset is None or partition not in self.positions:
            return None
        if goal is not None and offset >= goal[partition]:  # beyond it records may stand that are not given out
            self.positions[partition] = max(self.positions[partition], goal[partition])
            return None
        if error is not None:
            self.positions[partition] = max(self.positions[partition], offset)
            self.at_end.add(partition)
            return None
        self.at_end.discard(partition)
        self.positions[partition] = offset + 1
        return RawRecord(
            self.topic,
            topic_id,
            partition,
            offset,
            message.timestamp()[1],
            message.key(),
            message.value(),
            list(message.headers() or ()),  # type: ignore[arg-type]  # the client gives bytes
        )

    def _note(self, error: KafkaError, partition: int | None) -> None:
        """What no patience mends is raised; everything else the client retries by itself."""
        if error.code() in _GONE:
            raise FarandoleError(
                f"offset {self.positions.get(partition or 0)} is not there: {error.str()}",
                place=f"{self.topic}[{partition}]",
                hint="retention has passed it, or the topic was created anew",
            )
        self._heard(error)

    def _heard(self, error: KafkaError) -> None:
        if error.code() in _REFUSED or error.fatal():
            self._refusal = error

    def _admitted(self) -> None:
        if self._refusal is not None:
            raise SettingsError(
                f"the brokers refuse to let us read: {self._refusal.str()}",
                place=f"kafka {self._bootstrap}",
                hint="check the KAFKA_… credentials and the right to read this topic",
            )

    def _silent(self) -> NoReturn:
        raise BrokerUnreachable(
            f"no answer from all partitions' leaders for {self._patience:g} s",
            place=f"kafka {self._bootstrap}",
            hint="check KAFKA_BOOTSTRAP_SERVERS, or start the embedded stack with `farandole up`",
        )


def topic_names(bootstrap: str, client_properties: Mapping[str, Any] | None = None, *, prefix: str = "") -> list[str]:
    """The topics that begin so, sorted. Raises BrokerUnreachable."""
    admin = AdminClient({"log_level": 0, **dict(client_properties or {}), "bootstrap.servers": bootstrap})
    try:
        found = admin.list_topics(timeout=15).topics
    except KafkaException as error:
        raise BrokerUnreachable(
            f"no broker answered within 15 s: {error.args[0].str()}",
            place=f"kafka {bootstrap}",
            hint="check KAFKA_BOOTSTRAP_SERVERS, or start the embedded stack with `farandole up`",
        ) from error
    return sorted(name for name in found if name.startswith(prefix))
