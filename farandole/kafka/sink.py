"""Produce, in a transaction: one session per assigned input partition.

A session is a transactional producer with the stable id ``<group>-<topic>-<partition>``: opening it
fences whoever held the partition before, at the broker, on every produce and commit. It is used again
only after a commit that succeeded and of which the client had nothing to say: it has no KIP-890, so an
EndTxn that was lost with its connection, and sent again, could otherwise come late and end a later transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from types import SimpleNamespace
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from farandole.errors import BrokerUnreachable, FarandoleError, Fenced
from farandole.event import Record
from farandole.points import point

_FENCED = {
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}
_BAD_RECORD = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_MSG,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
TRANSACTION_SECONDS = 15
"""How long one of our transactions may live; then the broker ends it."""
OPEN_TIMEOUT, COMMIT_TIMEOUT = 30.0, 15.0
_INFO = 6
"""Of syslog: a request that is lost with its connection is told by the client at no higher level."""


class Commit(NamedTuple):
    """The consumed offset of one partition with our mark, as a transaction commits it."""

    topic: str
    partition: int
    offset: int
    metadata: str


class Spoiled(FarandoleError):
    """The transaction did not end well or nobody knows how it ended; the session is thrown away."""


class Refused(FarandoleError):
    """The broker or the client refuses one record, whatever its neighbours; `index` tells which."""

    def __init__(self, index: int, error: KafkaError) -> None:
        super().__init__(f"the record was refused: {error.str()}", hint="make the event smaller or valid for its topic")
        self.index = index


class Session:
    """A transactional producer that belongs to one input partition for as long as it is owned."""

    def __init__(self, transactional_id: str, properties: Mapping[str, Any]) -> None:
        self.id = transactional_id
        self._settings = {
            "linger.ms": 0,
            **properties,
            "transactional.id": transactional_id,
            "client.id": transactional_id,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "transaction.timeout.ms": 1000 * TRANSACTION_SECONDS,
            "message.timeout.ms": 10000,
            "socket.timeout.ms": 10000,
            "retry.backoff.ms": 1,
            "allow.auto.create.topics": False,
            "logger": SimpleNamespace(log=self._heard),
            "log_level": _INFO,
        }
        self._producer: Producer | None = None
        self._noisy = False
        self._refused: Refused | None = None
        self.opened = 0
        self.check: Callable[[], None] = lambda: None
        """Raises Fenced where the partition has another owner; set by who takes the partition over."""
        self.ledger_offset = -1

    def open(self) -> None:
        """A new session: fences predecessors, completes or aborts what they left.

        Raises BrokerUnreachable, or FarandoleError when transactions are refused.
        """
        self.drop()
        self._noisy = False
        producer = Producer(self._settings)
        try:
            producer.init_transactions(OPEN_TIMEOUT)
        except KafkaException as error:
            cause = error.args[0]
            if cause.retriable() or cause.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                raise BrokerUnreachable(
                    f"no transaction coordinator answers: {cause.str()}", place=self.id, hint="waiting for the broker"
                ) from error
            raise FarandoleError(
                f"the broker refuses the transactional id: {cause.str()}",
                place=self.id,
                hint="grant Write and Describe on TransactionalId, prefixed with the group's name",
            ) from error
        self._producer = producer
        self.opened += 1

    def reopen(self) -> None:
        """A new session for a partition that is still ours.

        Asked before and after: a zombie that opened one on its own would fence its successor, and publish.
        Raises Fenced, or what the check raises while it cannot be answered.
        """
        self.check()
        self.open()
        try:
            self.check()
        except BaseException:
            self.drop()
            raise

    def publish(self, records: Sequence[Record], offset: Commit | None, membership: Any, ledger: str) -> None:
        """One transaction: all records and the consumed offset (None: it stays as it is), or nothing.

        Afterwards :attr:`ledger_offset` is the highest offset a record got on the topic `ledger`.
        Raises Fenced (somebody else owns the partition), Refused (one record, nothing was written) or
        Spoiled (unknown outcome: open a new session and read the committed offset).
        """
        if self._producer is None or self._noisy:
            self.reopen()
        assert self._producer is not None  # noqa: S101 - open() has just set it
        self._refused = None
        try:
            self._in_transaction(self._producer, records, offset, membership, ledger)
        except (
            KafkaException,
            BufferError,
            SystemError,
        ) as error:  # SystemError: a fatal error met a report's callback
            raise self._after(error) from error
        except (Refused, Spoiled):
            self.drop()
            raise

    def _in_transaction(
        self, producer: Producer, records: Sequence[Record], offset: Commit | None, membership: Any, ledger: str
    ) -> None:
        producer.begin_transaction()
        point("txn.begun")
        for index, record in enumerate(records):
            self._produce(producer, index, record, ledger)
        point("txn.outputs_produced")
        # the partitions are in the transaction before its offsets are: asked side by side, the second would be
        # answered "concurrent transactions", and asked again after a while
        producer.flush(COMMIT_TIMEOUT)
        point("txn.ledger_produced")
        if offset is not None:
            self._send(producer, offset, membership)
        point("txn.offsets_sent")
        point("txn.commit_sent", after=0.001)
        try:
            producer.commit_transaction(COMMIT_TIMEOUT)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
            producer.commit_transaction(COMMIT_TIMEOUT)  # it resumes where it stood
        point("txn.committed")
        producer.poll(0)

    def _send(self, producer: Producer, offset: Commit, membership: Any) -> None:
        """The consumed offset, waited for on a thread that can be left behind.

        For a coordinator of the group that has left the brokers' list meanwhile the client waits for ever, whatever
        its time-out (librdkafka 5456 and 5511). The next session ends the transaction; who still waits is not heard.
        """
        answer: Future[None] = Future()

        def send() -> None:
            try:
                producer.send_offsets_to_transaction([TopicPartition(*offset)], membership, COMMIT_TIMEOUT)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised by who asked
                answer.set_exception(error)
            else:
                answer.set_result(None)

        Thread(target=send, name=f"offsets-{self.id}", daemon=True).start()
        try:
            answer.result(COMMIT_TIMEOUT + 1)
        except TimeoutError:
            raise Spoiled(
                f"the transaction did not end: the group's coordinator did not answer for {COMMIT_TIMEOUT + 1:g} s",
                place=self.id,
            ) from None

    def _produce(self, producer: Producer, index: int, record: Record, ledger: str) -> None:
        reported = self._ledger_reported if record.topic == ledger else self._reported(index)
        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    headers=record.headers,  # type: ignore[arg-type]  # a list is invariant, bytes are fine
                    on_delivery=reported,
                )
            except BufferError:
                producer.poll(0.05)
            except KafkaException as error:
                if error.args[0].code() in _BAD_RECORD:
                    raise Refused(index, error.args[0]) from error
                raise
            else:
                return

    def _reported(self, index: int) -> Any:
        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error is not None and error.code() in _BAD_RECORD and self._refused is None:
                self._refused = Refused(index, error)

        return on_delivery

    def _ledger_reported(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.ledger_offset = max(self.ledger_offset, message.offset())

    def _after(self, error: BaseException) -> FarandoleError:
        """What a failed transaction means; the session is gone either way."""
        cause = _cause(error)
        producer = self._producer
        refused = self._refused
        if producer is not None and cause is not None and cause.code() not in _FENCED and not cause.fatal():
            with contextlib.suppress(KafkaException):
                producer.flush(5)
                producer.abort_transaction(5)
                producer.poll(0)
            refused = self._refused
        self.drop()
        if cause is not None and (cause.code() in _FENCED or (cause.fatal() and "fenced" in cause.str().lower())):
            return Fenced("another instance owns this partition now", place=self.id)
        if refused is not None:
            return refused
        return Spoiled(f"the transaction did not end: {cause.str() if cause else error}", place=self.id)

    def _heard(self, *_: object) -> None:
        """A line of the client's log: a connection or a request was lost, so the session is unfit for another use.

        It is said before the client tries again; its callback for errors tells only some of it, and its statistics
        come once a second.
        """
        self._noisy = True

    def quiet(self) -> None:
        """Serve callbacks while nothing is produced."""
        if self._producer is not None:
            self._producer.poll(0)

    def drop(self) -> None:
        """Throw the producer away; what it left open is aborted by the next session."""
        if self._producer is not None:
            with contextlib.suppress(KafkaException):
                self._producer.purge(blocking=False)
            self._producer = None


def _cause(error: BaseException | None) -> KafkaError | None:
    """What Kafka said, of an error or of what led to it."""
    while error is not None:
        if error.args and isinstance(error.args[0], KafkaError):
            return error.args[0]
        error = error.__cause__ or error.__context__
    return None
