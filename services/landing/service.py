"""Landing: announces the files that appear in the raw folder. A source: it consumes nothing.

Files are told in the order of their intervals. What was told before a crash is told again after it, with the
same ids, which every consumer knows how to take.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing

from farandole.clock import SystemClock
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.registry import Registry
from farandole.lake import open_lake
from farandole.service import schemas
from farandole.settings import Settings
from farandole.sources.announce import Announcer, watch
from farandole.sources.files import Seen
from farandole.sources.metadata import Source, open_sources
from farandole.telemetry import logger
from schemas.events import FileLanded
from services.landing.handlers import landed_events


def main(settings: Settings, stop: threading.Event, until_drained: bool = False) -> None:  # noqa: FBT001, FBT002 - as every service
    """Scan and announce until `stop` is set; with `until_drained` until nothing is new."""
    folder = open_lake().folder
    folder.fs.makedirs(folder.path("raw"), exist_ok=True)
    sources = open_sources()
    times = int(os.environ.get("FARANDOLE_ANNOUNCE_TIMES", "1"))
    with closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry:
        emitter = Emitter(settings.bootstrap(), settings.client_properties())
        announcer = Announcer(Codec(registry, schemas()).encode, emitter.send, SystemClock(), times)
        say = logger("landing", str(os.getpid()))

        def landed(good: Iterable[Source], seen: Seen) -> Iterator[tuple[str, FileLanded]]:
            return landed_events(folder.uri("raw"), good, seen)

        watch(landed, sources, announcer, stop, say, until_drained=until_drained)
