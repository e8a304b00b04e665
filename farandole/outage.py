"""The database is away, or says that a partition is another's: no dedup, no work, until it answers again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from farandole.clock import Clock
from farandole.errors import DatabaseUnreachable, Fenced, TablesLost
from farandole.kafka.source import Key
from farandole.owned import Owned

if TYPE_CHECKING:
    from farandole.worker import Worker


class Outage:
    """What is expensive waits until `due`, a pause that grows."""

    def __init__(
        self, clock: Clock, say: Callable[..., None], owned: Mapping[Key, Owned], set_back: Callable[[str], None]
    ) -> None:
        self._clock, self._say, self._owned, self._set_back = clock, say, owned, set_back
        self.due = 0.0
        self.lost = False  # it answers, and the tables are others than those that were written to
        self._tries = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A block in which the database may be away: that is said, `set_back` is called, and no more.

        A partition that it says to be another instance's is given up, and what the block began with it set back.
        """
        try:
            yield
        except Fenced as fenced:
            theirs = [one for one in self._owned.values() if str(one.lane) == fenced.place]
            if not theirs:
                raise
            for one in theirs:
                one.fenced()
            self._set_back(str(fenced))
        except DatabaseUnreachable as away:
            self.due = self._clock.monotonic() + min(5.0, 0.2 * 2.0 ** min(self._tries, 8))
            self._tries += 1
            self.lost = self.lost or isinstance(away, TablesLost)
            self._say("database.unreachable", error=str(away), tries=self._tries)
            self._set_back(str(away))
        else:
            if self._tries:
                self._say("database.back", tries=self._tries)
            self._tries = 0

    def forsake(self, worker: Worker) -> None:
        """What has ended goes to Kafka, which decides; then all is taken over anew, in tables that are filled again."""
        keys = list(worker.owned)
        worker.source.hold(keys)
        worker.revoked(keys)
        worker.source.lost_offsets.difference_update(keys)
        worker.assigned(keys)
        self.lost = False
