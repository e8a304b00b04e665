"""The only reader of the time; spans such as ``2h``."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


class Clock(Protocol):
    """Time as an argument: `now` for labels, `monotonic` for every decision within one process."""

    def now(self) -> datetime:
        """The time in UTC."""
        ...

    def millis(self) -> int:
        """The same in milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time in UTC."""
        return datetime.now(UTC)

    def millis(self) -> int:
        """The same in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()


class ManualClock:
    """A clock that a test moves."""

    def __init__(self, start: datetime = datetime(2013, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = 0.0

    def now(self) -> datetime:
        """The start plus what was advanced."""
        return self._start + timedelta(seconds=self._passed)

    def millis(self) -> int:
        """The same in milliseconds since the epoch."""
        return round(self.now().timestamp() * 1000)

    def monotonic(self) -> float:
        """What was advanced, in seconds."""
        return self._passed

    def advance(self, span: str | float) -> None:
        """Let time pass: ``advance("20d")``."""
        self._passed += seconds(span)


def seconds(span: str | float) -> float:
    """Seconds of a span such as ``250ms``, ``30s``, ``1h30m`` or a plain number.

    >>> seconds("1h30m")
    5400.0

    Raises ValueError for anything else.
    """
    if isinstance(span, int | float):
        return float(span)
    at, total = 0, 0.0
    while match := _SPAN.match(span, at):
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not span.strip() or at != len(span):
        msg = f"{span!r} is no span of time; write it like 250ms, 30s, 10m, 1h30m or 2d"
        raise ValueError(msg)
    return total


def iso(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as written in headers, logs and the ledger."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_of(milliseconds: int) -> str:
    """The same of milliseconds since 1970.

    >>> iso_of(1_356_998_400_000)
    '2013-01-01T00:00:00.000Z'
    """
    return iso(datetime.fromtimestamp(milliseconds / 1000, UTC))
