"""The pulse of a service that watches over others: it beats while its work goes on, and listens for the others' beats.

A thread of its own beats, but only as long as the work itself turns: a service that hangs falls silent, as one that was
killed does. What it notices of others it says, writes to the ledger under an id that is the same whoever writes it, and
one of those that are left tells people.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from farandole.alerts import Routes, alert_of_watcher
from farandole.beat import Beat, News, Silence, teller
from farandole.clock import Clock, SystemClock, iso_of
from farandole.errors import FarandoleError
from farandole.event import Record
from farandole.kafka.beats import Beats, Send
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.expectations import Tail
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, Entry, ledger_partition
from farandole.service import instance, schemas
from farandole.settings import Settings, span
from farandole.topics import BEATS, own_schemas

EVERY = "FARANDOLE_BEAT_EVERY"
HANDED_ON = 3
"""Beats for which news are kept that somebody else should tell: that one may fall silent just then."""
TURN = 300.0
"""Seconds for which one turn of the work may last before the service falls silent."""


def period() -> float:
    """Seconds from one beat to the next: FARANDOLE_BEAT_EVERY, 10s unless said. Raises SettingsError."""
    return span(EVERY, "10s")


class Pulse:
    """The pulse of one instance. The work calls `turn` as often as it goes round; `limit` is the longest turn."""

    def __init__(
        self,
        me: Beat,
        book: Beats,
        send: Send,
        facts: Callable[[Sequence[News]], list[Record]],
        routes: Routes,
        clock: Clock,
        say: Callable[..., None],
        *,
        limit: float = TURN,
    ) -> None:
        self._me, self._book, self._send, self._facts, self._routes = me, book, send, facts, routes
        self._clock, self._say, self._limit = clock, say, limit
        self._silence = Silence()
        self._untold: dict[News, int] = {}
        self._tellers: dict[str, bytes] = {}
        self._unwritten: list[News] = []
        self._turned = clock.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._waiting, self._new = False, True

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def turn(self) -> None:
        """The work goes on."""
        self._turned = self._clock.monotonic()

    def close(self) -> None:
        """Say that this instance was told to end, and end the thread."""
        self._stop.set()
        self._thread.join(5)
        try:
            self._send([self._book.record(replace(self._me, ended=True))])
        except FarandoleError as away:
            self._say("pulse.waits", why=str(away))

    def _beat(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self._waiting = False
            except FarandoleError as away:  # without brokers nobody's beat is heard, and everybody says so
                if not self._waiting:
                    self._say("pulse.waits", why=str(away))
                self._waiting = True
            self._stop.wait(self._me.every)

    def look(self) -> None:
        """Beat, and listen. Raises FarandoleError; what was noticed by then is written and told the next time."""
        if self._clock.monotonic() - self._turned <= self._limit:
            self._send([self._book.record(self._me)])
        beats = self._book.read()
        news = self._silence.look(beats, self._book.now)
        for name, last in news:
            self._say(name, role=last.role, last=iso_of(last.at))
            if name == "watcher.silent":
                self._tellers[last.role] = self._first(beats)
        self._new = False
        self._unwritten += news
        self._untold |= dict.fromkeys(news, HANDED_ON)
        if self._unwritten:
            self._send(self._facts(self._unwritten))
            self._unwritten = []
        self._tell(beats)

    def _first(self, beats: Sequence[Beat]) -> bytes:
        """Whose it is to tell. What was so before this instance came, one of those has told that were there."""
        others = [beat for beat in beats if beat.key != self._me.key]
        first = (teller(others, self._book.now) if self._new else None) or teller(beats, self._book.now)
        return first.key if first else b""

    def _tell(self, beats: Sequence[Beat]) -> None:
        """Tell what is this instance's to tell, or was another's that has fallen silent itself."""
        at_work = {beat.key for beat in beats if beat.stands(self._book.now) and not beat.ended}
        for news in list(self._untold):
            whose = self._tellers[news[1].role]
            if (whose if whose in at_work else self._first(beats)) == self._me.key:
                self._routes.send(alert_of_watcher(*news))
                self._tellers[news[1].role] = self._me.key
                del self._untold[news]
            else:
                self._untold[news] -= 1
        self._untold = {news: left for news, left in self._untold.items() if left}


def facts_of(news: Sequence[News], codec: Codec, partitions: int) -> list[Record]:
    """What was noticed, as facts in the ledger: whoever notices it writes it under the same id."""
    found = []
    for name, beat in news:
        entry = Entry("fact", beat.role, f"fact:{beat.role}:{name}:{beat.at}", 0, "fact", fact=name)
        entry.detail = {"role": beat.role, "last": iso_of(beat.at)}
        entry.started_at = entry.ended_at = beat.at
        at = ledger_partition(beat.role, partitions)
        found.append(Record(LEDGER_TOPIC, entry.key, codec.encode(LEDGER_TOPIC, entry.record()), [], at))
    return found


@contextmanager
def pulse(settings: Settings, role: str, say: Callable[..., None], *, limit: float = TURN) -> Iterator[Pulse]:
    """The pulse of this process in a role, beating until the block ends. Raises SettingsError."""
    bootstrap, properties, clock = settings.bootstrap(), settings.client_properties(), SystemClock()
    routes = Routes(settings.routes())
    # more than the instance's name: in containers two may have the same
    me = Beat(role, f"{instance()}-{uuid.uuid4().hex[:8]}", period(), tells=len(routes) > 0)
    with (
        closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry,
        TopicReader(bootstrap, BEATS, properties) as reader,
        TopicReader(bootstrap, LEDGER_TOPIC, properties) as ledger,
    ):
        codec = Codec(registry, schemas(), trusted=own_schemas())

        def facts(news: Sequence[News]) -> list[Record]:
            return facts_of(news, codec, ledger.describe().partitions)

        beating = Pulse(
            me, Beats(Tail(reader), codec, clock), Emitter(bootstrap, properties).send, facts, routes, clock, say,
            limit=limit,
        )  # fmt: skip
        beating.start()
        try:
            yield beating
        finally:
            beating.close()
