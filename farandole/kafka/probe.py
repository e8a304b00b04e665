"""Asking a broker whether it answers, and what it can do."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from farandole.clock import SystemClock
from farandole.errors import BrokerUnreachable

_QUIET = logging.getLogger("farandole.kafka.probe")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False  # a broker that is not up yet is no news: whoever asks gets an answer or an error


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a broker can do; None where it would not say (no right to read its configuration)."""

    brokers: int
    transactions: bool | None
    kip848: bool | None
    transaction_replicas: int | None


def wait_for_broker(
    bootstrap_servers: str, timeout: float, client_properties: dict[str, str] | None = None
) -> AdminClient:
    """A client to the broker once it answers a metadata request. Raises BrokerUnreachable after `timeout` seconds."""
    properties = {**(client_properties or {}), "bootstrap.servers": bootstrap_servers}
    admin = AdminClient({**properties, "reconnect.backoff.max.ms": "500"}, logger=_QUIET)
    clock = SystemClock()
    end = clock.monotonic() + timeout
    while True:
        left = end - clock.monotonic()
        try:
            admin.list_topics(timeout=max(0.1, min(5.0, left)))
        except KafkaException as error:
            if clock.monotonic() >= end:
                raise BrokerUnreachable(
                    f"no broker answered within {timeout:g} s: {_reason(error)}",
                    place=bootstrap_servers,
                    hint="is it running (`farandole up`), and are KAFKA_BOOTSTRAP_SERVERS and the credentials right?",
                ) from error
        else:
            return admin


def capabilities(bootstrap_servers: str, timeout: float, client_properties: dict[str, str] | None) -> Capabilities:
    """What the broker can do. Raises BrokerUnreachable when it does not answer."""
    admin = wait_for_broker(bootstrap_servers, timeout, client_properties)
    brokers = admin.list_topics(timeout=timeout).brokers
    resource = ConfigResource(ResourceType.BROKER, str(next(iter(brokers))))
    try:
        got = admin.describe_configs([resource], request_timeout=timeout)[resource].result(timeout)
    except (KafkaException, TimeoutError):
        return Capabilities(len(brokers), None, None, None)
    values = {name: entry.value for name, entry in got.items()}
    replicas: int | None = None
    with contextlib.suppress(TypeError, ValueError):
        replicas = int(values.get("transaction.state.log.replication.factor") or "")
    protocols = values.get("group.coordinator.rebalance.protocols")
    return Capabilities(
        brokers=len(brokers),
        transactions=None if replicas is None else replicas <= len(brokers),
        kip848=None if protocols is None else "consumer" in protocols,
        transaction_replicas=replicas,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, KafkaException) and error.args:
        return str(getattr(error.args[0], "str", lambda: error)())
    return str(error)
