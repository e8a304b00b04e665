"""A reconciler: sweeps the pipelines it is given, keeps what it has learnt, and tells each sweep in the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime

from farandole.clock import SystemClock
from farandole.declaration import Declaration
from farandole.errors import FarandoleError, Unreachable
from farandole.event import Record, event_type_of
from farandole.fill import event_class
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.permissions import Permissions
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.ledger.sweeps import Kept, load, open_sweeps, save
from farandole.letters import DeclaredKeys
from farandole.reconciler.account import Account
from farandole.reconciler.asleep import Asleep
from farandole.reconciler.cluster import Cluster, Limits
from farandole.reconciler.coverage import Coverage
from farandole.reconciler.findings import Findings, compared, forbidden, partly
from farandole.reconciler.history import History
from farandole.reconciler.inventory import Comparison
from farandole.reconciler.outputs import Outputs
from farandole.reconciler.report import SERVICE, Compared, Listened, Swept, Told
from farandole.reconciler.sweep import Sweep
from farandole.reconciler.unheard import Judged, Topical, Unheard
from farandole.service import instance, schemas, version
from farandole.settings import Settings, span
from farandole.sources.inventory import Inventory
from farandole.store.engine import Database

EVERY = "FARANDOLE_RECONCILE_EVERY"
PATIENCE = 10.0
"""Seconds for which a read waits for an open transaction before the pipeline counts as undecided."""


def period() -> float:
    """Seconds from the end of a sweep to the next: FARANDOLE_RECONCILE_EVERY, 60s unless said. Raises SettingsError."""
    return span(EVERY, "60s")


class Reconciler:
    """Sweeps, as often as it is told. Any number of reconcilers may do so at once."""

    def __init__(
        self,
        declarations: Sequence[Declaration],
        cluster: Cluster,
        database: Database,
        inventories: Mapping[str, Inventory] | None = None,
        readers: Sequence[Declaration] = (),
        unreadable: Mapping[str, str] | None = None,
    ) -> None:
        self._declarations, self._cluster, self._database = declarations, cluster, database
        self._inventories, self._readers, self._unreadable = inventories or {}, readers, unreadable or {}
        self._asleep = Asleep(cluster.admin, cluster.clock)
        names = {declaration.name for declaration in declarations}
        self._everybody = bool(readers) and not unreadable and all(one.name in names for one in readers)
        told = {str(event_type_of(inventory.event)): service for service, inventory in self._inventories.items()}
        self._unheard = Unheard(declarations, told)
        self.turned: Callable[[], None] = lambda: None
        """Told each time a pipeline was swept."""
        for declaration in declarations:
            for event_type in declaration.topics:
                event_class(event_type)  # what a key is made of is known by the classes

    def sweep(self, limits: Limits = Limits()) -> Iterator[Told]:  # noqa: B008 - it is frozen
        """One pass over sources and pipelines, each told as it is done. What is wrong spoils only the one at hand."""
        for service, inventory in self._inventories.items():
            compared = Compared(service, "", started_at=self._cluster.clock.millis())
            try:
                compared = Comparison(service, inventory, self._cluster, self._database, self._readers, limits).run()
                self._tell(compared)
            except Unreachable as away:
                compared.note = f"not compared: {away}"
            yield compared
        for service, why in self._unreadable.items():
            unread = Swept(service, note=f"not swept: its declaration cannot be read: {why}")
            unread.started_at = self._cluster.clock.millis()
            with suppress(Unreachable):
                self._tell(unread)
            yield unread
        judged: dict[str, Judged] = {}
        for declaration in self._declarations:
            swept = Swept(declaration.name, started_at=self._cluster.clock.millis())
            try:
                swept = self._swept(declaration, limits, judged)
                self._tell(swept)
            except FarandoleError as error:
                swept.note = f"not swept: {error}"
            yield swept
        if self._everybody:
            yield self._listened(judged)

    def told(self, service: str, within: tuple[datetime, datetime], limits: Limits, asked: dict[str, str]) -> Compared:
        """One source, for the intervals that begin in a span: what was never told of them is told. Raises Unreachable.

        `asked` says in the ledger who wanted it and why.
        """
        made = (service, self._inventories[service], self._cluster, self._database, self._readers, limits, within)
        compared = Comparison(*made).run()
        compared.asked = asked
        if not limits.plan:
            self._tell(compared)
        return compared

    def watch(self, stop: threading.Event, every: float, say: Callable[..., None], *, once: bool = False) -> None:
        """Sweep until `stop` is set, `every` so many seconds; `once` and no more."""
        while not stop.is_set():
            for swept in self.sweep():
                say("sweep.done", **swept.entry().detail)
                self.turned()
                if stop.is_set():
                    return
            if once:
                return
            stop.wait(every)

    def _swept(self, declaration: Declaration, limits: Limits, judged: dict[str, Judged]) -> Swept:
        kept = load(self._database, declaration.name)
        coverage = {place: Coverage.of(told) for place, told in kept.coverage.items()}
        account = Account(declaration.name, coverage, kept.ledger_id, kept.next_offset)
        history = History.of(declaration, kept.known)
        outputs = Outputs.of(declaration.name, kept.known.get("outputs", {}))
        declared = DeclaredKeys(lambda: (declaration, self._cluster.codec))
        before = kept.known.get("told", ())
        denied = [forbidden(declaration.name, one) for one in self._cluster.denied(declaration)]
        try:
            swept = Sweep(declaration, self._cluster, account, history, outputs, declared, limits).run()
        except FarandoleError as error:
            if not denied:
                raise
            swept = Swept(declaration.name, note=f"not swept: {error}", started_at=self._cluster.clock.millis())
            swept.findings = partly(denied, "denied", before)
            standing = [*swept.findings.ids, *(one for one in before if not one.startswith("denied/"))]
            save(self._database, declaration.name, kept._replace(known={**kept.known, "told": standing}))
            return swept
        standing = before
        if not swept.note:
            swept.findings = compared([*denied, *history.findings(), *outputs.findings()], before)
            standing = [one.id for one in swept.findings.standing]
            ranges = {(f.topic_id, f.partition): (f.begins, f.position) for f in swept.found if f.position is not None}
            judged[declaration.name] = Judged(history, ranges)
            self._unheard.forget(history)
        swept.kept = 0 if limits.plan else self._asleep.keep(declaration.name)
        told = {place: one.record() for place, one in account.coverage.items()}
        known = {**history.record(), "outputs": outputs.record(), "told": standing}
        save(self._database, declaration.name, Kept(account.ledger_id, account.next_offset, told, known))
        return swept

    def _listened(self, judged: Mapping[str, Judged]) -> Listened:
        clock = self._cluster.clock
        listened, began = Listened(Findings(), started_at=clock.millis()), clock.monotonic()
        try:
            kept = load(self._database, SERVICE).known
            self._unheard.known = {topic_id: Topical(*told) for topic_id, told in kept.get("topics", {}).items()}
            standing = list(self._unheard.findings(self._cluster.admin, judged))
            listened.findings = compared(standing, kept.get("told", ()))
            listened.milliseconds = round((clock.monotonic() - began) * 1000)
            known = {topic_id: one.record() for topic_id, one in self._unheard.known.items()}
            told = {"topics": known, "told": [one.id for one in standing]}
            save(self._database, SERVICE, Kept("", 0, {}, told))
            self._tell(listened)
        except FarandoleError as error:
            listened.note = f"not looked at: {error}"
        return listened

    def _tell(self, swept: Told) -> None:
        entry = swept.entry()
        partitions = self._cluster.admin.partitions([LEDGER_TOPIC])
        if LEDGER_TOPIC not in partitions:
            return  # its absence is what the sweep found
        value = self._cluster.codec.encode(LEDGER_TOPIC, entry.record())
        at = ledger_partition(SERVICE, partitions[LEDGER_TOPIC])
        self._cluster.send([Record(LEDGER_TOPIC, entry.key, value, [], at)])


@contextmanager
def open_reconciler(
    settings: Settings,
    declarations: Sequence[Declaration],
    inventories: Mapping[str, Inventory] | None = None,
    readers: Sequence[Declaration] = (),
    unreadable: Mapping[str, str] | None = None,
) -> Iterator[Reconciler]:
    """A reconciler of these pipelines and sources, on the servers that the settings name.

    `readers` are the pipelines whose ledger may know what a source has told; `unreadable` says of services why their
    declaration cannot be read: each sweep reports them. Raises SettingsError, Unreachable.
    """
    properties, bootstrap = settings.client_properties(), settings.bootstrap()
    with (
        closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry,
        closing(open_sweeps(settings.database(SERVICE), SERVICE)) as database,
    ):
        admin = Permissions(bootstrap, properties)
        cluster = Cluster(
            admin,
            lambda topic: TopicReader(bootstrap, topic, properties, patience=PATIENCE),
            Codec(registry, schemas()),
            Emitter(bootstrap, properties).send,
            SystemClock(),
            instance(),
            version(),
            admin.denied,
        )
        yield Reconciler(declarations, cluster, database, inventories, readers, unreadable)
