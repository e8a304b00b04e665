"""The database is away: no dedup, no work, until it answers again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from farandole.clock import Clock
from farandole.errors import DatabaseUnreachable


class Outage:
    """What is expensive waits until `due`, a pause that grows."""

    def __init__(self, clock: Clock, say: Callable[..., None], set_back: Callable[[str], None]) -> None:
        self._clock, self._say, self._set_back = clock, say, set_back
        self.due = 0.0
        self._tries = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A block in which the database may be away: that is said, `set_back` is called, and no more."""
        try:
            yield
        except DatabaseUnreachable as away:
            self.due = self._clock.monotonic() + min(5.0, 0.2 * 2.0 ** min(self._tries, 8))
            self._tries += 1
            self._say("database.unreachable", error=str(away), tries=self._tries)
            self._set_back(str(away))
        else:
            if self._tries:
                self._say("database.back", tries=self._tries)
            self._tries = 0
