"""One instance of a pipeline, put together: the declaration, the servers, and the worker between them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from farandole.clock import SystemClock
from farandole.commit_class import work_of
from farandole.declaration import Declaration
from farandole.errors import FarandoleError
from farandole.fill import declared_class, plan
from farandole.intake import Intake
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.kafka.sink import Session
from farandole.kafka.source import Key, Source
from farandole.lanes import Lanes
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.match import Matcher
from farandole.outcome import Books
from farandole.resources import Resources
from farandole.run import Kit
from farandole.schemagen import load_schemas
from farandole.settings import Settings
from farandole.settle import Settler
from farandole.store import open_store
from farandole.takeover import Takeover
from farandole.telemetry import logger
from farandole.worker import Worker

TRANSACTIONS = 32
"""Partitions whose transactions run side by side."""


def worker_of(declaration: Declaration, resources: Resources, settings: Settings) -> Worker:
    """A worker, ready to serve. Everything that can be known wrong is said here, before anything is read.

    Raises DeclarationError, SettingsError or Unreachable.
    """
    clock = SystemClock()
    instance = f"{socket.gethostname()}-{os.getpid()}"
    say = logger(declaration.name, instance)
    plans = plan(declaration, resources)
    commit_class = declared_class(declaration, plans)
    properties = settings.client_properties()
    admin = Admin(settings.bootstrap(), properties)
    topics = _topics(admin, declaration)
    registry = Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)
    codec = Codec(registry, schemas(), trusted=[LEDGER_TOPIC])
    for event_type in (*declaration.emits, LEDGER_TOPIC):
        codec.ready(event_type)
    store = open_store(settings.database_url, declaration.name)
    books = Books(
        declaration,
        codec.encode,
        clock,
        ledger_partition(declaration.name, topics[LEDGER_TOPIC].partitions),
        topics[declaration.dead_letter_topic].partitions,
        version(),
        instance,
    )
    threads = ThreadPoolExecutor(TRANSACTIONS, "commit")
    source = Source(declaration.name, declaration.topics, properties, settings.group_protocol)
    source.topic_ids = {name: topics[name].topic_id for name in declaration.topics}
    resumable = commit_class == "outside" or (commit_class == "events" and len(plans) > 1)
    kit = Kit(declaration, plans, resources, codec.encode, clock, store.checkpoints if resumable else None)
    kit.version, kit.instance = books.version, instance
    if any(p.is_async or any(c.is_async for c in p.catches.values()) for p in plans):
        kit.loop = _loop()
    owners: dict[Key, Any] = {}
    intake = Intake(
        Matcher(declaration),
        codec,
        books,
        store,
        clock,
        owners,
        lambda owned, offset, why: worker.place_back(owned, offset, why),
        say,
        commit_class == "outside" or not keys_are_local(declaration),
        resumable,
    )
    takeover = Takeover(
        declaration,
        store,
        source,
        codec,
        books,
        instance,
        lambda transactional_id: Session(transactional_id, properties),
        lambda topic: TopicReader(settings.bootstrap(), topic, properties),
        lambda key: first_offset(declaration, source, key),
        threads,
        say,
    )
    lanes = Lanes(work_of(commit_class, kit, store, books, say), declaration.slots, clock, ordered=declaration.ordering == "key")
    settler = Settler(source, store.inbox, books, clock, threads)
    worker = Worker(source, takeover, intake, lanes, settler, clock, (settings.commit_interval, settings.commit_records))
    return worker


def _topics(admin: Admin, declaration: Declaration) -> dict[str, Any]:
    """The topics it needs, all there; an unknown output would make each transaction wait for half a minute."""
    wanted = {*declaration.topics, *declaration.emits, LEDGER_TOPIC, declaration.dead_letter_topic}
    there = admin.topics(wanted)
    if missing := sorted(wanted - set(there)):
        raise FarandoleError(
            f"{declaration.name} needs topics that do not exist: {', '.join(missing)}",
            place=declaration.source,
            hint="create them: farandole topology apply",
        )
    return there


def schemas() -> dict[str, dict[str, Any]]:
    """The reader schemas: those of ``schemas/avro`` in this folder (or FARANDOLE_SCHEMAS), and the ledger's own."""
    folder = Path(os.environ.get("FARANDOLE_SCHEMAS", "schemas/avro"))
    own = load_schemas(Path(__file__).parent / "ledger")
    return {**(load_schemas(folder) if folder.is_dir() else {}), LEDGER_TOPIC: own[next(iter(own))]}


def version() -> str:
    """The version that runs, as dead letters and ledger entries tell it: FARANDOLE_VERSION, else the library's."""
    from farandole import __version__  # noqa: PLC0415 - the package imports lazily

    return os.environ.get("FARANDOLE_VERSION", __version__)


def keys_are_local(declaration: Declaration) -> bool:
    """Whether all copies of a key pass one partition, so that one owner sees them all and looking up is enough."""
    if not declaration.once:
        return True  # copies of an event carry its record key; a null key is noticed when it comes
    from farandole.fill import event_class  # noqa: PLC0415

    keys = [getattr(event_class(s.event_type), "__event_key__", ()) for s in declaration.subscriptions]
    return all(key and set(key) <= set(declaration.once) for key in keys)


def first_offset(declaration: Declaration, source: Source, key: Key) -> int:
    """Where `since` points in a partition, for a pipeline that never ran."""
    from datetime import datetime  # noqa: PLC0415

    low, high = source.watermarks(key)
    if declaration.since == "beginning":
        return low
    if declaration.since == "now":
        return high
    return source.at_time(key, round(datetime.fromisoformat(declaration.since).timestamp() * 1000))


def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="steps", daemon=True).start()
    return loop
