"""What a person sees while the demo runs: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from farandole.clock import SystemClock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY = 2.0
"""Seconds between two plain lines."""

Counts = Mapping[str, tuple[int, int]]
"""By name: how many are done, of how many."""


class Display:
    """Says what happens, on standard error, with the seconds since it was made in front."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._started = self._clock.monotonic()
        self._last = self._started
        self._bars: Progress | None = None
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("        {task.description:14}"), BarColumn(40), MofNCompleteColumn())
            self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock.monotonic() - self._started

    def say(self, text: str) -> None:
        """One line, for good."""
        line = f"{self.seconds:5.1f} s  {text}"
        if self._bars is not None:
            self._bars.console.print(line, highlight=False, markup=False)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def counts(self, counts: Counts) -> None:
        """How far everything is."""
        if self._bars is not None:
            for name, (done, of) in counts.items():
                if name not in self._rows:
                    self._rows[name] = self._bars.add_task(name, total=of)
                self._bars.update(self._rows[name], completed=done, total=of)
        elif self._clock.monotonic() - self._last >= EVERY:
            self._last = self._clock.monotonic()
            self.say("  ".join(f"{name} {done}/{of}" for name, (done, of) in counts.items()))
