"""Keeps the SQL projection of the ledger: what `farandole runs`, `farandole lineage` and the console read.

Nothing waits for it: with the projector stopped, pipelines run on and the projection grows older.
"""

from __future__ import annotations

import threading
from contextlib import closing

from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.database import open_projection
from farandole.ledger.entry import LEDGER_TOPIC, ledger_schema
from farandole.ledger.projector import Projector
from farandole.settings import Settings


def main(settings: Settings, stop: threading.Event, until_drained: bool = False) -> None:  # noqa: FBT001, FBT002 - as every service
    """Project until `stop` is set; with `until_drained` until the end of the ledger is reached."""
    with (
        closing(open_projection(settings.database("projector"))) as database,
        closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry,
        TopicReader(settings.bootstrap(), LEDGER_TOPIC, settings.client_properties()) as reader,
    ):
        codec = Codec(registry, {LEDGER_TOPIC: ledger_schema()})
        projector = Projector(database, reader, lambda record: codec.decode(LEDGER_TOPIC, record.value, record.headers))
        projector.run(stop, until_drained=until_drained)
