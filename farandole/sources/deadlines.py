"""Deadlines: what an expectation means in time, day by day. Pure.

A deadline is a tick of the schedule that `by` and `each` make, so that zones, both changes of the clocks and
holidays are what they are for the clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

from farandole.clock import seconds
from farandole.declaration import Expect
from farandole.event import Interval
from farandole.problem import Problem, nearest
from farandole.sources.calendar import calendar_problem, calendars
from farandole.sources.schedule import Schedule, Tick

DAYS = ("day", "weekday", "hour")
INTERVALS = ("previous", "same", "any")

_BY = re.compile(r"(?:(?P<hour>[01]?\d|2[0-3])?:(?P<minute>[0-5]\d))\s+(?P<zone>\S+)")
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Deadline:
    """One deadline: of which day it is, and what is expected by then.

    `interval` is the data that must be there. Where it is None, or where what comes has no interval, it counts for
    the deadline that it is nearest to: `window` is that part of time.
    """

    at: datetime
    day: date
    interval: Interval | None
    window: Interval


@dataclass(frozen=True, slots=True)
class Expected:
    """A declared expectation: of a pipeline's runs, or of the events of a type that meet `where`."""

    name: str
    expect: Expect
    pipeline: str = ""
    event_type: str = ""
    where: str = ""
    about: str = ""

    @property
    def id(self) -> str:
        """What tells it from others, and stays while its words do. Another time of day is another expectation."""
        return f"{self.name} {self.expect.each} {self.expect.interval} by {' '.join(self.expect.by.split())}"

    @property
    def grace(self) -> timedelta:
        """How long after a deadline nobody is told."""
        return timedelta(seconds=seconds(self.expect.grace))


def expect_problems(expect: Expect, title: str, place: str) -> Iterator[Problem]:
    """What is wrong with the words of an expectation."""
    at = expect.place or place
    said = _BY.fullmatch(expect.by.strip())
    hourly = expect.each == "hour"
    if said is None or (said["hour"] is None) != hourly:
        example = ":20 America/New_York" if hourly else "06:30 America/New_York"
        what = "no minute of an hour in a zone" if hourly else "no time of day in a zone"
        yield Problem(at, f"{title}: by is {expect.by!r}, {what}", f'write by: "{example}"')
    elif not _is_zone(said["zone"]):
        hint = nearest(said["zone"], available_timezones()) or "write it like Europe/Paris, or UTC"
        yield Problem(at, f"{title}: there is no time zone {said['zone']!r}", hint)
    if expect.each not in DAYS and (wrong := calendar_problem(expect.each)):
        hint = nearest(expect.each, (*DAYS, *calendars())) or "day, weekday, hour, or a calendar: FR, US-NY, XNYS"
        yield Problem(at, f"{title}: each is {expect.each!r}, and {wrong}", hint)
    if expect.interval not in INTERVALS:
        hint = nearest(expect.interval, INTERVALS) or f"write {', '.join(INTERVALS[:-1])} or {INTERVALS[-1]}"
        yield Problem(at, f"{title}: interval is {expect.interval!r}", hint)
    try:
        seconds(expect.grace)
    except ValueError as error:
        yield Problem(at, f"{title}: grace: {error}", "write grace: 30m")


def deadlines(expect: Expect, after: datetime, until: datetime | None = None) -> Iterator[Deadline]:
    """The deadlines later than `after` and not later than `until`, in order; without `until` they never end.

    >>> from itertools import islice
    >>> expect = Expect(by="06:30 America/New_York", each="XNYS")
    >>> monday, tuesday = islice(deadlines(expect, datetime(2026, 11, 27, 12, tzinfo=UTC)), 2)
    >>> f"{monday.at:%a %d %H:%M}", str(monday.interval)
    ('Mon 30 11:30', '2026-11-27T05:00Z/2026-11-28T05:00Z')
    """
    schedule = _schedule(expect)
    ticks = schedule.ticks(after)
    tick = next(ticks)
    while until is None or tick.nominal <= until:
        following = next(ticks)
        before = tick.interval.start  # the tick before: the schedule's interval is `previous`
        window = Interval(_middle(before, tick.nominal), _middle(tick.nominal, following.nominal))
        yield Deadline(tick.nominal, tick.day, _interval(expect, tick), window)
        tick = following


def _schedule(expect: Expect) -> Schedule:
    said = _BY.fullmatch(expect.by.strip())
    if said is None:
        msg = f"{expect.by!r} is no time of a day: expect_problems tells what is wrong"
        raise ValueError(msg)
    cron = f"{int(said['minute'])} {int(said['hour']) if said['hour'] else '*'} * * *"
    if expect.each in ("day", "hour"):
        return Schedule("", cron, said["zone"], _BEGINNING)
    if expect.each == "weekday":
        return Schedule("", cron, said["zone"], _BEGINNING, each="weekday")
    return Schedule("", cron, said["zone"], _BEGINNING, expect.each, "business")


def _interval(expect: Expect, tick: Tick) -> Interval | None:
    if expect.interval == "any":
        return None
    if expect.each == "hour":
        local = tick.nominal.astimezone(ZoneInfo(tick.zone))  # some zones lie half an hour beside the others
        end = tick.nominal - timedelta(minutes=local.minute) + (_HOUR if expect.interval == "same" else timedelta())
        return Interval(end - _HOUR, end)
    zone = ZoneInfo(tick.zone)
    day = tick.day if expect.interval == "same" else tick.interval.start.astimezone(zone).date()
    return Interval(_midnight(day, zone), _midnight(day + timedelta(days=1), zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _middle(one: datetime, other: datetime) -> datetime:
    return (one + (other - one) / 2).replace(microsecond=0)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return False
    return True
