"""Runs that wait in ``retry.<group>``: which may go on now, in the order of their record key.

A retry topic is no queue by due time: the partition is read ahead, and what is due goes, whatever stands before it.
Only the first of a record key is ever due; the others stand behind it. Pure but for the clock: SQL knows the same
rows, and this room is filled again from the topic by whoever takes the partition over.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

from farandole.clock import Clock
from farandole.delivery import REDRIVE
from farandole.errors import DatabaseUnreachable
from farandole.owned import Owned
from farandole.reading import At, Reading

ROOM = 100_000
"""Records of a retry partition that may wait at a time."""
ASK_AGAIN = 1.0
"""Seconds between two looks whether a dead letter still holds its record key."""


@dataclass(slots=True)
class Parked:
    """A run that waits, with the retry records it came by: one, or one for each event of a joined set."""

    owned: Owned
    run_id: str
    okey: bytes
    place: tuple[str, int, int]  # where its event stood first: the order within a record key
    parts: dict[int, Reading]
    attempt: int
    due: float  # on the monotonic clock
    running: bool = False
    over: bool = False

    @property
    def readings(self) -> list[Reading]:
        """Its events in the order of the set."""
        return [self.parts[n] for n in sorted(self.parts)]

    @property
    def whole(self) -> bool:
        """Whether all parts of the set are here."""
        first = next(iter(self.parts.values()))
        return first.come is not None and len(self.parts) == first.come.delivery.parts


@dataclass(slots=True)
class Parking:
    """What waits on this instance, and when it is due.

    `held` asks SQL which record keys a dead letter holds; it may raise DatabaseUnreachable.
    """

    clock: Clock
    ordered: bool
    held: Callable[[set[bytes]], set[bytes]] | None = None
    arrived: list[Parked] = field(default_factory=list)
    """Those that came since somebody last looked: what is wanted of them may stand there already."""
    _by_run: dict[str, Parked] = field(default_factory=dict)
    _by_key: dict[At, str] = field(default_factory=dict)
    _lines: dict[tuple[Any, bytes], list[tuple[tuple[str, int, int], str]]] = field(default_factory=dict)
    _heap: list[tuple[float, int, Parked]] = field(default_factory=list)
    _number: Any = field(default_factory=count)

    def __len__(self) -> int:
        return len(self._by_run)

    def knows(self, key: At, run_id: str) -> bool:
        """Whether a key waits here already, by an earlier delivery."""
        return key in self._by_key and not (self._by_key[key] == run_id and not self._by_run[run_id].whole)

    def add(self, reading: Reading, attempt: int, due: float) -> None:
        """A delivery that may run at `due`, on the monotonic clock, if nothing of its record key stands before it."""
        assert reading.come is not None  # noqa: S101 - only a retry record is parked
        delivery, raw = reading.come.delivery, reading.raw
        self._by_key[reading.at] = delivery.run_id
        item = self._by_run.get(delivery.run_id)
        if item is not None:
            item.parts[delivery.part] = reading
        else:
            okey = raw.key if self.ordered and raw.key and delivery.parts == 1 else b""
            place = (raw.topic, raw.partition, raw.offset)
            item = Parked(reading.owned, delivery.run_id, okey, place, {delivery.part: reading}, attempt, due)
            self._by_run[delivery.run_id] = item
            if okey:
                line = self._lines.setdefault((reading.owned.key, okey), [])
                insort(line, (place, delivery.run_id))
        if item.whole:
            self.arrived.append(item)
            self._arm(item)

    def due(self) -> list[Parked]:
        """What may go on now; each is given out once, until it is over or waits again."""
        now, may = self.clock.monotonic(), list[Parked]()
        while self._heap and self._heap[0][0] <= now:
            item = heapq.heappop(self._heap)[2]
            if not (item.over or item.running or item.due > now) and self._is_first(item):
                may.append(item)
        held: set[bytes] = set()
        if self.held is not None and (asked := {item.okey for item in may if self._may_be_held(item)}):
            try:
                held = self.held(asked)
            except DatabaseUnreachable:
                for item in may:
                    heapq.heappush(self._heap, (now, next(self._number), item))
                raise
        ready = []
        for item in may:
            if item.okey in held and self._may_be_held(item):
                heapq.heappush(self._heap, (now + ASK_AGAIN, next(self._number), item))
            elif not item.running:
                item.running = True
                ready.append(item)
        return ready

    def again(self, run_id: str, attempt: int, pause: float) -> None:
        """It was tried and waits again; it keeps its place before the others of its record key."""
        item = self._by_run[run_id]
        item.running, item.attempt, item.due = False, attempt, self.clock.monotonic() + pause
        self._arm(item)

    def wake(self, run_id: str) -> bool:
        """What it rested for is over: it may go on now. False while it is being tried: ask once more."""
        item = self._by_run.get(run_id)
        if item is not None and item.running:
            return False
        if item is not None:
            item.due = self.clock.monotonic()
            self._arm(item)
        return True

    def waits(self, run_id: str) -> bool:
        """Whether a run stands here, being tried or not."""
        return run_id in self._by_run

    def over(self, run_id: str) -> None:
        """It has ended: the next of its record key may go when it is due."""
        if (item := self._by_run.pop(run_id, None)) is None:
            return
        item.over = True
        for reading in item.parts.values():
            self._by_key.pop(reading.at, None)
        where = (item.owned.key, item.okey)
        if line := self._lines.get(where):
            line.remove((item.place, run_id))
            if line:
                self._arm(self._by_run[line[0][1]])
            else:
                del self._lines[where]

    def drop(self, owned: Owned) -> None:
        """The partition is gone, and all that waits in it."""
        for item in [i for i in self._by_run.values() if i.owned is owned]:
            item.over = True
            del self._by_run[item.run_id]
            for reading in item.parts.values():
                self._by_key.pop(reading.at, None)
            self._lines.pop((owned.key, item.okey), None)

    def find(self, run_id: str) -> Parked | None:
        """A run that waits here and is not being tried."""
        item = self._by_run.get(run_id)
        return None if item is None or item.running or not item.whole else item

    def next_due(self) -> float | None:
        """When to look again, on the monotonic clock."""
        return self._heap[0][0] if self._heap else None

    def _arm(self, item: Parked) -> None:
        if self._is_first(item) and not item.running and item.due != inf:
            heapq.heappush(self._heap, (item.due, next(self._number), item))

    def _is_first(self, item: Parked) -> bool:
        line = self._lines.get((item.owned.key, item.okey)) if item.okey else None
        return line is None or line[0][1] == item.run_id

    def _may_be_held(self, item: Parked) -> bool:
        """Behind a dead letter; the redrive of that letter itself is what everybody waits for."""
        first = item.readings[0].come
        return self.held is not None and bool(item.okey) and first is not None and first.delivery.kind != REDRIVE
