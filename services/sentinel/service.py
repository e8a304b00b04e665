"""Writes expectations ahead, closes them by what comes, and tells what did not come. A source: it joins no group.

Start as many as there should be left when one falls over: they come to the same rows, and each absence is told once.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from farandole.alerts import Routes
from farandole.arriving import events, runs
from farandole.clock import Clock, SystemClock
from farandole.expecting import expected_of
from farandole.find import find_declaration, readable, services
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.expectations import Expectations, Tail
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.pulse import pulse
from farandole.sentinel import Sentinel
from farandole.service import instance, schemas
from farandole.settings import Settings
from farandole.sources.deadlines import Expected
from farandole.telemetry import logger
from farandole.topics import EXPECTATIONS, own_schemas


def main(settings: Settings, stop: threading.Event, until_drained: bool = False, clock: Clock | None = None) -> None:  # noqa: FBT001, FBT002 - as every service
    """Watch until `stop` is set; with `until_drained` until all is judged. A test brings a `clock` of its own."""
    say = logger("sentinel", instance())
    expected = _expected(say)
    routes = Routes(settings.routes())
    say("sentinel.starts", expectations=len(expected), routes=len(routes))
    properties = settings.client_properties()
    with ExitStack() as opened:
        registry = Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)
        codec = Codec(opened.enter_context(closing(registry)), schemas(), trusted=own_schemas())

        def reader(topic: str) -> TopicReader:
            return opened.enter_context(TopicReader(settings.bootstrap(), topic, properties))

        send = Emitter(settings.bootstrap(), properties).send
        book = Expectations(Tail(reader(EXPECTATIONS)), codec, send)
        ledger = reader(LEDGER_TOPIC)
        sources = [events(one, Tail(reader(one)), codec) for one in sorted({e.event_type for e in expected} - {""})]
        if partitions := _partitions(expected, ledger):
            sources.append(runs(Tail(ledger, partitions), codec))
        # more than the instance's name: in containers two may have the same, and take each other's word for their own
        name = f"{instance()}-{uuid.uuid4().hex[:8]}"
        sentinel = Sentinel(expected, book, sources, routes.tell, clock or SystemClock(), say, name=name)
        if not until_drained:
            sentinel.turned = opened.enter_context(pulse(settings, "sentinel", say)).turn
        sentinel.run(stop, until_drained=until_drained)


def _expected(say: Callable[..., None]) -> list[Expected]:
    """What is declared here. A pipeline that cannot be read is left out, and named: the others are watched."""
    declared, wrong = readable(services(), find_declaration)
    for service, why in wrong.items():
        say("sentinel.unreadable", service=service, why=why)
    return expected_of(list(declared.values()), os.environ.get("FARANDOLE_EXPECTATIONS", "topology/expectations.yaml"))


def _partitions(expected: Sequence[Expected], ledger: TopicReader) -> list[int]:
    """The partitions of the ledger in which the expected pipelines write."""
    count = ledger.describe().partitions
    return sorted({ledger_partition(one.pipeline, count) for one in expected if one.pipeline})
