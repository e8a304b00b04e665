"""One instance of a pipeline, put together: the declaration, the servers, and the worker between them."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from farandole.clock import Clock, SystemClock
from farandole.commit_class import work_of
from farandole.declaration import Declaration
from farandole.errors import BrokerUnreachable, FarandoleError, RegistryUnreachable
from farandole.event import Record
from farandole.fill import StepPlan, declared_class, plan
from farandole.identity import Identity
from farandole.intake import Intake
from farandole.isolated import Children
from farandole.kafka.admin import Admin
from farandole.kafka.beats import Beats, Overheard
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.kafka.expectations import Tail
from farandole.kafka.listener import Listener
from farandole.kafka.ranges import RangeSource
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.kafka.sink import Session
from farandole.kafka.source import Key, Source
from farandole.lanes import Lanes
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.locality import locality
from farandole.match import Matcher
from farandole.orders import Order
from farandole.outcome import Books
from farandole.owned import Owned
from farandole.parking import Parking
from farandole.protection import Protection
from farandole.reading import Reader
from farandole.replaying import Replays
from farandole.resources import Resources
from farandole.restore import Restore
from farandole.run import Kit
from farandole.schemagen import load_schemas
from farandole.settings import Settings
from farandole.settle import Settler
from farandole.steering import Heard
from farandole.store import Range, Store, open_store
from farandole.takeover import Takeover
from farandole.telemetry import logger
from farandole.topics import BEATS, CONTROL, own_schemas
from farandole.watch import Cluster, Watch
from farandole.worker import Worker

T = TypeVar("T")

_PROCESS = secrets.token_hex(4)
"""Tells this process from one before it of the same host and number, as in a container that was started again."""
REPLAY_SHARE = 4
"""A replay has one slot for so many of the live lane."""
TRANSACTIONS = 32
"""Partitions whose transactions run side by side."""
PATIENCE = 5.0
"""Seconds for which a takeover waits for the ledger's next record before the other partitions have their turn."""


def worker_of(
    declaration: Declaration, resources: Resources, settings: Settings, stop: threading.Event | None = None
) -> Worker:
    """A worker, ready to serve. Everything that can be known wrong is said here, before anything is read.

    Broker and registry are waited for, until `stop` is set: then SystemExit. Raises DeclarationError,
    SettingsError, and DatabaseUnreachable.
    """
    plans = plan(declaration, resources)
    properties = settings.client_properties()
    registry = Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)
    codec = Codec(registry, schemas(), trusted=own_schemas())
    wait = _Patience(logger(declaration.name, instance()), stop or threading.Event())
    admin = Admin(settings.bootstrap(), properties, timeout=5)
    topics = wait.until(lambda: _topics(admin, declaration))
    for event_type in (*declaration.emits, LEDGER_TOPIC):
        wait.until(partial(codec.ready, event_type))
    books = Books(
        declaration,
        codec.encode,
        SystemClock(),
        ledger_partition(declaration.name, topics[LEDGER_TOPIC].partitions),
        topics[declaration.dead_letter_topic].partitions,
        topics[declaration.retry_topic].partitions,
        version(),
        instance(),
    )
    reads = [*declaration.topics, declaration.retry_topic]
    source = Source(declaration.name, reads, properties, settings.group_protocol)
    source.topic_ids = {name: topics[name].topic_id for name in reads}
    store = open_store(settings.database_url, declaration.name)
    listener = Listener(
        declaration.name,
        lambda: TopicReader(settings.bootstrap(), CONTROL, properties),
        lambda raw: codec.decode(CONTROL, raw.value, raw.headers),
        wait.say,
    )
    parts = _Parts(
        declaration, plans, resources, settings, codec, books, source, store, listener, admin,
        declaration.name, lambda key: first_offset(declaration, source, key), declaration.slots,
    )  # fmt: skip
    worker = _put_together(parts)
    worker.replays = Replays(
        store, books, books.clock, worker.say, partial(_replay, parts, worker), worker.steering, source.topic_ids
    )
    worker.takeover.recall = worker.replays.recall
    worker.closing += [worker.replays.close, listener.close, store.close, registry.close]
    listener.start()
    return worker


@dataclass(frozen=True, slots=True)
class _Patience:
    """Waits for servers that are away when the service starts."""

    say: Callable[..., None]
    stop: threading.Event

    def until(self, ask: Callable[[], T]) -> T:
        tries = 0
        while True:
            try:
                return ask()
            except (BrokerUnreachable, RegistryUnreachable) as away:
                self.say("start.waits", error=str(away), tries=tries)
            if self.stop.wait(min(5.0, 0.5 * 2.0 ** min(tries, 8))):
                raise SystemExit(0)
            tries += 1


def instance() -> str:
    """How this process is called in the ledger, in the log and in positions."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a worker is made of."""

    declaration: Declaration
    plans: tuple[StepPlan, ...]
    resources: Resources
    settings: Settings
    codec: Codec
    books: Books
    source: Source
    store: Store
    listener: Heard
    admin: Admin
    group: str
    first: Callable[[Key], int]
    slots: int
    epoch: int = 0


def _replay(
    parts: _Parts, live: Worker, epoch: int, ranges: Sequence[Range], order: Order | None, heard: Heard
) -> Worker:
    """The worker of an epoch: everything as in the live lane, over exact ranges, with fewer slots."""
    group, settings = f"{parts.group}.replay-{epoch}", parts.settings
    exact = {(one.topic, one.partition): (one.start, one.end) for one in ranges}
    source = RangeSource(
        group,
        exact,
        settings.client_properties(),
        settings.group_protocol,
        lambda: live.lanes.running > 0,
        order.rate if order else 0.0,
    )
    source.topic_ids = dict(live.source.topic_ids)
    slots = (order and order.concurrency) or max(1, parts.slots // REPLAY_SHARE)
    worker = _put_together(
        replace(parts, source=source, listener=heard, group=group, first=source.start, slots=slots, epoch=epoch)
    )
    worker.intake.reader.order = order
    worker.steering.tells = False
    worker.protection.guard.live = live.protection.guard
    return worker


def _put_together(parts: _Parts) -> Worker:
    declaration, books, store, source = parts.declaration, parts.books, parts.store, parts.source
    clock, settings = books.clock, parts.settings
    say = logger(declaration.name, books.instance)
    commit_class = declared_class(declaration, parts.plans)
    resumable = commit_class == "outside" or (commit_class == "events" and _keeps(parts.plans))
    threads = ThreadPoolExecutor(TRANSACTIONS, "commit")
    matcher, owners = Matcher(declaration), dict[Key, Owned]()
    reader = Reader(
        matcher,
        parts.codec,
        clock,
        owners,
        lambda owned, offset, why: worker.place_back(owned, offset, why),  # noqa: PLW0108 - it is made below
        epoch=parts.epoch,
    )
    intake = Intake(
        reader,
        matcher,
        parts.codec,
        books,
        store,
        clock,
        owners,
        say,
        commit_class == "outside" or not locality(declaration).local,
        resumable,
        parking_of(declaration, store, clock),
        protection := Protection(store, books, clock, say, parts.epoch),
    )
    takeover = _takeover(parts, threads, say)
    kit = _kit(parts, resumable=resumable)
    kit.gate = protection
    work = work_of(commit_class, kit, store, books, say)
    lanes = Lanes(work, parts.slots, clock, ordered=declaration.ordering == "key")
    lanes.abandon = lambda run: kit.caller.abandon_slot(parts.plans[run.step].step.name)
    settler = Settler(source, store.inbox, books, clock, threads, say)
    limits = (settings.commit_interval, settings.commit_records, settings.shutdown_grace)
    worker = Worker(source, takeover, intake, lanes, settler, parts.listener, clock, limits)
    kit.detached = worker.detached
    worker.closing += [worker.detached.close, kit.caller.close]
    takeover.identity.moved = intake.claim_keys
    if parts.epoch == 0:  # one watch for all that an instance does
        _watched(worker, parts, takeover.identity, owners, say)
    return worker


def _keeps(plans: Sequence[StepPlan]) -> bool:
    """Whether a step's result is worth keeping: another follows it, or it was made elsewhere."""
    return len(plans) > 1 or any(p.step.detached for p in plans)


def _watched(
    worker: Worker, parts: _Parts, identity: Identity, owners: Mapping[Key, Owned], say: Callable[..., None]
) -> None:
    settings, clock = parts.settings, parts.books.clock
    reader = TopicReader(settings.bootstrap(), BEATS, settings.client_properties())
    beats = Overheard(Beats(Tail(reader), parts.codec, clock))
    watch = Watch(identity, _cluster(parts, beats), parts.books, lambda: list(owners), clock, say)
    watch.start()
    worker.closing += [watch.close, reader.close]


def parking_of(declaration: Declaration, store: Store, clock: Clock) -> Parking:
    """Where runs wait for their next attempt; it asks SQL only where a dead letter holds what comes after it."""
    held = partial(store.inbox.held, 0, state="dead-hold") if declaration.on_dead == "hold-key" else None
    return Parking(clock, declaration.ordering == "key", held)


def _takeover(parts: _Parts, threads: ThreadPoolExecutor, say: Callable[..., None]) -> Takeover:
    declaration, source, settings = parts.declaration, parts.source, parts.settings
    properties = settings.client_properties()
    control = Control(settings.bootstrap(), parts.codec, properties)
    takeover = Takeover(
        declaration, parts.store, source, parts.codec, parts.books, f"{parts.books.instance}-{_PROCESS}",
        lambda transactional_id: Session(transactional_id, properties),
        lambda topic: TopicReader(settings.bootstrap(), topic, properties, patience=PATIENCE),
        parts.first, threads, say, parts.group,
        Identity(parts.admin.topics, parts.store.topics, control.load), parts.epoch,
    )  # fmt: skip
    made = (parts.store, parts.codec, takeover.reader, source, parts.books)
    takeover.restore = Restore(declaration, *made, say, parts.epoch == 0)
    return takeover


def _cluster(parts: _Parts, beats: Overheard) -> Cluster:
    """What the watch asks of the brokers, and how it writes what it finds."""
    settings, admin = parts.settings, parts.admin

    def publish(records: list[Record]) -> None:
        session = Session(f"{parts.declaration.name}-watch-{parts.books.instance}", settings.client_properties())
        try:
            session.open()
            session.publish(records, None, None, LEDGER_TOPIC)
        finally:
            session.drop()

    return Cluster(
        settings.bootstrap(),
        lambda places: (admin.ends(places, committed=True), admin.ends(places, committed=False)),
        publish,
        parts.store.topics.announce,
        beats.read,
    )


def _kit(parts: _Parts, *, resumable: bool) -> Kit:
    """What runs need; an event loop only where a step is async."""
    kept = parts.store.checkpoints if resumable else None
    kit = Kit(parts.declaration, parts.plans, parts.resources, parts.codec.encode, parts.books.clock, kept)
    kit.restates = parts.store.orders.restates
    kit.version = parts.books.version
    kit.caller.say = logger(parts.declaration.name, parts.books.instance)
    if any(f.is_async for p in parts.plans for f in p.functions):
        kit.caller.loop = _loop()
    if any(p.isolated >= 0 for p in parts.plans):
        kit.caller.children = Children(parts.declaration, kit.clock)
    return kit


def _topics(admin: Admin, declaration: Declaration) -> dict[str, Any]:
    """The topics it needs, all there; an unknown output would make each transaction wait for half a minute."""
    own = {LEDGER_TOPIC, CONTROL, declaration.dead_letter_topic, declaration.retry_topic}
    wanted = {*declaration.topics, *declaration.emits, *own}
    there = admin.topics(wanted)
    if missing := sorted(wanted - set(there)):
        raise FarandoleError(
            f"{declaration.name} needs topics that do not exist: {', '.join(missing)}",
            place=declaration.source,
            hint="create them: farandole topology apply",
        )
    return there


def schemas() -> dict[str, dict[str, Any]]:
    """The reader schemas: those of ``schemas/avro`` in this folder (or FARANDOLE_SCHEMAS), and the library's own."""
    folder = Path(os.environ.get("FARANDOLE_SCHEMAS", "schemas/avro"))
    return {**(load_schemas(folder) if folder.is_dir() else {}), **own_schemas()}


def version() -> str:
    """The version that runs, as dead letters and ledger entries tell it: FARANDOLE_VERSION, else the library's."""
    from farandole import __version__

    return os.environ.get("FARANDOLE_VERSION", __version__)


def first_offset(declaration: Declaration, source: Source, key: Key) -> int:
    """Where `since` points in a partition, for a pipeline that never ran."""
    low, high = source.watermarks(key)
    if declaration.since == "beginning" or key[0] == declaration.retry_topic:
        return low
    if declaration.since == "now":
        return high
    return source.at_time(key, round(datetime.fromisoformat(declaration.since).timestamp() * 1000))


def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="steps", daemon=True).start()
    return loop
