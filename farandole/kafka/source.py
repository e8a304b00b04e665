"""Poll, pause, resume, position. Decides nothing.

librdkafka keeps an application's pause when a partition is lost and regained, so the set of paused
partitions is kept here and stated anew on every assignment. A partition is assigned paused; the worker
places it at the offset that the takeover found. Placing is unassign and assign again: a `seek` right
after an assignment under KIP-848 is lost now and then, and after a `resume` the client sleeps for up to a second
before it fetches.

No partition is ever assigned at "the end" or "the beginning": where the answer to such a question comes when the
partition is long placed, librdkafka (2.16) takes it for outdated and asks once more, and then goes on from there,
behind records that it never handed out. So it is paused first, and assigned at an offset from which nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from farandole.errors import BrokerUnreachable, SettingsError
from farandole.event import RawRecord

Key = tuple[str, int]
"""A topic's name and a partition."""

NOWHERE = 0
"""Where a partition stands that is not placed yet: an offset for which the client asks no broker."""

_OFFSET_LOST = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET}
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}


class Source:
    """The consumer of one instance of a pipeline. Everything here runs on the polling thread."""

    def __init__(self, group: str, topics: Sequence[str], properties: Mapping[str, Any], protocol: str) -> None:
        settings: dict[str, Any] = {
            "queued.max.messages.kbytes": 16384,
            **properties,
            "group.id": group,
            "group.protocol": protocol,
            "client.id": f"{group}-source",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "check.crcs": True,
            "allow.auto.create.topics": False,
            "error_cb": self._on_error,
            "log_level": 2,  # what matters comes by error_cb, as one of our own lines
        }
        if protocol == "classic":
            settings["partition.assignment.strategy"] = "cooperative-sticky"
        else:  # each topic over all members: "uniform" counts over all topics, and may give one member every input
            settings["group.remote.assignor"] = "range"
        self._made = group, topics, properties, protocol
        self._consumer = Consumer(settings)
        self._topics = list(topics)
        self._held: set[Key] = set()
        self.trouble: KafkaError | None = None
        self.lost_offsets: set[Key] = set()
        self.topic_ids: dict[str, str] = {}
        self.polls = 0
        """How often it was polled: what the watchdog looks at."""

    def subscribe(
        self,
        assigned: Callable[[list[Key]], None],
        revoked: Callable[[list[Key]], None],
        lost: Callable[[list[Key]], None],
    ) -> None:
        """Join the group. The three are called on the polling thread, inside :meth:`poll` and :meth:`close`."""

        def on_assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            consumer.position(partitions)  # asks nobody, and from here on the client knows them: others it cannot pause
            consumer.pause(partitions)
            for partition in partitions:
                partition.offset = NOWHERE
            consumer.incremental_assign(partitions)
            self._held |= _keys(partitions)
            assigned(sorted(_keys(partitions)))

        def gone(tell: Callable[[list[Key]], None]) -> Callable[[Consumer, list[TopicPartition]], None]:
            def on_gone(consumer: Consumer, partitions: list[TopicPartition]) -> None:
                tell(sorted(_keys(partitions)))
                self._held -= _keys(partitions)
                consumer.incremental_unassign(partitions)

            return on_gone

        self._consumer.subscribe(self._topics, on_assign=on_assign, on_revoke=gone(revoked), on_lost=gone(lost))

    def poll(self, at_most: int, timeout: float) -> list[RawRecord]:
        """The next records, as soon as there is one; an empty list after `timeout` seconds.

        Raises SettingsError when the brokers refuse us.
        """
        self.polls += 1
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        messages = [first]
        if at_most > 1:
            messages += self._consumer.consume(at_most - 1, 0)
        return [self._record(m) for m in messages if m.error() is None or self._note(m)]

    def _record(self, message: Any) -> RawRecord:
        topic: str = message.topic()
        return RawRecord(
            topic,
            self.topic_ids.get(topic, ""),
            message.partition(),
            message.offset(),
            message.timestamp()[1],
            message.key(),
            message.value(),
            message.headers() or [],
        )

    def _note(self, message: Any) -> bool:
        """Keep what an error record says; always False: it is no record."""
        error: KafkaError = message.error()
        if error.code() in _OFFSET_LOST:
            self.lost_offsets.add((message.topic(), message.partition()))
        elif error.code() in _REFUSED:
            raise SettingsError(
                f"the brokers refuse the consumer: {error.str()}",
                place=message.topic() or "",
                hint="check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and the read rights on topic and group",
            )
        elif error.fatal():
            raise BrokerUnreachable(f"the consumer ended: {error.str()}", hint="the service must be started again")
        else:
            self.trouble = error
        return False

    def _on_error(self, error: KafkaError) -> None:
        self.trouble = error

    def hold(self, partitions: Sequence[Key]) -> None:
        """Pause; a partition that is not assigned any more is left out."""
        wanted = [p for p in partitions if p not in self._held]
        if wanted:
            self._held |= set(wanted)
            self._quietly(self._consumer.pause, wanted)

    def held(self, partition: Key) -> bool:
        """Whether a partition is paused, and has to be placed to go on."""
        return partition in self._held

    def place(self, partition: Key, offset: int) -> bool:
        """Go on from `offset`. False while a rebalance is under way: try again in the next turn."""
        at = TopicPartition(*partition, offset)
        try:
            self._consumer.incremental_unassign([at])
            self._consumer.resume([at])  # not before: it would read on from where it was
            self._consumer.incremental_assign([at])
        except KafkaException:
            return False
        self._held.discard(partition)
        return True

    def _quietly(self, act: Callable[[list[TopicPartition]], None], partitions: Sequence[Key]) -> None:
        for topic, number in partitions:
            try:
                act([TopicPartition(topic, number)])
            except KafkaException as error:
                self.trouble = error.args[0]

    def committed(self, partitions: Sequence[Key], timeout: float = 10) -> dict[Key, tuple[int, str]]:
        """Committed offset (negative: none) and its metadata; waits for transactions that are still open."""
        try:
            answers = self._consumer.committed([TopicPartition(*p) for p in partitions], timeout)
        except KafkaException as error:
            raise BrokerUnreachable(
                f"committed offsets: {error.args[0].str()}", hint="waiting for the broker"
            ) from error
        return {(a.topic, a.partition): (a.offset, a.metadata or "") for a in answers}

    def watermarks(self, partition: Key, timeout: float = 10) -> tuple[int, int]:
        """First offset and end of a partition, asked of the broker."""
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout)
        except KafkaException as error:
            raise BrokerUnreachable(
                f"offsets of {partition}: {error.args[0].str()}", hint="waiting for the broker"
            ) from error
        return low, high

    def end_seen(self, partition: Key) -> int:
        """The end as the last fetch told it, without a round trip; asked of the broker before the first fetch."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return high if high >= 0 else self.watermarks(partition)[1]

    def at_time(self, partition: Key, milliseconds: int, timeout: float = 10) -> int:
        """The first offset at or after a time; the end where there is none yet."""
        try:
            found = self._consumer.offsets_for_times([TopicPartition(*partition, milliseconds)], timeout)
        except KafkaException as error:
            raise BrokerUnreachable(
                f"offsets of {partition}: {error.args[0].str()}", hint="waiting for the broker"
            ) from error
        return int(found[0].offset) if found[0].offset >= 0 else self.watermarks(partition)[1]

    def positions(self, partitions: Sequence[Key]) -> dict[Key, int]:
        """The offset after the last record handed out, transaction markers included; negative before the first."""
        return {
            (p.topic, p.partition): p.offset for p in self._consumer.position([TopicPartition(*k) for k in partitions])
        }

    def another(self) -> Source:
        """A second client, which knows the group and does not join it."""
        return Source(*self._made)

    def membership(self) -> Any:
        """What a transaction needs to commit offsets for this group."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Leave the group; the revoked callback runs first."""
        self._consumer.close()


def _keys(partitions: Sequence[TopicPartition]) -> set[Key]:
    return {(p.topic, p.partition) for p in partitions}
