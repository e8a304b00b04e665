"""A consumer of exact ranges: what a replay reads. Everything outside of them is not there for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from farandole.event import RawRecord
from farandole.kafka.source import Key, Source

AT_A_TIME, PAUSE = 20, 0.1
"""While live work is under way, so many records at most, so many seconds apart."""


class RangeSource(Source):
    """Reads ``[start, end)`` of some partitions, in a group of its own. Live work goes first: `busy` says when."""

    def __init__(
        self,
        group: str,
        ranges: Mapping[Key, tuple[int, int]],
        properties: Mapping[str, Any],
        protocol: str,
        busy: Callable[[], bool],
    ) -> None:
        super().__init__(group, sorted({topic for topic, _ in ranges}), properties, protocol)
        self._ranges, self._busy, self._pause = dict(ranges), busy, threading.Event()

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
        return [raw for raw in super().poll(at_most, timeout) if raw.offset < self._end((raw.topic, raw.partition))]

    def positions(self, partitions: Sequence[Key]) -> dict[Key, int]:
        """As those of every consumer, but never beyond a range."""
        return {key: min(at, self._end(key)) for key, at in super().positions(partitions).items()}

    def _end(self, partition: Key) -> int:
        return self._ranges[partition][1] if partition in self._ranges else 0
