"""Keeps the SQL projection: what `farandole runs`, `status`, `lineage` and the console read.

Nothing waits for it: with the projector stopped, pipelines run on and the projection grows older.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.expectations import Standing, Tail
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.completions import Completions
from farandole.ledger.database import open_projection
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.ledger.expected import ExpectationProjector
from farandole.ledger.projection import Line
from farandole.ledger.projector import Projector
from farandole.pulse import pulse
from farandole.service import instance
from farandole.settings import Settings
from farandole.telemetry import logger
from farandole.topics import EXPECTATIONS, TELEMETRY, own_schemas


def main(settings: Settings, stop: threading.Event, until_drained: bool = False) -> None:  # noqa: FBT001, FBT002 - as every service
    """Project until `stop` is set; with `until_drained` until the ends of ledger and expectations are reached."""
    properties = settings.client_properties()
    with ExitStack() as opened:
        database = opened.enter_context(closing(open_projection(settings.database("projector"))))
        registry = Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)
        codec = Codec(opened.enter_context(closing(registry)), own_schemas(), trusted=own_schemas())
        ledger, expected = (
            opened.enter_context(TopicReader(settings.bootstrap(), topic, properties))
            for topic in (LEDGER_TOPIC, EXPECTATIONS)
        )
        projector = Projector(database, ledger, lambda record: codec.decode(LEDGER_TOPIC, record.value, record.headers))
        projector.tells = _completions(settings, codec, logger("projector", instance()))
        beside = ExpectationProjector(database, lambda: (Standing(Tail(expected), codec), expected.describe().topic_id))
        if not until_drained:
            beating = opened.enter_context(pulse(settings, "projector", logger("projector", instance())))
            projector.turned = beating.turn
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(beside.run, stop, until_drained=until_drained)
            if not until_drained:
                other.add_done_callback(lambda _: stop.set())  # it ends by itself only when something is wrong
            try:
                projector.run(stop, until_drained=until_drained)
            finally:
                if not until_drained:
                    stop.set()
            other.result()


def _completions(settings: Settings, codec: Codec, say: Callable[..., None]) -> Callable[[Sequence[Line]], None]:
    """Who tells what is done; nobody on a cluster whose topics are older than that."""
    bootstrap, properties = settings.bootstrap(), settings.client_properties()
    if TELEMETRY not in Admin(bootstrap, properties).topics([TELEMETRY]):
        say("telemetry.off", why=f"there is no topic {TELEMETRY}: farandole topology apply")
        return lambda _: None
    return Completions(codec.encode, Emitter(bootstrap, properties).send).tell
