"""Tells the ticks of `topology/schedules.yaml` as ``clock.ticked.v1``. A source: it consumes nothing.

Start as many as there should be left when one falls over: none leads, each tells what the topic does not have yet,
and what two tell at once is one event by its id.
"""

from __future__ import annotations

import os
import random
import threading
from contextlib import closing

from farandole.clock import Clock, SystemClock
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.pulse import pulse
from farandole.service import instance, schemas
from farandole.settings import Settings
from farandole.sources.timetable import read_timetable
from farandole.telemetry import logger
from farandole.ticker import Ticker
from farandole.topics import TICKS


def main(settings: Settings, stop: threading.Event, until_drained: bool = False, clock: Clock | None = None) -> None:  # noqa: FBT001, FBT002 - as every service
    """Tell ticks until `stop` is set; with `until_drained` until none is due. A test brings a `clock` of its own."""
    schedules = read_timetable(os.environ.get("FARANDOLE_SCHEDULES", "topology/schedules.yaml"))
    properties = settings.client_properties()
    with (
        closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry,
        TopicReader(settings.bootstrap(), TICKS, properties) as reader,
    ):
        send = Emitter(settings.bootstrap(), properties).send
        encode, say = Codec(registry, schemas()).encode, logger("clock", instance())
        hold = random.uniform(0, 0.5)  # another one may be first, and then this one need not tell it again
        ticker = Ticker(schedules.values(), reader, encode, send, clock or SystemClock(), say, hold=hold)
        if until_drained:
            ticker.run(stop, until_drained=True)
            return
        with pulse(settings, "clock", say) as beating:
            ticker.turned = beating.turn
            ticker.run(stop)
