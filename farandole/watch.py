"""What nobody on the polling thread has time to look at: topics that change, transactions that hang.

A thread of its own asks the brokers now and then. What it finds it says, and writes to the ledger in a transaction of
its own: it is about no run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from farandole.beat import Beat, Silence
from farandole.clock import Clock, iso_of
from farandole.errors import FarandoleError
from farandole.event import Record
from farandole.identity import DELETED, LOOK, Identity, Standing
from farandole.kafka.sink import TRANSACTION_SECONDS
from farandole.outcome import Books
from farandole.topics import LEDGER

Place = tuple[str, int]
"""A topic and a partition."""
STUCK, FOREIGN_STUCK = 2.0 * TRANSACTION_SECONDS, 120.0
"""Seconds after which a transaction hangs: twice our own timeout; on topics that others write to, twice Kafka's."""


@dataclass(slots=True)
class Stable:
    """Where the last stable offsets stand, and since when: one that does not move below its end hangs."""

    patience: Callable[[str], float]
    _since: dict[Place, tuple[int, float]] = field(default_factory=dict)
    _stuck: dict[Place, int] = field(default_factory=dict)

    def look(self, stable: Mapping[Place, int], ends: Mapping[Place, int], now: float) -> list[tuple[Place, int, int]]:
        """The partitions that are stuck and were not when it looked last: where, at which offset, before which end."""
        found = []
        for place, offset in stable.items():
            at, since = self._since.get(place, (-1, now))
            if offset != at or offset >= ends[place]:
                self._since[place] = (offset, now)
                self._stuck.pop(place, None)
            elif now - since >= self.patience(place[0]) and place not in self._stuck:
                self._stuck[place] = offset
                found.append((place, offset, ends[place]))
        for place in self._since.keys() - stable.keys():
            del self._since[place]
            self._stuck.pop(place, None)
        return found


@dataclass(slots=True)
class Cluster:
    """How the watch reaches the cluster; every call may raise Unreachable.

    `ends` gives the last stable offset and the end of partitions, `publish` writes facts, in a transaction of its own,
    `beats` gives those of the services that watch over others, and the broker's time.
    """

    bootstrap: str
    ends: Callable[[Collection[Place]], tuple[Mapping[Place, int], Mapping[Place, int]]]
    publish: Callable[[list[Record]], None]
    announce: Callable[[str, int], None]
    beats: Callable[[], tuple[Collection[Beat], int]]


class Watch:
    """One per instance. `owned` gives the partitions that this instance has in hand."""

    def __init__(
        self,
        identity: Identity,
        cluster: Cluster,
        books: Books,
        owned: Callable[[], Collection[Place]],
        clock: Clock,
        say: Callable[..., None],
    ) -> None:
        self._identity, self._cluster, self._books = identity, cluster, books
        self._owned, self._clock, self._say = owned, clock, say
        declaration = books.declaration
        self._names = [*declaration.topics, declaration.retry_topic]
        own = (LEDGER, declaration.retry_topic)
        self._stable = Stable(lambda topic: STUCK if topic in own else FOREIGN_STUCK)
        self._silence = Silence()
        self._facts: list[Record] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._turn, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _turn(self) -> None:
        while not self._stop.wait(LOOK):
            try:
                self.look()
            except FarandoleError as away:  # it looks again; who needs the server meanwhile says so itself
                self._say("watch.waits", error=str(away))

    def look(self) -> None:
        """Look once. Raises Unreachable; what was found by then is told the next time."""
        grown = self._topics()
        self._transactions()
        if self._facts:
            self._cluster.publish(self._facts)
            self._facts = []
        for standing in grown:
            self._cluster.announce(standing.topic_id, standing.partitions)
        for name, last in self._silence.look(*self._cluster.beats()):
            self._say(name, role=last.role, last=iso_of(last.at))

    def _topics(self) -> list[Standing]:
        self._identity.of(self._names)
        grown = []
        for name in self._names:
            standing = self._identity.last[name]
            if standing is None and (seen := self._identity.seen.pop(name, None)):
                self._note(DELETED, seen.topic_id, {"topic": name, "topic_id": seen.topic_id})
            if standing is not None and standing.grown:
                grown.append(standing)
                detail = {"topic": name, "topic_id": standing.topic_id}
                detail |= {"old": str(standing.announced), "new": str(standing.partitions)}
                self._note("keys.moved", f"{standing.topic_id}/{standing.partitions}", detail)
        return grown

    def _transactions(self) -> None:
        places = [(LEDGER, self._books.ledger_partition), *self._owned()]
        gone = {name for name in self._names if self._identity.last[name] is None}
        stable, ends = self._cluster.ends([place for place in places if place[0] not in gone])
        for (topic, partition), offset, end in self._stable.look(stable, ends, self._clock.monotonic()):
            detail = {"topic": topic, "partition": str(partition), "offset": str(offset), "end": str(end)}
            detail["remedy"] = remedy(self._cluster.bootstrap, topic, partition, offset)
            self._note("lso.stuck", f"{topic}/{partition}/{offset}", detail)

    def _note(self, name: str, place: str, detail: dict[str, str]) -> None:
        self._say(name, **detail)
        self._facts.append(self._books.told(name, place, detail))


def remedy(bootstrap: str, topic: str, partition: int, offset: int) -> str:
    """How a person finds the producer of a transaction that hangs, and ends it, with Kafka's own tool."""
    tool = f"kafka-transactions.sh --bootstrap-server {bootstrap}"
    at = f"--topic {topic} --partition {partition}"
    return f"{tool} describe-producers {at} names it, {tool} abort {at} --start-offset {offset} ends it"
