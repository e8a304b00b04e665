"""What a stopped pipeline keeps in SQL, dropped and filled anew from the ledger, with a digest before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from farandole.clock import SystemClock
from farandole.declaration import Declaration
from farandole.errors import FarandoleError
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.outcome import Books
from farandole.restore import Restore
from farandole.service import instance, schemas, version
from farandole.settings import Settings
from farandole.store import open_store
from farandole.topics import own_schemas

Digests = Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Refilled:
    """Rows and digest of each table that gives answers, and how many entries of the ledger they were made of."""

    before: Digests
    after: Digests
    entries: int

    @property
    def same(self) -> bool:
        """Whether both give the same answers."""
        return self.before == self.after


def rebuild_tables(settings: Settings, declaration: Declaration) -> Refilled:
    """Drop what this pipeline keeps and read it anew from the ledger; positions follow from the group's offsets.

    Raises FarandoleError while an instance runs, or where records that SQL has decided are not published yet: they
    would be lost. Raises Unreachable.
    """
    name, properties = declaration.name, settings.client_properties()
    admin = Admin(settings.bootstrap(), properties)
    if admin.group(name).active:
        raise FarandoleError(
            f"{name} runs, and asks the tables", place=f"group {name}", hint="stop its instances, then do it again"
        )
    topics = admin.topics([*declaration.topics, declaration.retry_topic, LEDGER_TOPIC])
    with (
        closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry,
        closing(open_store(settings.database_url, name)) as store,
    ):
        if count := store.recovery.undecided():
            raise FarandoleError(
                f"{count} records were decided and not published: they stand in the outbox alone",
                place=settings.database(name),
                hint=f"farandole run {name} --until-drained publishes them; then do it again",
            )
        codec = Codec(registry, schemas(), trusted=own_schemas())
        at = ledger_partition(name, topics[LEDGER_TOPIC].partitions)
        books = Books(declaration, codec.encode, SystemClock(), at, 1, 1, version(), instance())
        offsets = _Offsets(admin, name, {one.name: one.topic_id for one in topics.values()})
        restore = Restore(
            declaration,
            store,
            codec,
            lambda topic: TopicReader(settings.bootstrap(), topic, properties),
            offsets,
            books,
            lambda *_, **__: None,
            slice=float("inf"),
        )
        restore.doubtful = ()  # the checkpoints stay: they know what had begun
        restore.ensure()
        before = store.recovery.digests()
        store.recovery.forget()
        restore.ensure()
        return Refilled(before, store.recovery.digests(), restore.entries)


@dataclass(slots=True)
class _Offsets:
    """The committed offsets of a group that nobody is a member of."""

    admin: Admin
    group: str
    topic_ids: dict[str, str]

    def committed(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, str]]:
        found = self.admin.committed(self.group)
        return {p: (found[p].offset, found[p].metadata or "") for p in partitions if p in found}
