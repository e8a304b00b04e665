"""The dead-letter guard of one partition, pure: when most of what ends is dead of one cause, the line stops.

A bad deploy would otherwise drain the topic into the dead-letter topic.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

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
    """Counts the outcomes of one partition. Called from every slot."""

    def __init__(self, *, on: bool = True) -> None:
        self._on = on
        self._lock = threading.Lock()
        self._last: deque[str] = deque(maxlen=LAST)
        self._row = 0
        self.stop: Stop | None = None

    def settled(self) -> None:
        """An event came to a good end."""
        self._last.append("")
        self._row = 0

    def died(self, fingerprint: str) -> bool:
        """An event is dead. Whether its letter may be written: what dies after the stop is left for later."""
        if not self._on:
            return True
        with self._lock:
            if self.stop is not None:
                return False
            self._row = self._row + 1 if self._row and self._last[-1] == fingerprint else 1
            self._last.append(fingerprint)
            if self._row > IN_A_ROW:
                self.stop = Stop(fingerprint, self._row, self._row)
            elif (dead := self._last.count(fingerprint)) > SHARE:
                self.stop = Stop(fingerprint, dead, len(self._last))
            return True
