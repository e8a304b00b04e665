"""The loop of the service ``projector``: reads the whole ledger, keeps the projection, remembers nothing else.

Its offsets stand in the projection itself, so a projection that is dropped, restored or moved is read on
from where it is. Two of them at once do no harm: the second finds each line known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from farandole.clock import Clock, SystemClock
from farandole.errors import FarandoleError, TablesLost, Undecodable, Unreachable
from farandole.event import RawRecord
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import UnknownSchema
from farandole.ledger.database import make_projection
from farandole.ledger.entry import LEDGER_TOPIC, Entry
from farandole.ledger.projection import Line, positions, project
from farandole.store.engine import Database

Decode = Callable[[RawRecord], Mapping[str, Any] | None]
"""From a ledger record to its Avro record; None for a tombstone. Raises Undecodable, UnknownSchema or Unreachable."""

HEARTBEAT = 2.0
"""Seconds after which an idle projector says that there is nothing newer."""
BACKOFF = 2.0
"""Seconds to wait when broker, registry or database is away."""
SCHEMA_WAIT = 60.0
"""Seconds in which the registry may still learn a schema; then the record counts as undecodable."""

_log = structlog.get_logger("farandole.projector")


class Projector:
    """Keeps one projection. The reader and the database stay the caller's to close."""

    def __init__(self, database: Database, reader: TopicReader, decode: Decode, clock: Clock | None = None) -> None:
        self._database, self._reader, self._decode = database, reader, decode
        self._clock = clock or SystemClock()
        self._beat = 0.0
        self._unknown: dict[tuple[int, int], float] = {}
        self._stands: dict[int, int] = {}
        self.turned: Callable[[], None] = lambda: None
        """Told each time the work goes round."""
        self.tells: Callable[[Sequence[Line]], None] = lambda _: None
        """Given each batch before it is taken; given again where it could not be."""
        self.projected = 0
        """Lines taken since the start."""

    def run(self, stop: threading.Event, *, until_drained: bool = False) -> None:
        """Project until `stop` is set; with `until_drained` until nothing undecided is left to read.

        What is away is waited for, and a projection that is dropped meanwhile is read anew. Raises FarandoleError
        where the ledger topic is not the one that the projection was read from.
        """
        while not stop.is_set():
            try:
                if until_drained:
                    self._drain(stop)
                    return
                self._follow(stop)
            except TablesLost as lost:
                _log.warning("projection.lost", reason=lost.message, place=lost.place, hint=lost.hint)
                make_projection(self._database)
            except (Unreachable, UnknownSchema) as away:
                _log.warning("projector.waiting", reason=away.message, place=away.place, hint=away.hint)
                stop.wait(BACKOFF)

    def read_to(self, ends: Mapping[int, int], told: Callable[[int], None] = lambda _: None) -> None:
        """Project exactly up to these offsets; `told` hears how many lines were taken so far.

        Raises Unreachable, UnknownSchema, TablesLost.
        """
        for batch in self._reader.read(self._offsets(), until=ends):
            self._take(batch)
            told(self.projected)
        self._write([])

    def _follow(self, stop: threading.Event) -> None:
        for batch in self._reader.read(self._offsets()):
            self._take(batch)
            if stop.is_set():
                return

    def _drain(self, stop: threading.Event) -> None:
        while not stop.is_set():
            ends, offsets = self._reader.ends(), self._offsets()
            for batch in self._reader.read(offsets, until=ends):
                self._take(batch)
                if stop.is_set():
                    return
            self._write([], offsets)
            if all(self._reader.positions.get(p, 0) >= end for p, end in self._reader.ends().items()):
                return

    def _offsets(self) -> dict[int, int]:
        topic = self._reader.describe()
        with self._database.reading() as conn:
            stored = positions(conn)
        other = {read for _, read in stored.values()} - {topic.topic_id}
        if other:
            raise FarandoleError(
                f"this is not the {LEDGER_TOPIC} that the projection was read from: it was created anew",
                place=self._database.place,
                hint="keep the old database if you need it, then `farandole ledger rebuild`, or name another one in "
                "FARANDOLE_DATABASE_URL: the projection is read anew from the beginning",
            )
        self._stands = {p: stored.get(p, (0, ""))[0] for p in range(topic.partitions)}
        return dict(self._stands)

    def _take(self, batch: list[RawRecord]) -> None:
        if batch or self._clock.monotonic() - self._beat >= HEARTBEAT:
            lines = [self._line(record) for record in batch]
            self.tells(lines)
            self._write(lines)
        self.turned()

    def _write(self, lines: list[Line], complete: Iterable[int] = ()) -> None:
        now = round(self._clock.now().timestamp() * 1000)
        checked = dict.fromkeys([*self._reader.at_end, *complete], now)
        topic_id = self._reader.describe().topic_id
        read_to = dict(self._reader.positions)
        with self._database.writing() as conn:
            done = project(conn, lines, read_to=read_to, topic_id=topic_id, checked_at=checked, expected=self._stands)
        self._stands.update(read_to)
        self._beat = self._clock.monotonic()
        self.projected += done.taken
        if done.refused:
            _log.error("ledger.lower_rank", entries=done.refused, hint="see the facts ledger.lower-rank")

    def _line(self, record: RawRecord) -> Line:
        at = record.partition, record.offset
        try:
            read = self._decode(record)
        except UnknownSchema as error:
            if self._clock.monotonic() - self._unknown.setdefault(at, self._clock.monotonic()) < SCHEMA_WAIT:
                raise
            entry = _undecodable(record, Undecodable("decode.unknown-schema", error.message))
        except Undecodable as error:
            entry = _undecodable(record, error)
        else:
            if read is None:
                return Line(*at, None, (record.key or b"").decode("utf-8", "replace"), record.timestamp)
            entry = Entry.of(read)
        self._unknown.pop(at, None)
        return Line(*at, entry, entry.id, record.timestamp)


def _undecodable(record: RawRecord, error: Undecodable) -> Entry:
    """Somebody else's record in the ledger: said, and passed by."""
    return Entry(
        "fact",
        "",
        f"undecodable:{record.partition}/{record.offset}",
        fact="ledger.undecodable",
        detail={"at": str(record.position), "reason": error.reason, "message": error.message},
    )
