"""What is done, as the plain topic tells it, and what is remembered of a day. Pure.

Neither the order in which completions come nor that one comes again changes what is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from farandole.clock import iso, iso_of
from farandole.event import Interval
from farandole.rhythm import Came

Day = Mapping[str, int]
"""By data interval, or by quarter of an hour: milliseconds since 1970 at which it was done first."""

_QUARTER = 900_000


@dataclass(frozen=True, slots=True)
class Completion:
    """A run is done. `done_at` is the broker's time."""

    run_id: str
    pipeline: str
    done_at: datetime
    epoch: int = 0
    started_at: datetime | None = None
    interval: Interval | None = None

    def record(self) -> dict[str, Any]:
        """The Avro record."""
        return {
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "epoch": self.epoch,
            "started_at": self.started_at,
            "done_at": self.done_at,
            "interval": None if self.interval is None else self.interval.record(),
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Completion:
        """From a decoded Avro record."""
        known = {name: record[name] for name in cls.__slots__ if name in record}
        known["interval"] = None if record["interval"] is None else Interval.of(record["interval"])
        return cls(**known)

    @property
    def day(self) -> str:
        """The date in UTC."""
        return self.done_at.astimezone(UTC).date().isoformat()


def remembered(day: Day, done: Completion) -> Day:
    """The day, with one more completion.

    >>> done = Completion("r", "mart", datetime(2026, 11, 30, 6, 20, tzinfo=UTC))
    >>> remembered({}, done)
    {'2026-11-30T06:15:00.000Z': 1796019600000}
    >>> remembered(remembered({}, done), done) == remembered({}, done)
    True
    """
    at = round(done.done_at.timestamp() * 1000)
    about = done.interval
    what = f"{iso(about.start)}/{iso(about.end)}" if about else iso_of(at - at % _QUARTER)
    return {**day, what: min(at, day.get(what, at))}


def came(day: Day) -> list[Came]:
    """What came on a day, as a rhythm is learned from it."""
    found = []
    for what, at in day.items():
        start, _, end = what.partition("/")
        about = Interval(datetime.fromisoformat(start), datetime.fromisoformat(end)) if end else None
        found.append(Came(datetime.fromtimestamp(at / 1000, UTC), about))
    return found
