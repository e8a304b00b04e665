"""The rhythm of what came: from a history to the expectation that would fit it, and what it would have told. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from statistics import median, quantiles
from typing import Any
from zoneinfo import ZoneInfo

from farandole.declaration import Expect
from farandole.event import Interval
from farandole.expectation import covered

LEAST = 10
"""Days that a rule is learned from at least."""
OFTEN, SELDOM = 0.8, 0.2
"""On which part of the Mondays, say, something comes, for Mondays to count or not."""
GRACE = timedelta(minutes=15)
"""The least grace that is proposed."""

_DAY = timedelta(days=1)
_STEP = 300  # deadlines and graces are whole multiples of five minutes
_WORKDAYS = 5
_NAMED = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Came:
    """Something came at `at`: a run that was done, an event. `interval` is what it was about, if it said so."""

    at: datetime
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A deadline and a grace, in seconds from the midnight that begins the day of the deadline."""

    by: int
    grace: int

    @property
    def alarm(self) -> int:
        """When it would be told."""
        return self.by + self.grace


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What could be expected. `expect` is None where there is no rhythm, and `why` says what is missing.

    `weekdays` is the evidence: per weekday how many days there were, on how many something came, and when (median
    and latest). `tried` are the days that were judged by the rule of the days before them: how many of them would
    have been late, how many alerts would have been false (it came after all), and on how many nothing came.
    """

    expect: Expect | None
    why: str
    first: date | None = None
    last: date | None = None
    weekdays: tuple[Mapping[str, Any], ...] = ()
    absent: tuple[date, ...] = ()
    tried: Mapping[str, int] | None = None

    def record(self) -> dict[str, Any]:
        """The answer as JSON has it."""
        words = ("by", "each", "grace", "interval")
        return {
            "expect": None if self.expect is None else {word: getattr(self.expect, word) for word in words},
            "why": self.why,
            "from": self.first and self.first.isoformat(),
            "to": self.last and self.last.isoformat(),
            "weekdays": list(self.weekdays),
            "absent": [day.isoformat() for day in self.absent],
            "tried": self.tried and dict(self.tried),
        }


def suggested(came: Sequence[Came], zone: str, today: date) -> Suggestion:
    """The expectation that fits what came before `today`, days counted in `zone`.

    >>> start = datetime(2026, 9, 7, tzinfo=UTC)
    >>> nightly = [Came(start + n * _DAY + timedelta(hours=6, minutes=n % 7)) for n in range(28)]
    >>> suggested(nightly, "UTC", date(2026, 10, 5)).expect
    Expect(by='06:10 UTC', each='day', grace='15m', interval='any', place='')
    """
    if not came:
        return Suggestion(None, "nothing has come yet")
    where, interval = ZoneInfo(zone), "previous"
    times = {day: at for day, at in _complete(came, where).items() if day < today}
    if len(times) < LEAST:  # what comes does not add up to days of data: whatever comes first counts
        times, interval = {day: at for day, at in _first(came, where).items() if day < today}, "any"
    elif median(times.values()) < 0:
        interval = "same"
    if interval != "previous":
        times = {day: at if interval == "any" else at + _seconds(_DAY) for day, at in times.items()}
    found = _described(times)
    each = _each(found.weekdays)
    days = {day: at for day, at in times.items() if each == "day" or day.weekday() < _WORKDAYS}
    if not each or len(days) < LEAST:
        few = (
            f"{len(times)} days of history; {LEAST} are needed" if len(times) < LEAST else "no weekday is like the next"
        )
        return replace(found, why=few)
    rule = _rule(days.values())
    if not 0 <= rule.by < _seconds(_DAY):
        return replace(found, why="it comes more than a day after its data's end")
    by = f"{rule.by // 3600:02}:{rule.by % 3600 // 60:02} {zone}"
    absent = tuple(d for d in found.absent if each == "day" or d.weekday() < _WORKDAYS)
    expect = Expect(by, each, f"{rule.grace // 60}m", interval)
    return replace(found, expect=expect, why="", absent=absent, tried=_tried(days, absent))


def _complete(came: Sequence[Came], zone: ZoneInfo) -> dict[date, int]:
    """When the data of each day were whole: seconds after the midnight that ends the day, by the clocks on the wall."""
    pieces: dict[date, list[Interval]] = defaultdict(list)
    whole: dict[date, int] = {}
    for one in sorted(came, key=lambda c: c.at):
        if one.interval is None:
            continue
        for day in _days(one.interval, zone):
            if day in whole:
                continue
            pieces[day].append(one.interval)
            if covered(Interval(_midnight(day, zone), _midnight(day + _DAY, zone)), pieces[day]):
                whole[day] = _wall(one.at, day + _DAY, zone)
                del pieces[day]
    return whole


def _days(interval: Interval, zone: ZoneInfo) -> Iterable[date]:
    first = interval.start.astimezone(zone).date()
    last = (interval.end - timedelta(microseconds=1)).astimezone(zone).date()
    return (first + n * _DAY for n in range(min((last - first).days, 366) + 1))


def _first(came: Sequence[Came], zone: ZoneInfo) -> dict[date, int]:
    """When something came first on each day: seconds after the midnight that begins it."""
    first: dict[date, int] = {}
    for one in came:
        day = one.at.astimezone(zone).date()
        first[day] = min(first.get(day, _seconds(_DAY)), _wall(one.at, day, zone))
    return first


def _wall(at: datetime, day: date, zone: ZoneInfo) -> int:
    """Seconds from the midnight that begins `day`, as clocks on the wall show them."""
    return _seconds(at.astimezone(zone).replace(tzinfo=None) - datetime.combine(day, time()))


def _described(times: Mapping[date, int]) -> Suggestion:
    if not times:
        return Suggestion(None, "")
    first, last = min(times), max(times)
    every = [first + n * _DAY for n in range((last - first).days + 1)]
    rows = []
    for number, name in enumerate(_NAMED):
        days = [day for day in every if day.weekday() == number]
        at = [times[day] for day in days if day in times]
        usual, latest = (_clock(median(at)), _clock(max(at))) if at else (None, None)
        rows.append({"weekday": name, "days": len(days), "came": len(at), "median": usual, "latest": latest})
    return Suggestion(None, "", first, last, tuple(rows), tuple(day for day in every if day not in times))


def _each(weekdays: Sequence[Mapping[str, Any]]) -> str:
    """``day``, ``weekday``, or nothing where it comes neither every day nor from Monday to Friday."""
    part = [row["came"] / row["days"] if row["days"] else None for row in weekdays]
    if all(one is None or one >= OFTEN for one in part):
        return "day"
    work, rest = part[:_WORKDAYS], part[_WORKDAYS:]
    if all(one is None or one >= OFTEN for one in work) and all(one is None or one <= SELDOM for one in rest):
        return "weekday"
    return ""


def _rule(times: Iterable[int]) -> Rule:
    """By when nine of ten came; the grace is three times as far as that is from the middle."""
    at = sorted(times)
    usual, late = median(at), quantiles(at, n=10, method="inclusive")[-1]
    by = math.ceil(late / _STEP) * _STEP
    return Rule(by, max(_seconds(GRACE), math.ceil(3 * (late - usual) / _STEP) * _STEP))


def _tried(times: Mapping[date, int], absent: Sequence[date]) -> dict[str, int]:
    """Each day after the first ones, judged by what was known before it."""
    days = sorted(times)
    counts = {"days": 0, "late": 0, "false_alarms": 0, "absent": 0}
    for at, day in enumerate(days[LEAST:], LEAST):
        rule = _rule(times[d] for d in days[:at])
        counts["days"] += 1
        counts["late"] += times[day] > rule.by
        counts["false_alarms"] += times[day] > rule.alarm
    counts["absent"] = sum(day > days[LEAST - 1] for day in absent)
    return counts


def _clock(seconds: float) -> str:
    """A time of day as people write it; hours below 0 or above 24 lie on the day before or after."""
    minutes = round(seconds / 60)
    return f"{'-' * (minutes < 0)}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _seconds(span: timedelta) -> int:
    return round(span.total_seconds())


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
