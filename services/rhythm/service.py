"""Learns when things usually come: a Faust app that adds up what is done, per pipeline and day.

It reads the plain topic `farandole.telemetry.v1` and keeps, in a windowed table, when each data interval was done
first; the days stand on `farandole.rhythm.v1`, from which `farandole expect suggest --rhythm` learns. The sum is the
same in whatever order and however often it is told: nothing here must happen once, and all of it can be read anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from farandole.completion import Completion, remembered
from farandole.errors import FarandoleError
from farandole.faust import app as app_of
from farandole.faust import topic
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.registry import Registry
from farandole.service import instance
from farandole.settings import Settings
from farandole.telemetry import logger
from farandole.topics import RHYTHM, TELEMETRY, own_schemas

NAME = "farandole-rhythm"
"""The Faust app, which is its consumer group and begins the name of its table's changelog."""
DAY, KEPT = 86_400.0, 400 * 86_400.0
LOOK = 0.5


def main(settings: Settings, stop: threading.Event, until_drained: bool = False) -> None:  # noqa: FBT001, FBT002 - as every service
    """Add up until `stop` is set; with `until_drained` until all that was there is added."""
    say = logger("rhythm", instance())
    admin = Admin(settings.bootstrap(), settings.client_properties())
    found = admin.topics([TELEMETRY, RHYTHM])
    if missing := sorted({TELEMETRY, RHYTHM} - found.keys()):
        raise FarandoleError(
            f"there is no topic {', '.join(missing)}", place="kafka", hint="create it: farandole topology apply"
        )
    with closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry:
        told = found[TELEMETRY]
        app = app_of(
            settings, NAME, topic_partitions=told.partitions, topic_replication_factor=told.replication,
            consumer_auto_offset_reset="earliest",
        )  # fmt: skip
        learn(app, Codec(registry, own_schemas(), trusted=own_schemas()))
        places = [(TELEMETRY, partition) for partition in range(told.partitions)]
        ends = admin.ends(places, committed=False) if until_drained else {}

        def over() -> bool:
            if not until_drained:
                return False
            committed = admin.committed(NAME)
            return all(place in committed and committed[place].offset >= end for place, end in ends.items() if end)

        say("rhythm.starts", partitions=told.partitions)
        asyncio.run(_serve(app, stop, over))


def learn(app: Any, codec: Codec) -> None:
    """Add the table and the agent that keeps it to the app."""
    done, rhythm = topic(app, TELEMETRY, codec), topic(app, RHYTHM, codec)
    table = app.Table("came", default=dict, partitions=app.conf.topic_partitions)
    days = table.tumbling(DAY, expires=KEPT).relative_to(lambda event: event.value["done_at"].timestamp())

    @app.agent(done)
    async def add_up(stream: Any) -> None:
        async for event in stream.events():
            one = Completion.of(event.value)
            if one.epoch:
                continue  # a replay says nothing of a rhythm
            known = days[one.pipeline].value(event)
            day = remembered(known, one)
            if day != known:
                row = {"pipeline": one.pipeline, "day": one.day, "came": day}
                # acknowledged before the table has it: killed between the two, it is told again and not left out
                await (await rhythm.send(key=f"{one.pipeline}/{one.day}".encode(), value=row))
                days[one.pipeline] = day


def _until(stop: threading.Event, over: Callable[[], bool]) -> None:
    while not stop.wait(LOOK) and not over():
        pass


async def _serve(app: Any, stop: threading.Event, over: Callable[[], bool]) -> None:
    app.finalize()
    await app.start()
    try:
        await asyncio.to_thread(_until, stop, over)
    finally:
        await app.stop()
