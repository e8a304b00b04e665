"""Schedules: the right times on the days when the clocks change, intervals that join, and what is due after a pause."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farandole.event import Envelope, Interval, RawRecord
from farandole.ids import tick_id
from farandole.sources.schedule import EVENT_SOURCE, Schedule, due, told
from farandole.topics import TICKS

PARIS, NEW_YORK = "Europe/Paris", "America/New_York"
# the Sundays of 2026 on which the clocks go forward and back
SPRING = {PARIS: date(2026, 3, 29), NEW_YORK: date(2026, 3, 8)}
AUTUMN = {PARIS: date(2026, 10, 25), NEW_YORK: date(2026, 11, 1)}
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)

few = settings(max_examples=50, deadline=None)
zones = pytest.mark.parametrize("zone", [PARIS, NEW_YORK])


def schedule(cron: str, zone: str = PARIS, **more) -> Schedule:
    return Schedule("s", cron, zone, **{"since": datetime(2026, 1, 1, tzinfo=UTC), **more})


def midnight(day: date, zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def local_times(cron: str, zone: str, day: date) -> list[str]:
    """The ticks of one day, as a clock on the wall there shows them, with their offset from UTC."""
    after = midnight(day, zone) - SECOND
    ticks = schedule(cron, zone).ticks(after, midnight(day + DAY, zone) - SECOND)
    return [f"{t.nominal.astimezone(ZoneInfo(zone)):%H:%M%z}" for t in ticks]


@zones
def test_a_time_that_does_not_exist_is_ticked_when_the_clocks_have_gone_forward(zone):
    summer = f"{datetime.combine(SPRING[zone], time(12), ZoneInfo(zone)):%z}"

    assert local_times("30 2 * * *", zone, SPRING[zone]) == [f"03:00{summer}"]


@zones
def test_a_time_that_exists_twice_is_ticked_the_first_time(zone):
    hour = 2 if zone == PARIS else 1  # in America the clocks go back from two to one
    summer = f"{datetime.combine(AUTUMN[zone], time(0), ZoneInfo(zone)):%z}"

    assert local_times(f"30 {hour} * * *", zone, AUTUMN[zone]) == [f"0{hour}:30{summer}"]


@zones
def test_an_hourly_schedule_ticks_every_hour_that_passes(zone):
    assert [len(local_times("30 * * * *", zone, day)) for day in (SPRING[zone], AUTUMN[zone])] == [23, 25]
    assert [len(local_times("*/15 * * * *", zone, day)) for day in (SPRING[zone], AUTUMN[zone])] == [92, 100]


def test_between_the_two_a_time_that_exists_twice_is_past():
    between = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 in Paris, the second time

    (tick,) = islice(schedule("30 2 * * *").ticks(between), 1)

    assert tick.nominal == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_several_times_that_do_not_exist_are_one_tick():
    assert local_times("0,15,45 2 * * *", PARIS, SPRING[PARIS]) == ["03:00+0200"]
    assert local_times("0 1,2,3 * * *", PARIS, SPRING[PARIS]) == ["01:00+0100", "03:00+0200"]


def test_minutes_with_a_star_follow_the_clock_on_the_wall():
    assert local_times("*/30 2 * * *", PARIS, SPRING[PARIS]) == []
    assert local_times("*/30 2 * * *", PARIS, AUTUMN[PARIS]) == ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]


@zones
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_time_of_day_is_ticked_once_a_day_all_year(zone, data):
    hour, minute = data.draw(st.integers(0, 23)), data.draw(st.integers(0, 59))
    year = midnight(date(2026, 1, 1), zone), midnight(date(2027, 1, 1), zone)

    ticks = list(schedule(f"{minute} {hour} * * *", zone).ticks(year[0] - SECOND, year[1] - SECOND))

    assert [t.day for t in ticks] == [date(2026, 1, 1) + n * DAY for n in range(365)]
    for tick in ticks:
        wall = tick.nominal.astimezone(ZoneInfo(zone))
        wanted = datetime.combine(tick.day, time(hour, minute), ZoneInfo(zone))
        exists = wanted.astimezone(UTC).astimezone(ZoneInfo(zone)).time() == wanted.time()
        # one that does not exist: the first moment that does, after it
        assert (wall == wanted) if exists else (wall.time() == time(3) and tick.day == SPRING[zone]), tick


crons = st.one_of(
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 5)),
    st.builds("{} * * * *".format, st.integers(0, 59)),
    st.builds("*/{} {} * * *".format, st.sampled_from([15, 20]), st.sampled_from(["*", "1-3", "2"])),
    st.builds("{} {} * * {}".format, st.integers(0, 59), st.sampled_from(["2", "1,2,3", "0-4"]), st.sampled_from(["*", "1-5", "0"])),
)  # fmt: skip
changes = [midnight(day, zone) for days in (SPRING, AUTUMN) for zone, day in days.items()]


def moments(count: int, most: int | None = None) -> st.SearchStrategy[list[datetime]]:
    """Moments in order, all within a day or two of one change of the clocks."""
    near = st.integers(0, 4 * 3600)
    offsets = st.lists(st.one_of(near, near, st.integers(-86_400, 2 * 86_400)), min_size=count, max_size=most or count)
    return st.builds(
        lambda change, them: [change + timedelta(seconds=s) for s in sorted(them)], st.sampled_from(changes), offsets
    )


everyday = st.builds(
    schedule,
    crons,
    st.sampled_from([PARIS, NEW_YORK]),
    each=st.sampled_from(["day", "weekday"]),
    catch_up=st.sampled_from(["all", "latest", "none"]),
)


@few
@given(everyday, moments(3))
def test_it_does_not_matter_where_one_begins_to_look(one, three):
    first, middle, last = three

    whole = list(one.ticks(first, last))

    assert whole == [*one.ticks(first, middle), *one.ticks(middle, last)]
    assert all(first < t.nominal <= last for t in whole)
    assert all(a.nominal < b.nominal for a, b in pairwise(whole))


@few
@given(everyday, moments(1))
def test_intervals_join_without_gap_or_overlap(one, start):
    ticks = list(islice(one.ticks(start[0], start[0] + 9 * DAY), 60))

    assert all(a.interval.end == b.interval.start for a, b in pairwise(ticks))
    assert all(t.interval.end == t.nominal for t in ticks)


@zones
def test_the_days_of_a_daily_schedule_join_too_and_have_23_24_or_25_hours(zone):
    ticks = list(islice(schedule("30 2 * * *", zone, interval="day").ticks(midnight(date(2026, 1, 1), zone)), 365))

    assert all(a.interval.end == b.interval.start for a, b in pairwise(ticks))
    hours = {t.day - DAY: (t.interval.end - t.interval.start) // timedelta(hours=1) for t in ticks}
    assert {day: n for day, n in hours.items() if n != 24} == {SPRING[zone]: 23, AUTUMN[zone]: 25}


def test_a_span_is_what_passed_before_the_tick():
    (tick,) = islice(schedule("0 12 * * *", "UTC", interval="1h30m").ticks(datetime(2026, 5, 1, tzinfo=UTC)), 1)

    assert tick.interval == Interval(datetime(2026, 5, 1, 10, 30, tzinfo=UTC), datetime(2026, 5, 1, 12, tzinfo=UTC))


def test_after_a_holiday_and_a_weekend_the_interval_goes_back_to_the_last_business_day():
    exchange = schedule("0 18 * * *", NEW_YORK, calendar="XNYS", each="business")

    ticks = list(exchange.ticks(datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 7, tzinfo=UTC)))

    # 3 July 2026 is the observed Independence Day
    assert [(t.day.day, (t.nominal - t.interval.start).days, t.business_day) for t in ticks] == [
        (1, 1, True),
        (2, 1, True),
        (6, 4, True),
    ]


def test_with_each_day_a_calendar_only_says_what_day_it_is():
    bastille = schedule("0 6 * * *", PARIS, calendar="FR", each="day")

    ticks = bastille.ticks(datetime(2026, 7, 13, tzinfo=UTC), datetime(2026, 7, 15, 12, tzinfo=UTC))

    assert [(t.day.day, t.calendar, t.business_day) for t in ticks] == [
        (13, "FR", True),
        (14, "FR", False),
        (15, "FR", True),
    ]


def test_weekdays_have_holidays_among_them_and_are_judged_by_the_date_in_the_zone():
    late = schedule("30 23 * * *", NEW_YORK, each="weekday", calendar="US")  # in UTC it is the next day

    ticks = late.ticks(datetime(2026, 12, 24, tzinfo=UTC), datetime(2026, 12, 30, tzinfo=UTC))

    assert [f"{t.day:%a %d}" for t in ticks] == ["Wed 23", "Thu 24", "Fri 25", "Mon 28"]


def test_a_schedule_of_leap_days_finds_the_one_before():
    (tick,) = islice(schedule("0 0 29 2 *", "UTC").ticks(datetime(2027, 1, 1, tzinfo=UTC)), 1)

    assert tick.interval == Interval(datetime(2024, 2, 29, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC))


HOURLY = schedule("0 * * * *", "UTC")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def hours(one: Schedule, last: datetime | None, now: datetime) -> list[str]:
    return [f"{t.nominal:%d %H}" for t in due(one, last, now)]


@pytest.mark.parametrize(
    ("catch_up", "late", "on_time"),
    [
        ("all", ["01 09", "01 10", "01 11", "01 12"], ["01 12"]),
        ("latest", ["01 12"], ["01 12"]),
        ("none", [], ["01 12"]),
    ],
)
def test_what_was_missed_comes_as_catch_up_says_and_what_is_on_time_always(catch_up, late, on_time):
    one = replace(HOURLY, catch_up=catch_up)

    assert hours(one, NOON - timedelta(hours=4), NOON + timedelta(minutes=30)) == late
    assert hours(one, NOON - timedelta(hours=1), NOON + SECOND) == on_time
    assert hours(one, NOON, NOON + timedelta(minutes=30)) == []


def test_the_latest_is_not_told_beside_one_that_is_on_time():
    assert hours(replace(HOURLY, catch_up="latest"), NOON - timedelta(hours=4), NOON + SECOND) == ["01 12"]


@pytest.mark.parametrize("catch_up", ["all", "latest", "none"])
def test_nothing_before_since_is_ever_due(catch_up):
    one = replace(HOURLY, since=NOON, catch_up=catch_up)

    assert hours(one, None, NOON - SECOND) == []
    assert hours(one, None, NOON) == ["01 12"]
    assert hours(one, NOON - DAY, NOON + SECOND) == ["01 12"]


@few
@given(everyday, moments(2, 8), st.data())
def test_whenever_one_looks_and_wherever_one_stops_all_are_told_in_order_and_none_twice(one, looks, data):
    """A clock that dies between any two ticks, and goes on from the last one that it told."""
    one = replace(one, since=looks[0], catch_up="all")
    last, history = None, []
    for now in looks:
        for tick in islice(due(one, last, now), data.draw(st.integers(0, 40))):
            history.append(tick)
            last = tick.nominal
    history += due(one, last, looks[-1])

    assert history == list(one.ticks(looks[0] - SECOND, looks[-1]))


@few
@given(everyday, moments(2, 6))
def test_of_all_that_is_due_catch_up_leaves_out_late_ones_only(one, looks):
    one, last = replace(one, since=looks[0]), None
    for now in looks[1:]:
        everything, ticks = list(due(replace(one, catch_up="all"), last, now)), list(due(one, last, now))
        late = [t for t in ticks if t.late(now)]
        assert [t for t in everything if not t.late(now)] == [t for t in ticks if not t.late(now)]
        assert (
            late
            == {"all": [t for t in everything if t.late(now)], "latest": ticks[-1:] if late else [], "none": []}[
                one.catch_up
            ]
        )
        assert ticks[-1:] == everything[-1:] or one.catch_up == "none"
        last = ticks[-1].nominal if ticks else last


def record(key: bytes, identity: str, source: str, nominal: str) -> RawRecord:
    headers = Envelope(identity, source, TICKS, nominal).headers()
    return RawRecord(TICKS, "t", 0, 0, 0, key, b"", [*headers])


def test_only_what_the_clock_told_counts_as_told():
    good = tick_id("s", NOON)

    assert told(record(b"s", good, EVENT_SOURCE, "2026-05-01T12:00:00.000Z")) == ("s", NOON)
    assert told(record(b"r", good, EVENT_SOURCE, "2026-05-01T12:00:00.000Z")) is None
    assert told(record(b"s", good, EVENT_SOURCE, "2026-05-01T13:00:00.000Z")) is None
    assert told(record(b"s", good, "/somebody", "2026-05-01T12:00:00.000Z")) is None
    assert told(record(b"s", good, EVENT_SOURCE, "noon")) is None
    assert told(RawRecord(TICKS, "t", 0, 0)) is None


def test_all_that_a_tick_says_follows_from_its_schedule_and_nominal_time():
    (one,) = due(schedule("0 * * * *"), NOON - timedelta(hours=1), NOON)
    (other,) = islice(schedule("0 * * * *").ticks(NOON - SECOND), 1)

    assert one.record() == other.record()
    assert one.id == other.id == tick_id("s", NOON) != tick_id("s", NOON + SECOND)
