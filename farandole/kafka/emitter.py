"""Events from outside the dance: a person at the command line, a file, a feed. Idempotent, without a transaction."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from farandole.clock import Clock
from farandole.errors import BrokerUnreachable, FarandoleError
from farandole.event import Record

DELIVERY_SECONDS = 30.0
"""How long a record may take to be acknowledged before the brokers count as away."""

_AWAY = {
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
}
_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


class Placed(NamedTuple):
    """Where an acknowledged record stands."""

    topic: str
    partition: int
    offset: int


def fresh_id(clock: Clock) -> str:
    """A UUIDv7: unique, and in the order of time. For events whose producer has no better id."""
    milliseconds = int(clock.now().timestamp() * 1000)
    number = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62
    return str(uuid.UUID(int=number | secrets.randbits(62)))


class Emitter:
    """An idempotent producer: what it acknowledged stands in the topic, once and in order per record key."""

    def __init__(self, bootstrap: str, client_properties: Mapping[str, Any] | None = None) -> None:
        self._place = f"kafka {bootstrap}"
        self._producer = Producer(
            {
                "client.id": "farandole-emitter",
                "log_level": 0,  # what went wrong is told by the error that is raised, once
                "linger.ms": 5,
                **dict(client_properties or {}),
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",  # as Java's clients; librdkafka's own choice differs
                "message.timeout.ms": int(DELIVERY_SECONDS * 1000),
                "allow.auto.create.topics": False,
                "error_cb": lambda _: None,
            }
        )

    def send(self, records: Iterable[Record]) -> list[Placed]:
        """Produce the records and wait until all are acknowledged; where each stands, in their order.

        Raises BrokerUnreachable, or FarandoleError for a record that is refused; those before it may stand.
        """
        placed: dict[int, Placed] = {}
        trouble: list[tuple[KafkaError, str]] = []

        def heard(at: int) -> Any:
            def on_delivery(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    trouble.append((error, str(message.topic())))
                else:
                    placed[at] = Placed(str(message.topic()), message.partition() or 0, message.offset() or 0)

            return on_delivery

        for at, record in enumerate(records):
            if trouble:
                break
            self._produce(record, heard(at))
        self._producer.flush(DELIVERY_SECONDS + 5)
        if trouble:
            self._raise(*trouble[0])
        return [placed[at] for at in sorted(placed)]

    def _produce(self, record: Record, heard: Any) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    partition=record.partition,
                    on_delivery=heard,
                    headers=list(record.headers),
                )
            except BufferError:  # the queue is full: let it drain
                self._producer.poll(0.1)
            except KafkaException as error:
                self._raise(error.args[0], record.topic)
            else:
                self._producer.poll(0)
                return

    def _raise(self, error: KafkaError, topic: str) -> NoReturn:
        if error.code() in _NO_TOPIC:
            raise FarandoleError(
                f"topic {topic} does not exist",
                place=self._place,
                hint="`farandole topology apply` creates the topics that are declared",
            )
        if error.code() in _AWAY:
            raise BrokerUnreachable(
                f"no broker took the record within {DELIVERY_SECONDS:g} s: {error.str()}",
                place=self._place,
                hint="check KAFKA_BOOTSTRAP_SERVERS, or start the embedded stack with `farandole up`",
            )
        raise FarandoleError(
            f"the record was refused: {error.str()}", place=topic, hint=f"the broker's word for it is {error.name()}"
        )
