"""The inventory of a source against its topic: what lies there and was never told is told, once, under its own id.

The files are listed first and the topic is read to its end after them, so what the source itself told meanwhile is
known. Whoever tells a file tells the same event: two at once leave one effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from farandole.declaration import Declaration
from farandole.event import RawRecord, Record, event_type_of
from farandole.ids import run_id, waiting_id
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.ledger.stock import forget_stock, keep_seen, load_stock, note_told, told_among
from farandole.letters import DeclaredKeys, Ledger, own_key
from farandole.reconciler.cluster import Cluster, Limits
from farandole.reconciler.report import Compared
from farandole.sources.announce import Announcer
from farandole.sources.inventory import Inventory
from farandole.store.engine import Database

Told = tuple[str, Any]
"""An event with its id."""


@dataclass(slots=True)
class Comparison:
    """One source. `readers` are the pipelines of which some may listen to it.

    `within` leaves only the files about intervals that begin in ``[start, end)``, whatever was seen of them before.
    """

    service: str
    inventory: Inventory
    cluster: Cluster
    database: Database
    readers: Sequence[Declaration] = ()
    limits: Limits = field(default_factory=Limits)
    within: tuple[datetime, datetime] | None = None

    def run(self) -> Compared:
        """Find what was never told, and tell it. Raises Unreachable while a server is away."""
        clock = self.cluster.clock
        found = Compared(self.service, str(event_type_of(self.inventory.event)), started_at=clock.millis())
        began = clock.monotonic()
        try:
            self._compare(found)
        except FileNotFoundError as gone:
            found.note = f"not listed: {gone}"
        found.milliseconds = round((clock.monotonic() - began) * 1000)
        return found

    def _compare(self, found: Compared) -> None:
        topics = self.cluster.admin.topics([found.topic])
        if found.topic not in topics:
            found.note = f"there is no topic {found.topic}: farandole topology apply"
            return
        topic_id = topics[found.topic].topic_id
        kept = load_stock(self.database, self.service)
        if kept.topic_id not in ("", topic_id):
            forget_stock(self.database, self.service)
            kept = load_stock(self.database, self.service)
        seen = dict(kept.seen) if self.within is None else {}
        listing = self.inventory.listed(seen)
        events = listing.events if self.within is None else [one for one in listing.events if self._is_within(one[1])]
        found.landed, found.wrong = len(seen if self.within is None else events), list(listing.wrong)
        if events:
            missing = self._missing(found.topic, topic_id, kept.positions, events)
            found.missed, found.ids = len(missing), [identity for identity, _ in missing]
            if self.within is not None:
                found.count(events, missing)
            if missing and not self._tell(found, topic_id, missing):
                return
        if self.within is None:
            keep_seen(self.database, self.service, {u: s for u, s in seen.items() if kept.seen.get(u) != s})

    def _is_within(self, event: Any) -> bool:
        assert self.within is not None  # noqa: S101 - the caller asked
        interval = getattr(event, "interval", None)
        return interval is not None and self.within[0] <= interval.start < self.within[1]

    def _missing(self, topic: str, topic_id: str, positions: Mapping[int, int], events: Sequence[Told]) -> list[Told]:
        """Those that never stood in the topic, as far as it and the ledger can tell."""
        with self.cluster.read(topic) as reader:
            starts, ends = reader.starts(), reader.undecided_ends()
            at = {p: positions.get(p, 0) for p in ends}
            for batch in reader.read(at, until=ends):
                note_told(self.database, self.service, topic_id, _ids(batch), reader.positions)
            note_told(self.database, self.service, topic_id, (), ends)
        told = told_among(self.database, self.service, [identity for identity, _ in events])
        missing = [one for one in events if one[0] not in told]
        if missing and any(at[p] < starts[p] for p in ends):
            settled = self._settled(topic, missing)
            note_told(self.database, self.service, topic_id, settled)
            missing = [one for one in missing if one[0] not in settled]
        return missing

    def _settled(self, topic: str, missing: Sequence[Told]) -> set[str]:
        """Retention has eaten events that were never read here: those that a pipeline has run are in the ledger."""
        records = self._announcer(lambda _: None).records(missing)
        found: set[str] = set()
        for declaration in self.readers:
            if topic not in declaration.topics:
                continue
            runs = self._runs(declaration, records)
            with Ledger(self.cluster.read(LEDGER_TOPIC), self.cluster.codec, declaration.name) as ledger:
                found.update(missing[runs[one]][0] for one in ledger.read(runs))
        return found

    def _runs(self, declaration: Declaration, records: Sequence[Record]) -> dict[str, int]:
        """The ledger's ids of what a pipeline would make of these records, each with the record's number."""
        declared, name = DeclaredKeys(lambda: (declaration, self.cluster.codec)), declaration.name
        runs: dict[str, int] = {}
        for at, record in enumerate(records):
            raw = RawRecord(record.topic, "", 0, 0, -1, record.key, record.value, record.headers)
            key = declared(raw) or own_key(raw)
            runs[run_id(name, 0, [key])] = runs[waiting_id(name, 0, key)] = at
        return runs

    def _tell(self, found: Compared, topic_id: str, missing: Sequence[Told]) -> bool:
        """Whether all that is missing has been told."""
        allowed = self.limits.of(found.landed)
        if found.missed > allowed:
            found.note = (
                f"{found.missed} files were never told, and a sweep tells {allowed} at most: look first, then "
                f"farandole reconcile {self.service} --once --most {found.missed}"
            )
            return False
        if self.limits.plan:
            return False
        found.announced = self._announcer(self.cluster.send).announce(missing)
        note_told(self.database, self.service, topic_id, [identity for identity, _ in missing])
        return True

    def _announcer(self, send: Callable[..., object]) -> Announcer:
        return Announcer(self.cluster.codec.encode, send, self.cluster.clock)


def _ids(batch: Iterable[RawRecord]) -> list[str]:
    ids = (dict(raw.headers).get("ce_id") for raw in batch)
    return [one.decode("utf-8", "replace") for one in ids if one]
