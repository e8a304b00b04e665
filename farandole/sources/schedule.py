"""Schedules: which times a cron expression names in its zone, what each is about, and which are due. Pure.

A nominal time is an instant in UTC, in whole seconds. All that a tick says follows from its schedule and its
nominal time, never from who tells it or when: a tick that is told by three is one event, told three times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any, Literal
from zoneinfo import ZoneInfo

from farandole.clock import seconds
from farandole.errors import FarandoleError
from farandole.event import Interval, RawRecord, envelope_of
from farandole.ids import tick_id
from farandole.sources.calendar import is_business_day
from farandole.topics import TICKS

try:
    from cronsim import CronSim, CronSimError
except ModuleNotFoundError as missing:
    raise FarandoleError(
        f"schedules need {missing.name}, which is not installed", hint="pip install 'farandole[clock]'"
    ) from missing

EVENT_SOURCE = "/farandole/clock"
"""The `ce_source` of every tick, whoever tells it."""
ON_TIME = timedelta(seconds=60)
"""A tick that is told later than this was missed: what becomes of it, `catch_up` says."""

CatchUp = Literal["all", "latest", "none"]
Each = Literal["day", "weekday", "business"]

_SECOND = timedelta(seconds=1)
_TRIED = 5_000  # of the times that an expression names, before its schedule counts as one that never ticks
# How far the tick before a tick is looked for: most are near, 29 February of a leap year is not.
_BACK = tuple(timedelta(days=days) for days in (1 / 24, 1, 9, 63, 730, 7_300, 36_500))


@dataclass(frozen=True, slots=True)
class Tick:
    """A nominal time of a schedule has come. `interval` is what it is about, `day` its date in the schedule's zone."""

    schedule: str
    nominal: datetime
    interval: Interval
    zone: str
    day: date
    calendar: str
    business_day: bool

    @property
    def id(self) -> str:
        """The id of its event."""
        return tick_id(self.schedule, self.nominal)

    def late(self, now: datetime) -> bool:
        """Whether it is told so late that it counts as caught up."""
        return self.nominal <= now - ON_TIME

    def record(self) -> dict[str, Any]:
        """The Avro record of its event."""
        return {
            "schedule": self.schedule,
            "nominal": self.nominal,
            "interval": self.interval.record(),
            "zone": self.zone,
            "day": self.day,
            "calendar": self.calendar,
            "business_day": self.business_day,
        }


@dataclass(frozen=True, slots=True)
class Schedule:
    """A declared schedule.

    `each` says on which days of `zone` its times count. `interval` is ``previous`` (from the tick before to this
    one), ``day`` (the day before the tick's, from midnight to midnight) or a span such as ``1h`` before the tick.

    >>> nightly = Schedule("nightly", "30 2 * * *", "Europe/Paris", datetime(2026, 10, 24, tzinfo=UTC))
    >>> [f"{t.nominal:%d %H:%M}" for t in nightly.ticks(nightly.since, datetime(2026, 10, 26, 12, tzinfo=UTC))]
    ['24 00:30', '25 00:30', '26 01:30']
    """

    name: str
    cron: str
    zone: str
    since: datetime
    calendar: str = ""
    each: Each = "day"
    interval: str = "previous"
    catch_up: CatchUp = "all"
    about: str = ""

    def ticks(self, after: datetime, until: datetime | None = None) -> Iterator[Tick]:
        """The ticks later than `after` and not later than `until`, in order; without `until` they never end."""
        before: datetime | None = None
        for nominal in self._times(after, until):
            yield self._tick(nominal, before)
            before = nominal

    def latest(self, now: datetime) -> Tick:
        """The last tick that is not later than `now`."""
        return self._tick(self._before(now + _SECOND), None)

    def comes(self) -> bool:
        """Whether it ever ticks: an expression may name only days that never count."""
        times = islice(CronSim(self.cron, self.since.astimezone(ZoneInfo(self.zone))), _TRIED)
        return any(self._counts(time.date()) for time in times)

    def _times(self, after: datetime, until: datetime | None) -> Iterator[datetime]:
        for local in CronSim(self.cron, after.astimezone(ZoneInfo(self.zone))):
            nominal = local.astimezone(UTC)
            if until is not None and nominal > until:
                return
            # of a time of day that comes twice cronsim gives the first, also when asked in between: it is past then
            if nominal > after and self._counts(local.date()):
                yield nominal

    def _counts(self, day: date) -> bool:
        return self.each == "day" or is_business_day(self.calendar if self.each == "business" else "", day)

    def _before(self, nominal: datetime) -> datetime:
        """The last nominal time before this one. Looked for forwards, for backwards cronsim finds other times."""
        for span in _BACK:
            found = list(self._times(nominal - span, nominal - _SECOND))
            if found:
                return found[-1]
        return nominal - _BACK[-1]

    def _tick(self, nominal: datetime, before: datetime | None) -> Tick:
        day = nominal.astimezone(ZoneInfo(self.zone)).date()
        if self.interval == "previous":
            interval = Interval(before or self._before(nominal), nominal)
        elif self.interval == "day":
            interval = Interval(self._midnight(day - timedelta(days=1)), self._midnight(day))
        else:
            interval = Interval(nominal - timedelta(seconds=seconds(self.interval)), nominal)
        business_day = is_business_day(self.calendar, day)
        return Tick(self.name, nominal, interval, self.zone, day, self.calendar, business_day)

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), ZoneInfo(self.zone)).astimezone(UTC)


def cron_problem(expression: str) -> tuple[str, str] | None:
    """What is wrong with a cron expression, and the remedy; None if nothing is."""
    fields = expression.split()
    try:
        CronSim(expression, datetime(1970, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        hint = "five fields: minute, hour, day of the month, month, day of the week; such as 30 2 * * *"
        return f"{expression!r} is no cron expression: {str(error).lower()}", hint
    if len(fields) > 5 and not fields[2].startswith("*"):  # noqa: PLR2004 - the first is the second
        # only in expressions of five fields does cronsim mend the nights when the clocks change
        why = "has seconds and a fixed hour: when the clocks change it would be left out, or come twice"
        return f"{expression!r} {why}", f"leave the seconds out: {' '.join(fields[1:])}"
    return None


def due(schedule: Schedule, last: datetime | None, now: datetime) -> Iterator[Tick]:
    """The ticks that are to be told at `now`, where `last` is the newest that was told (None: none ever was).

    Those of the last minute are on time and always told. Of older ones `catch_up` tells all, the latest (unless a
    newer one is on time), or none.
    """
    after = schedule.since - _SECOND
    after = after if last is None else max(after, last)
    if schedule.catch_up == "all":
        yield from schedule.ticks(after, now)
        return
    on_time = list(schedule.ticks(max(after, now - ON_TIME), now))
    if not on_time and schedule.catch_up == "latest":
        newest = schedule.latest(now)
        on_time = [newest] if newest.nominal > after else []
    yield from on_time


def told(record: RawRecord) -> tuple[str, datetime] | None:
    """The schedule and nominal time of a tick that stands in the topic; None for a record that is none of the clock's.

    Read from key and headers alone, and proved by the id: what somebody else wrote there moves no schedule.
    """
    envelope = envelope_of(record.headers, TICKS, record.position)
    schedule = (record.key or b"").decode("utf-8", "replace")
    try:
        nominal = datetime.fromisoformat(envelope.time).astimezone(UTC)
    except ValueError:
        return None
    ours = envelope.source == EVENT_SOURCE and envelope.id == tick_id(schedule, nominal)
    return (schedule, nominal) if ours else None
