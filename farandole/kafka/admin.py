"""Topics, groups and offsets of a cluster: looked at, created, altered; nothing is ever deleted here.

Every call raises :class:`BrokerUnreachable` when the brokers do not answer, :class:`SettingsError` when
they refuse the credentials, and :class:`FarandoleError` when they refuse the request.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it exports them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from farandole.clock import SystemClock
from farandole.errors import BrokerUnreachable, FarandoleError, SettingsError

T = TypeVar("T")
TopicPartitionKey = tuple[str, int]

_AWAY = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._RESOLVE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_MOVING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_MOVED = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
}
_FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_NEVER_COMMITTED = -1001
_GLANCE = 0.05  # seconds between two looks
_END: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_START: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it stands on the cluster. `topic_id` is its UUID as Kafka prints it."""

    name: str
    topic_id: str
    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A group's committed offset and the text it was committed with (None: none)."""

    offset: int
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group: `state` in Kafka's words (EMPTY, STABLE, …; DEAD: unknown to the cluster), its member count.

    `assigned` are the partitions that its members have.
    """

    state: str
    members: int
    assigned: frozenset[TopicPartitionKey] = frozenset()

    @property
    def active(self) -> bool:
        """Whether somebody is in it, or may be: only then are its offsets not ours to set."""
        return self.state not in {"EMPTY", "DEAD"}


class Admin:
    """The administrative side of one cluster. `timeout` bounds each call, in seconds. Safe to use from any thread."""

    def __init__(
        self, bootstrap: str, client_properties: Mapping[str, Any] | None = None, *, timeout: float = 15.0
    ) -> None:
        self._bootstrap = bootstrap
        self._timeout = timeout
        self._noise: KafkaError | None = None
        config: dict[str, Any] = {
            "client.id": "farandole-admin",
            "log_level": 0,  # what went wrong is told by the error that is raised, once
            **dict(client_properties or {}),
            "bootstrap.servers": bootstrap,
            "error_cb": self._heard,
        }
        self._config = config
        self._client = AdminClient(config)
        self._clock = SystemClock()
        self._before: tuple[AdminClient | None, float] = None, -math.inf

    def cluster_id(self) -> str:
        """The id of the cluster."""
        found = self._client.describe_cluster(request_timeout=self._timeout)
        return str(self._wait(found, "describe the cluster").cluster_id)

    def topics(self, names: Collection[str]) -> dict[str, Topic]:
        """Those of the named topics that exist."""
        if not names:
            return {}
        asked = self._client.describe_topics(TopicCollection(list(names)), request_timeout=self._timeout)
        found = {}
        for name, future in asked.items():
            try:
                topic = future.result()
            except KafkaException as problem:
                if problem.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                self._raise(problem.args[0], f"describe topic {name}")
            replicas = max((len(p.replicas) for p in topic.partitions), default=0)
            found[name] = Topic(name, str(topic.topic_id), len(topic.partitions), replicas)
        return found

    def topic_ids(self, names: Collection[str]) -> dict[str, str]:
        """The UUID of each named topic that exists."""
        return {name: topic.topic_id for name, topic in self.topics(names).items()}

    def partitions(self, names: Collection[str]) -> dict[str, int]:
        """The number of partitions of each named topic that exists."""
        return {name: topic.partitions for name, topic in self.topics(names).items()}

    def configs(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        """The effective settings of each named topic; all must exist."""
        if not names:
            return {}
        asked = self._client.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=self._timeout
        )
        return {
            resource.name: {
                setting: entry.value
                for setting, entry in self._wait(future, f"read the settings of topic {resource.name}").items()
                if entry.value is not None
            }
            for resource, future in asked.items()
        }

    def create(self, name: str, *, partitions: int, replication: int, settings: Mapping[str, str]) -> bool:
        """Create a topic; False if somebody else has just done it."""
        new = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(settings))
        future = self._client.create_topics([new], operation_timeout=self._timeout, request_timeout=self._timeout)[name]
        try:
            future.result()
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            self._raise(problem.args[0], f"create topic {name}")
        self._shown(lambda: self.partitions([name]).get(name, 0) >= partitions, f"topic {name}")
        return True

    def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic to `total` partitions. Keys move: their order is lost at the border."""
        grown = [NewPartitions(name, total)]
        asked = self._client.create_partitions(grown, operation_timeout=self._timeout, request_timeout=self._timeout)
        self._wait(asked[name], f"add partitions to topic {name}")
        self._shown(lambda: self.partitions([name]).get(name, 0) >= total, f"the new partitions of topic {name}")

    def alter_configs(self, name: str, settings: Mapping[str, str]) -> None:
        """Set these settings of a topic and leave its others alone."""
        entries = [
            ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
            for setting, value in settings.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        asked = self._client.incremental_alter_configs([resource], request_timeout=self._timeout)
        for future in asked.values():
            self._wait(future, f"alter the settings of topic {name}")
        self._shown(lambda: settings.items() <= self.configs([name])[name].items(), f"new settings of topic {name}")

    def group(self, name: str) -> Group:
        """The state of a group; DEAD with no members if the cluster does not know it."""
        try:
            found = self._coordinated(
                lambda: self._client.describe_consumer_groups([name], request_timeout=self._timeout)[name]
            )
        except KafkaException as problem:
            if problem.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return Group("DEAD", 0)
            self._raise(problem.args[0], f"describe group {name}")
        state = found.state.name if isinstance(found.state, ConsumerGroupState) else str(found.state)
        assigned = frozenset(
            (p.topic, p.partition)
            for member in found.members
            for p in (member.assignment.topic_partitions if member.assignment else ())
        )
        return Group(state, len(found.members), assigned)

    def committed(self, group: str) -> dict[TopicPartitionKey, Committed]:
        """Every committed offset of a group, pending transactions decided first; empty for an unknown group.

        The group is asked after first, which waits for its coordinator: where that is only just being made, or moves,
        the client of Kafka dies of the answer about offsets (SIGSEGV, librdkafka 5040).
        """
        self.group(group)
        wanted = [ConsumerGroupTopicPartitions(group)]
        try:
            found = self._coordinated(
                lambda: self._client.list_consumer_group_offsets(
                    wanted, require_stable=True, request_timeout=self._timeout
                )[group]
            )
        except KafkaException as problem:
            self._raise(problem.args[0], f"read the offsets of group {group}")
        return {
            (p.topic, p.partition): Committed(p.offset, p.metadata or None)
            for p in found.topic_partitions
            if p.offset != _NEVER_COMMITTED
        }

    def seed(self, group: str, offsets: Mapping[TopicPartitionKey, int], metadata: str) -> None:
        """Commit these offsets for an empty group. The broker refuses while the group has members."""
        wanted = [TopicPartition(topic, p, offset, metadata) for (topic, p), offset in offsets.items()]
        act = f"set the offsets of group {group}"
        asked = [ConsumerGroupTopicPartitions(group, wanted)]
        try:
            answer = self._coordinated(
                lambda: self._client.alter_consumer_group_offsets(asked, request_timeout=self._timeout)[group]
            )
        except KafkaException as problem:
            self._raise(problem.args[0], act)
        for done in answer.topic_partitions:
            if done.error:
                self._raise(done.error, f"{act} on {done.topic}[{done.partition}]")

    def ends(self, partitions: Iterable[TopicPartitionKey], *, committed: bool) -> dict[TopicPartitionKey, int]:
        """Where each partition ends: `committed` gives the last stable offset, otherwise open transactions count."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        return self._offsets(partitions, _END, level)

    def starts(self, partitions: Iterable[TopicPartitionKey]) -> dict[TopicPartitionKey, int]:
        """The first offset each partition still holds."""
        return self._offsets(partitions, _START, IsolationLevel.READ_UNCOMMITTED)

    def offsets_at(self, partitions: Iterable[TopicPartitionKey], milliseconds: int) -> dict[TopicPartitionKey, int]:
        """The first offset at or after a time (milliseconds since 1970); the end where nothing is that young."""
        wanted = list(partitions)
        level = IsolationLevel.READ_UNCOMMITTED
        found = self._offsets(wanted, OffsetSpec.for_timestamp(milliseconds), level)
        beyond = [p for p, offset in found.items() if offset < 0]
        return {**found, **(self._offsets(beyond, _END, level) if beyond else {})}

    def _offsets(
        self, partitions: Iterable[TopicPartitionKey], spec: OffsetSpec, level: IsolationLevel
    ) -> dict[TopicPartitionKey, int]:
        wanted = {TopicPartition(topic, p): spec for topic, p in partitions}
        if not wanted:
            return {}
        asked = self._client.list_offsets(wanted, isolation_level=level, request_timeout=self._timeout)
        return {
            (p.topic, p.partition): self._wait(future, f"read the offsets of {p.topic}[{p.partition}]").offset
            for p, future in asked.items()
        }

    def _shown(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until a broker shows what the controller has accepted: its view of the cluster may lag behind."""
        for _ in range(max(1, int(self._timeout / _GLANCE))):
            if seen():
                return
            threading.Event().wait(_GLANCE)
        raise BrokerUnreachable(
            f"{what} was accepted, and is not to be seen after {self._timeout:g} s",
            place=f"kafka {self._bootstrap}",
            hint="the broker is overloaded or cut off from its controller; the same again does no harm",
        )

    def _heard(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # a consequence, never the cause
            self._noise = error

    def _coordinated(self, ask: Callable[[], Future[T]]) -> T:
        """An answer of a group's coordinator; one that is only just being made, or moves, is waited for."""
        end = self._clock.monotonic() + self._timeout
        while True:
            try:
                return ask().result()
            except KafkaException as problem:
                if problem.args[0].code() not in _MOVING or self._clock.monotonic() > end:
                    raise
            threading.Event().wait(0.1)

    def _renew(self) -> None:
        """Another client: one remembers the leader of a partition for a quarter of an hour, whatever the broker says.

        The one before is kept as long as other threads may wait for its answers.
        """
        _, since = self._before
        if (now := self._clock.monotonic()) - since >= self._timeout:
            self._before = self._client, now
            self._client = AdminClient(self._config)

    def _wait(self, future: Future[T], act: str) -> T:
        try:
            return future.result()
        except KafkaException as problem:
            if problem.args[0].code() in _MOVED:
                self._renew()
            self._raise(problem.args[0], act)

    def _raise(self, error: KafkaError, act: str) -> NoReturn:
        place = f"kafka {self._bootstrap}"
        code = error.code()
        if code in _AWAY:
            self._client.poll(0)  # lets error_cb say why nobody answered
            noise = self._noise
            if noise is not None and noise.code() in _REFUSED:
                code, error = noise.code(), noise
            else:
                why = noise.str() if noise is not None else error.str()
                raise BrokerUnreachable(
                    f"no broker answered within {self._timeout:g} s: {why}",
                    place=place,
                    hint="check KAFKA_BOOTSTRAP_SERVERS, or start the embedded stack with `farandole up`",
                ) from None
        if code in _REFUSED:
            raise SettingsError(
                f"the broker refused the credentials: {error.str()}",
                place=place,
                hint="check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
            ) from None
        if code in _FORBIDDEN:
            raise FarandoleError(
                f"not allowed to {act}: {error.str()}",
                place=place,
                hint="ask for this right (an ACL) for the user you connect as, or connect as one who has it",
            ) from None
        raise FarandoleError(
            f"could not {act}: {error.str()}", place=place, hint=f"the broker's word for it is {error.name()}"
        ) from None
