"""A consumer of exact ranges: what a replay reads. Everything outside of them is not there for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from farandole.clock import SystemClock
from farandole.event import RawRecord
from farandole.kafka.source import Key, Source

AT_A_TIME, PAUSE = 20, 0.1
"""While live work is under way, so many records at most, so many seconds apart."""


class RangeSource(Source):
    """Reads ``[start, end)`` of some partitions, in a group of its own. Live work goes first: `busy` says when.

    `rate` is the most records a second over all instances; 0: as they come.
    """

    def __init__(
        self,
        group: str,
        ranges: Mapping[Key, tuple[int, int]],
        properties: Mapping[str, Any],
        protocol: str,
        busy: Callable[[], bool],
        rate: float = 0.0,
    ) -> None:
        super().__init__(group, sorted({topic for topic, _ in ranges}), properties, protocol)
        self._ranges, self._busy, self._pause = dict(ranges), busy, threading.Event()
        self._rate, self._clock = rate, SystemClock()
        self._left, self._filled = 0.0, self._clock.monotonic()

    def start(self, partition: Key) -> int:
        """Where the range of a partition begins; one without a range ends where it begins."""
        return self._ranges[partition][0] if partition in self._ranges else self.watermarks(partition)[0]

    def end_seen(self, partition: Key) -> int:
        """The end of the range."""
        return self._ranges[partition][1] if partition in self._ranges else self.watermarks(partition)[0]

    def poll(self, at_most: int, timeout: float) -> list[RawRecord]:
        """The next records inside the ranges; few of them while live work is under way."""
        if self._busy():
            self._pause.wait(PAUSE)
            at_most = min(at_most, AT_A_TIME)
        if self._rate:
            at_most = min(at_most, self._granted())
            if at_most < 1:
                self._pause.wait(min(PAUSE, 1 / self._rate))
                return []
        found = super().poll(at_most, timeout)
        self._left -= len(found) if self._rate else 0
        return [raw for raw in found if raw.offset < self._end((raw.topic, raw.partition))]

    def _granted(self) -> int:
        """How many records the rate allows by now; each instance has the share of the partitions that it reads."""
        mine = sum((p.topic, p.partition) in self._ranges for p in self._consumer.assignment())
        if not mine:
            return 1
        now, rate = self._clock.monotonic(), self._rate * mine / len(self._ranges)
        self._left = min(max(1.0, rate * PAUSE), self._left + (now - self._filled) * rate)
        self._filled = now
        return int(self._left)

    def positions(self, partitions: Sequence[Key]) -> dict[Key, int]:
        """As those of every consumer, but never beyond a range."""
        return {key: min(at, self._end(key)) for key, at in super().positions(partitions).items()}

    def _end(self, partition: Key) -> int:
        return self._ranges[partition][1] if partition in self._ranges else 0
