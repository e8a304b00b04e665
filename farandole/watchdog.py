"""Ends a service that hangs: one whose polling thread stands still is worth less than one that starts again.

Polling never waits for work, so a long step is no reason to stand still. The group notices after
max.poll.interval.ms and gives the partitions to others; nobody but the process itself can end it.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

MAX_POLL_INTERVAL_MS = 300_000
"""The client's own default of max.poll.interval.ms."""
LOOKS = 8
"""Looks in a row that must find no poll. Counted, not timed: a process that was stopped and goes on is not at fault."""
LAST_COMMITS = 30.0
"""Seconds that a service told to end may take after its grace: then it has hung."""


def limit_of(properties: Mapping[str, str]) -> float:
    """Seconds without a poll after which a service hangs: twice max.poll.interval.ms."""
    return 2 * int(properties.get("max.poll.interval.ms", MAX_POLL_INTERVAL_MS)) / 1000


def end_at_once(code: int = 1) -> None:
    """End the process now, whatever its threads do; the log is flushed first."""
    sys.stderr.flush()
    os._exit(code)


class Watchdog:
    """A thread that looks whether `polls` moves, and ends the process with exit code 1 when it does not."""

    def __init__(
        self,
        polls: Callable[[], int],
        limit: float,
        grace: float,
        stopping: threading.Event,
        say: Callable[..., None],
        end: Callable[[], Any] = end_at_once,
    ) -> None:
        self._polls, self._stopping, self._say, self._end = polls, stopping, say, end
        self._spans = {False: limit, True: grace + LAST_COMMITS}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        before, missed, closing = -1, 0, False
        while missed < LOOKS:
            # where C code keeps the interpreter to itself, this thread too stands still: then faulthandler's ends it
            faulthandler.dump_traceback_later(2 * self._spans[closing], exit=True)
            if self._over.wait(self._spans[closing] / LOOKS):
                return
            if self._stopping.is_set() and not closing:
                closing, missed = True, 0  # from here on it need not poll, but must come to its end
            now = self._polls()
            missed = missed + 1 if now == before or closing else 0
            before = now
        self._bite(closing=closing)

    def _bite(self, *, closing: bool) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        why = "told to end, it did not" if closing else "its polling thread stands still: no poll"
        self._say(
            "service.hangs",
            why=f"{why} in {self._spans[closing]:g} s; the stacks of all threads stand above",
            hint="what the polling thread waits for must answer or raise sooner; the service ends to be started again",
        )
        self._end()
