"""A clock that is wrong by what a file says, inside a service: where the library reads the time, and nowhere else."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from farandole.clock import SystemClock


def wrong_by(file: Path) -> None:
    """From here on this process's clock is wrong by the seconds in the file; those it believed stand beside it."""
    told = file.with_suffix(".told")
    believed: set[float] = set()

    def wrong() -> float:
        seconds = float(file.read_text() or 0)
        if seconds not in believed:
            believed.add(seconds)
            with told.open("a") as lines:
                lines.write(f"{seconds:g}\n")
        return seconds

    SystemClock.now = lambda _: datetime.now(UTC) + timedelta(seconds=wrong())  # type: ignore[method-assign]
    SystemClock.millis = lambda _: round((time.time() + wrong()) * 1000)  # type: ignore[method-assign]
