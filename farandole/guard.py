"""The dead-letter guard of one partition, pure: when most of what ends is dead of one cause, the line stops.

A bad deploy would otherwise drain the topic into the dead-letter topic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice, takewhile

IN_A_ROW = 20
"""More dead letters of one fingerprint than this, without anything else between, stop a partition."""
LAST, SHARE = 100, 30
"""And so do more than this many among the last hundred outcomes."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a partition was stopped: the cause, and how many of how many outcomes it was."""

    fingerprint: str
    dead: int
    of: int

    def __str__(self) -> str:
        return f"{self.dead} of {self.of} outcomes were dead of {self.fingerprint}"


class Guard:
    """Counts the outcomes of one partition: `last` holds the fingerprint of a dead one, "" for any other."""

    def __init__(self, *, on: bool = True) -> None:
        self._on = on
        self.last: deque[str] = deque(maxlen=LAST)
        self.stop: Stop | None = None
        self.told = False  # that it has stopped, to SQL and the ledger

    def died(self) -> None:
        """The last one is dead; it stops where that is too many."""
        if not self._on or self.stop is not None:
            return
        fingerprint = self.last[-1]
        row = len(list(takewhile(fingerprint.__eq__, islice(reversed(self.last), IN_A_ROW + 1))))
        if row > IN_A_ROW:
            self.stop = Stop(fingerprint, row, row)
        elif (dead := self.last.count(fingerprint)) > SHARE:
            self.stop = Stop(fingerprint, dead, len(self.last))
