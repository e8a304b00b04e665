"""A stage: a pipeline's whole run from record to books, without Kafka, with time in the test's hands.

The loop, the intake, the matcher, the runs, the takeover and the settler are those of a running service; what
stands in for Kafka and SQL are lists and dicts.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, cast

from farandole.clock import ManualClock, iso, seconds
from farandole.commit_class import work_of
from farandole.control import Command
from farandole.deadletter import DeadLetter
from farandole.declaration import Declaration
from farandole.delivery import REDRIVE, retry_record
from farandole.errors import DeclarationError
from farandole.event import EVENT_TYPES, Envelope, Record, event_type_of, record_key
from farandole.fill import declared_class, plan
from farandole.find import find_declaration, find_resources
from farandole.identity import Identity
from farandole.ids import digest
from farandole.intake import Intake
from farandole.lanes import Lanes
from farandole.ledger.entry import LEDGER_TOPIC, Entry
from farandole.locality import locality
from farandole.match import Matcher
from farandole.outcome import Books
from farandole.owned import WRITTEN, Owned
from farandole.protection import Protection
from farandole.reading import Reader
from farandole.resources import Resources
from farandole.run import Kit, Run
from farandole.selection import OPEN, Standing, state_of
from farandole.service import parking_of, schemas
from farandole.settle import Settler
from farandole.store import Store, open_store
from farandole.takeover import Takeover
from farandole.testing.log import ListReader, ListSession, ListSource, Log, StageCodec
from farandole.testing.memory import MemoryStore
from farandole.worker import Worker


class Stage:
    """Runs one pipeline: tell it events, let time pass, look at what it sent.

    `pipeline` is a Pipeline class, a function labelled @pipeline, a declaration, or a service's name. `resources`
    stand in by type; what is not given there is opened as in production. A pause before a new attempt is always the
    longest that its policy allows. `writers` are the schemas of bytes that a registry knows by an id, for
    :meth:`tell_raw`.

    Raises Mistakes for what a service would refuse to start with, such as an effect outside that is not declared.
    """

    def __init__(
        self,
        pipeline: Any,
        resources: Mapping[Any, Any] | None = None,
        clock: ManualClock | None = None,
        writers: Mapping[int | str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.declaration = _declaration(pipeline)
        self.clock = clock or ManualClock()
        given = Resources.of(resources or {}, find_resources(self.declaration))
        self._log = Log(self.clock)
        self._codec = StageCodec(schemas(), writers)
        self._version, self._given = "stage", resources or {}
        self._plans = plan(self.declaration, given)
        self._resources = given
        self._class = declared_class(self.declaration, self._plans)
        self._store = self._database() if self._class == "database" else cast("Store", MemoryStore(self.clock))
        self._desk = _Desk()
        self._source, self._worker = self._opened()

    # ---- what a test does

    def tell(self, *events: Any, id: str = "", source: str = "/stage") -> None:  # noqa: A002 - the envelope's own word
        """Put events on their topics, and let the pipeline go as far as it can without time passing.

        The id of an event is made from what it says: the same event again is the same event told twice, unless
        `id` says otherwise.
        """
        for event in events:
            event_type = event_type_of(event)
            if event_type is None or event_type not in self.declaration.topics:
                raise DeclarationError(
                    f"{self.declaration.name} does not listen for {type(event).__name__}",
                    place=self.declaration.source,
                    hint=f"it listens for {', '.join(self.declaration.topics)}",
                )
            record = event.record()
            value = self._codec.encode(event_type, record)
            identity = id or digest(event_type.encode() + value).hex()
            envelope = Envelope(identity, source, event_type, iso(self.clock.now()), correlation_id=identity)
            self._log.append(Record(event_type, record_key(event, record), value, list(envelope.headers())))
        self._turn()

    def tell_raw(self, topic: str, value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> None:
        """Put bytes on a topic as any client could: without envelope, not decodable, or a tombstone."""
        self._log.append(Record(topic, key, value, list(headers)))
        self._turn()

    def send(self, *events: Any, id: str = "", source: str = "/stage") -> _Done:  # noqa: A002 - as above
        """:meth:`tell`, for tests that are coroutines: ``await stage.send(event)``."""
        self.tell(*events, id=id, source=source)
        return _DONE

    def wait(self, span: str | float) -> _Done:
        """Let time pass; what is due within it happens when it is due. May be awaited, and need not be."""
        end = self.clock.monotonic() + seconds(span)
        while (due := self._due()) is not None and due <= end:
            self.clock.advance(max(0.0, due - self.clock.monotonic()))
            self._turn()
        self.clock.advance(max(0.0, end - self.clock.monotonic()))
        self._turn()
        return _DONE

    def _due(self) -> float | None:
        """The moment on the clock when something is to be tried again, here or from the retry topic."""
        moments = (self._lanes.due(), self._worker.intake.parking.next_due())
        return min((m for m in moments if m is not None), default=None)

    def command(self, *commands: Command) -> None:
        """Give commands, as `farandole pause`, `resume` and `runs cancel|release|reschedule` do."""
        self._desk.given += commands
        self._turn()

    def redrive(self) -> None:
        """Run every dead letter that is open again, in its next life, as `farandole dlq redrive` does."""
        stands = {run.id: Standing(run.life, run.state) for run in self.runs}
        for letter in self.dead:
            if state_of(letter.life, stands.get(letter.run_id)) == OPEN:
                delivery = letter.delivery(REDRIVE, "stage", "stage")
                self._log.append(retry_record(self.declaration.retry_topic, 1, letter.event(), delivery))
        self._turn()

    def restart(self, newer: Any = None, *, version: str = "newer") -> None:
        """End as by SIGKILL and start again: what was under way is lost, what was committed is taken over.

        With `newer` it starts as that pipeline, which has the same name: as after a deployment of newer code.
        """
        if newer is not None:
            self.declaration, self._version = _declaration(newer), version
            self._resources = Resources.of(self._given, find_resources(self.declaration))
            self._plans = plan(self.declaration, self._resources)
        self._source, self._worker = self._opened()
        self._turn()

    def sql(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """One statement on the database that the steps share: make a table before, look at its rows after."""
        from farandole.resources import Database

        with self._store.transaction() as connection:
            done = Database(connection).execute(text, parameters)
            return [tuple(row) for row in done] if done.returns_rows else []

    # ---- what a test looks at

    @property
    def sent(self) -> list[Any]:
        """The events that it emitted, in order."""
        return [self._fact(r.topic, r.value) for r in self._log.produced if r.topic in self.declaration.emits]

    @property
    def records(self) -> list[Record]:
        """The same as records, with key and envelope."""
        emits = self.declaration.emits
        return [Record(r.topic, r.key, r.value, r.headers) for r in self._log.produced if r.topic in emits]

    @property
    def dead(self) -> list[DeadLetter]:
        """The dead letters, each whole, with its reason."""
        return [DeadLetter.of(r) for r in self._log.topics.get(self.declaration.dead_letter_topic, [])]

    @property
    def ledger(self) -> list[Entry]:
        """All lines of the ledger as they were written."""
        lines = self._log.topics.get(LEDGER_TOPIC, [])
        return [Entry.of(self._codec.decode(LEDGER_TOPIC, r.value) or {}) for r in lines]

    @property
    def runs(self) -> list[Entry]:
        """The runs that ended, as the ledger has them."""
        newest = {e.id: e for e in self.ledger if e.kind == "run"}
        return [e for e in newest.values() if e.state not in ("waiting", "joined")]

    @property
    def waiting(self) -> list[Any]:
        """The events that wait in a join for others."""
        newest = {e.id: e for e in self.ledger if e.kind == "run"}.values()
        return [self._fact(e.triggers[0]["topic"], e.payload) for e in newest if e.state == "waiting"]

    @property
    def filtered(self) -> list[tuple[Any, str]]:
        """The events that no subscription took, each with the reason."""
        return [
            (self._fact(span["topic"], self._log.topics[span["topic"]][offset].value), why)
            for span in self._spans()
            for why, offsets in span["filtered"].items()
            for offset in offsets
        ]

    @property
    def duplicates(self) -> int:
        """How many records were a second telling."""
        return sum(len(span["duplicates"]) for span in self._spans())

    @property
    def under_way(self) -> int:
        """Runs that wait for their next attempt, where they are or parked."""
        return self._worker.lanes.running + len(self._worker.intake.parking)

    @property
    def open_records(self) -> set[tuple[str, int]]:
        """Topic and offset of records whose outcome is not written yet: they wait, or one before them does."""
        owned = self._worker.owned.values()
        unwritten = {(o.topic, slot.offset) for o in owned for slot in o.window if slot.state != WRITTEN}
        return unwritten | {
            (o.topic, at) for o in owned for at in range(o.seen, len(self._log.topics.get(o.topic, ())))
        }

    @property
    def told(self) -> int:
        """How many records were put on its topics."""
        return sum(len(self._log.topics.get(topic, ())) for topic in self.declaration.topics)

    def _spans(self) -> list[Any]:
        return [e.span for e in self.ledger if e.span is not None and e.span["topic"] in self.declaration.topics]

    def _fact(self, topic: str, value: bytes | None) -> Any:
        record = self._codec.decode(topic, value)
        return None if record is None else EVENT_TYPES[topic].of(record)

    # ---- how it is put together

    @property
    def _lanes(self) -> _Inline:
        return cast("_Inline", self._worker.lanes)

    def _turn(self) -> None:
        """Turn until nothing moves: a batch may need several turns, of which the last one changes nothing."""
        before: Any = None
        while (now := self._moved()) != before or self._source.unread():
            before = now
            self._worker.turn()

    def _moved(self) -> Any:
        owned = self._worker.owned.values()
        settling = len(self._worker.settler.unsettled)
        return self._log.transactions, settling, [(o.phase, o.seen, o.open, len(o.window)) for o in owned]

    def _opened(self) -> tuple[ListSource, Worker]:
        """A worker over what is there. Numbers of partitions are 1, and nothing has to be waited for."""
        codec, declaration, clock, store = cast("Any", self._codec), self.declaration, self.clock, self._store
        books = Books(declaration, self._codec.encode, clock, 0, 1, 1, self._version, "stage")
        source = ListSource(self._log, [*declaration.topics, declaration.retry_topic])
        resumable = self._class == "outside" or (self._class == "events" and len(self._plans) > 1)
        kit = Kit(declaration, self._plans, self._resources, self._codec.encode, clock, luck=lambda: 1.0)
        kit.checkpoints, kit.version = store.checkpoints if resumable else None, self._version
        if any(f.is_async for p in self._plans for f in p.functions):
            kit.caller.loop = _loop()
        claiming = self._class == "outside" or not locality(declaration).local
        matcher, owners = Matcher(declaration), dict[tuple[str, int], Owned]()
        reader = Reader(matcher, codec, clock, owners, lambda *again: worker.place_back(*again))  # noqa: PLW0108 - below
        parking = parking_of(declaration, store, clock)
        kit.gate = Protection(store, books, clock, _quiet)
        intake = Intake(
            reader, matcher, codec, books, store, clock, owners, _quiet, claiming, resumable, parking, kit.gate
        )
        side = cast("Any", _OneByOne())
        takeover = Takeover(
            declaration, store, cast("Any", source), codec, books, "stage",
            lambda _: cast("Any", ListSession(self._log)), lambda topic: cast("Any", ListReader(self._log, topic)),
            lambda _: 0, side, _quiet, declaration.name, Identity(source.described, store.topics, lambda _: {}),
        )  # fmt: skip
        lanes = _Inline(self._class, kit, store, books)
        settler = Settler(cast("Any", source), store.inbox, books, clock, side, _quiet)
        worker = Worker(cast("Any", source), takeover, intake, lanes, settler, self._desk, clock, (0.0, 1, 0.0))
        worker.assigned(source.partitions)
        worker.turn()
        return source, worker

    def _database(self) -> Store:
        folder = tempfile.mkdtemp(prefix="farandole-stage-")
        store = open_store(f"sqlite:///{Path(folder) / 'stage.db'}", self.declaration.name)
        weakref.finalize(self, _forget, store, folder)
        return store


Headers = Iterable[tuple[str, bytes | None]]


class _Inline(Lanes):
    """Slots without threads: a run is done where it is asked for."""

    def __init__(self, commit_class: str, kit: Kit, store: Store, books: Books) -> None:
        work = work_of(commit_class, kit, store, books, _quiet)
        super().__init__(work, 0, kit.clock, ordered=kit.declaration.ordering == "key")

    def ended(self) -> list[Run]:
        over = super().ended()
        while not self._ready.empty():
            run = self._ready.get()
            if run is not None:
                self._work(run)
                self._ended.append(run)
            over += super().ended()
        return over

    def wait(self, longest: float) -> None:
        """Nobody else works: waiting would not help."""

    def due(self) -> float | None:
        """The moment on the clock when the next run is to be tried again."""
        return self._later[0][0] if self._later else None


class _Desk:
    """Hears the commands that a test gives."""

    def __init__(self) -> None:
        self.given: list[Command] = []

    def take(self) -> list[Command]:
        """Those since the last look."""
        news, self.given = self.given, []
        return news


class _OneByOne:
    """What stands in for a pool of threads."""

    map = staticmethod(map)

    @staticmethod
    def submit(act: Callable[[], Any]) -> Future[Any]:
        """Done at once; what it raises is told when the result is asked for."""
        future: Future[Any] = Future()
        try:
            future.set_result(act())
        except Exception as error:  # noqa: BLE001 - as a pool does
            future.set_exception(error)
        return future


class _Done:
    """May be awaited; is done already."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # nothing to wait for


_DONE = _Done()


def _quiet(_event: str, **_fields: Any) -> None:
    """A stage says nothing: a test looks at what became of the events."""


def _forget(store: Store, folder: str) -> None:
    store.close()
    shutil.rmtree(folder, ignore_errors=True)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One loop for the async steps of all stages of a process, as a service has one."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="stage-steps", daemon=True).start()
    return loop


def _declaration(pipeline: Any) -> Declaration:
    if isinstance(pipeline, str):
        return find_declaration(pipeline)
    found = pipeline if isinstance(pipeline, Declaration) else getattr(pipeline, "declaration", None)
    if not isinstance(found, Declaration):
        raise DeclarationError(
            f"{getattr(pipeline, '__name__', pipeline)} is no pipeline",
            hint="give a class derived from Pipeline, a function labelled @pipeline, or a service's name",
        )
    return found
