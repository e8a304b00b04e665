"""Ends a service whose client of Kafka has lost the group for good.

A coordinator that is away for long leaves the brokers' list, and now and then librdkafka (2.16; its issues 5456 and
5511) waits for that one for ever: the group gives the partitions to others, and the client neither hears of it nor
joins again. A second client tells whether it is that: it has an answer at once, where ours has had none for long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farandole.clock import Clock
from farandole.errors import BrokerUnreachable
from farandole.kafka.source import Key, Source
from farandole.watchdog import end_at_once

EVERY, LOOKS = 15.0, 3
"""Seconds between two looks, and how many in a row must find that only our client has no answer."""
ANSWER = 2.0
"""Seconds for which our client is waited for: on the polling thread, so not long."""
ANOTHER = 10.0
"""Seconds for another client, which has to connect first."""


class Stranded:
    """Looks on, on the polling thread; the process ends with exit code 1, to be started again."""

    def __init__(
        self, source: Source, asked: Key, clock: Clock, say: Callable[..., None], end: Callable[[], Any] = end_at_once
    ) -> None:
        self._source, self._asked, self._clock, self._say, self._end = source, asked, clock, say, end
        self._due, self._alone = clock.monotonic() + EVERY, 0

    def look(self) -> None:
        """Ask for a committed offset, whichever: only the group's coordinator knows it."""
        if self._clock.monotonic() < self._due:
            return
        self._alone = 0 if self._answered(self._source, ANSWER) or not self._another_is() else self._alone + 1
        self._due = self._clock.monotonic() + EVERY
        if self._alone >= LOOKS:
            self._say(
                "service.hangs",
                why=f"its client has found no coordinator of the group in {LOOKS} looks; another one finds it at once",
                hint="nothing is lost; the service ends to be started again, with a new client",
            )
            self._end()

    def _another_is(self) -> bool:
        another = self._source.another()
        try:
            return self._answered(another, ANOTHER)
        finally:
            another.close()

    def _answered(self, source: Source, timeout: float) -> bool:
        try:
            source.committed([self._asked], timeout)
        except BrokerUnreachable:
            return False
        return True
