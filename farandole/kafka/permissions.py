"""What a pipeline must be allowed to do, and what its principal may not. Silent where the broker has no authorizer.

Two witnesses: what the brokers let this client do, and the ACLs of those who may read as the pipeline's group. Rules
of the second are an authorizer's: a denial wins, and where nothing is said of a resource nobody is said to be denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it exports them without saying so
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from farandole.declaration import Declaration
from farandole.kafka.admin import Admin
from farandole.topics import LEDGER

READ, WRITE = "Read", "Write"
EVERYBODY = "User:*"
_MUTE = {KafkaError.SECURITY_DISABLED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
_EVERYTHING = AclBindingFilter(
    ResourceType.ANY,
    None,  # type: ignore[arg-type]  # any
    ResourcePatternType.ANY,
    None,  # type: ignore[arg-type]
    None,  # type: ignore[arg-type]
    AclOperation.ANY,
    AclPermissionType.ANY,
)


@dataclass(frozen=True, slots=True)
class Right:
    """An operation (Read, Write) on a topic or a group."""

    operation: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation} {self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Acl:
    """One binding; `kind`, `operation` and `principal` as Kafka's tools print them, in one case."""

    kind: str
    name: str
    principal: str
    operation: str
    allows: bool
    prefix: bool = False

    def about(self, kind: str, name: str) -> bool:
        """Whether it is about a resource."""
        of_name = name.startswith(self.name) if self.prefix else self.name in (name, "*")
        return self.kind == kind and of_name


@dataclass(frozen=True, slots=True)
class Denied:
    """A right that a pipeline needs and a principal does not have; an empty one is that of this client."""

    right: Right
    principal: str = ""

    @property
    def own(self) -> bool:
        """Whether it is this client that may not."""
        return not self.principal

    def __str__(self) -> str:
        who = self.principal or "who connects as this command or service does"
        return f"{who} may not {self.right}"


def rights_of(declaration: Declaration) -> tuple[Right, ...]:
    """What a pipeline has to be allowed so that it can take and settle an event."""
    return (
        Right(READ, "group", declaration.name),
        *reads_of(declaration),
        *(Right(READ, "topic", topic) for topic in (declaration.retry_topic, LEDGER)),
        *(Right(WRITE, "topic", topic) for topic in (declaration.retry_topic, declaration.dead_letter_topic, LEDGER)),
    )


def reads_of(declaration: Declaration) -> tuple[Right, ...]:
    """The topics that it listens to."""
    return tuple(Right(READ, "topic", topic) for topic in declaration.topics)


def refused(rights: Sequence[Right], group: str, acls: Sequence[Acl]) -> Iterator[Denied]:
    """The rights that those who act as a group do not have, as far as ACLs tell."""
    named = (a for a in acls if a.kind == "group" and a.name == group and a.operation in (READ, "All"))
    for principal in sorted({a.principal for a in named} - {EVERYBODY}):
        for right in rights:
            about = [a for a in acls if a.about(right.kind, right.name)]
            mine = [
                a for a in about if a.principal in (principal, EVERYBODY) and a.operation in (right.operation, "All")
            ]
            if about and (any(not a.allows for a in mine) or not mine):
                yield Denied(right, principal)


class Permissions(Admin):
    """An administrative client that also asks who may do what."""

    def denied(self, declaration: Declaration) -> list[Denied]:
        """What a pipeline needs and may not, this client's own principal first. Raises Unreachable."""
        rights = rights_of(declaration)
        own = [Denied(right) for right in rights if right in self._own(rights)]
        return [*own, *refused(rights, declaration.name, self._acls())]

    def _own(self, rights: Sequence[Right]) -> set[Right]:
        topics = list(dict.fromkeys(right.name for right in rights if right.kind == "topic"))
        asked = self._client.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=self._timeout
        )
        may = {name: self._may(future, KafkaError.TOPIC_AUTHORIZATION_FAILED) for name, future in asked.items()}
        for right in rights:
            if right.kind == "group":
                future = self._client.describe_consumer_groups(
                    [right.name], include_authorized_operations=True, request_timeout=self._timeout
                )[right.name]
                may[right.name] = self._may(future, KafkaError.GROUP_AUTHORIZATION_FAILED)
        return {right for right in rights if (known := may[right.name]) is not None and right.operation not in known}

    def _may(self, future: Any, forbidden: int) -> set[str] | None:
        """The operations that this client may do there; None where nobody can say."""
        try:
            told = future.result().authorized_operations
        except KafkaException as problem:
            return set() if problem.args[0].code() == forbidden else None
        return None if not told else {_word(one.name) for one in told}

    def _acls(self) -> list[Acl]:
        try:
            found: Iterable[Any] = self._client.describe_acls(_EVERYTHING, request_timeout=self._timeout).result()
        except KafkaException as problem:
            if problem.args[0].code() in _MUTE:
                return []
            self._raise(problem.args[0], "read the ACLs")
        return [
            Acl(
                _word(a.restype.name).lower(),
                a.name,
                a.principal,
                _word(a.operation.name),
                a.permission_type == AclPermissionType.ALLOW,
                a.resource_pattern_type == ResourcePatternType.PREFIXED,
            )
            for a in found
            if a.host == "*" or a.permission_type == AclPermissionType.ALLOW
        ]


def _word(name: str) -> str:
    return name.capitalize()
