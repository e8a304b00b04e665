"""Deadlines day by day: zones, both changes of the clocks, holidays, and what each is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from farandole import Expect
from farandole.sources.deadlines import Expected, deadlines, expect_problems


def times(expect: Expect, start: str, count: int) -> list[str]:
    found = islice(deadlines(expect, datetime.fromisoformat(start).replace(tzinfo=UTC)), count)
    return [f"{one.at:%d %H:%M}" for one in found]


def abouts(expect: Expect, start: str, count: int) -> list[str]:
    found = islice(deadlines(expect, datetime.fromisoformat(start).replace(tzinfo=UTC)), count)
    return [str(one.interval) for one in found]


def test_deadlines_keep_their_time_of_day_through_both_changes_of_the_clocks():
    new_york, paris = Expect("06:30 America/New_York"), Expect("06:30 Europe/Paris")
    assert times(new_york, "2026-03-07T00:00", 3) == ["07 11:30", "08 10:30", "09 10:30"]
    assert times(new_york, "2026-10-31T00:00", 3) == ["31 10:30", "01 11:30", "02 11:30"]
    assert times(paris, "2026-03-28T00:00", 3) == ["28 05:30", "29 04:30", "30 04:30"]
    assert times(paris, "2026-10-24T00:00", 3) == ["24 04:30", "25 05:30", "26 05:30"]


def test_a_time_that_a_night_lacks_or_has_twice_is_one_deadline():
    lacking, twice = Expect("02:30 America/New_York"), Expect("01:30 America/New_York")
    assert times(lacking, "2026-03-07T00:00", 3) == ["07 07:30", "08 07:00", "09 06:30"]
    assert times(twice, "2026-10-31T00:00", 3) == ["31 05:30", "01 05:30", "02 06:30"]


def test_the_day_that_is_expected_has_23_or_25_hours_when_the_clocks_change():
    expect = Expect("06:30 America/New_York")
    assert abouts(expect, "2026-03-09T00:00", 1) == ["2026-03-08T05:00Z/2026-03-09T04:00Z"]
    assert abouts(expect, "2026-11-02T00:00", 1) == ["2026-11-01T04:00Z/2026-11-02T05:00Z"]


def test_every_hour_is_expected_once_through_the_night_with_25():
    expect = Expect(":20 America/New_York", each="hour")
    found = list(deadlines(expect, datetime(2026, 11, 1, 3, 30, tzinfo=UTC), datetime(2026, 11, 1, 9, tzinfo=UTC)))
    assert [f"{one.at:%H:%M}" for one in found] == ["04:20", "05:20", "06:20", "07:20", "08:20"]
    for one, following in pairwise(one.interval for one in found):
        assert (one.end, one.end - one.start) == (following.start, timedelta(hours=1))


def test_an_hour_begins_where_its_zone_says():
    assert abouts(Expect(":20 Asia/Kolkata", each="hour"), "2026-11-24T00:00", 1) == [
        "2026-11-23T23:30Z/2026-11-24T00:30Z"
    ]


def test_a_holiday_and_a_weekend_have_no_deadline_and_the_day_after_expects_the_counted_day_before():
    expect = Expect("06:30 America/New_York", each="XNYS")  # Thanksgiving is Thursday, 26 November 2026
    assert times(expect, "2026-11-25T00:00", 3) == ["25 11:30", "27 11:30", "30 11:30"]
    assert abouts(expect, "2026-11-27T00:00", 2) == [
        "2026-11-25T05:00Z/2026-11-26T05:00Z",
        "2026-11-27T05:00Z/2026-11-28T05:00Z",
    ]
    assert times(Expect("06:30 UTC", each="weekday"), "2026-11-27T00:00", 2) == ["27 06:30", "30 06:30"]
    assert times(Expect("06:30 UTC", each="FR"), "2026-12-25T00:00", 1) == ["28 06:30"]


def test_it_is_about_the_day_before_the_same_day_or_whatever_comes():
    assert abouts(Expect("20:00 UTC", interval="same"), "2026-11-24T00:00", 1) == [
        "2026-11-24T00:00Z/2026-11-25T00:00Z"
    ]
    assert abouts(Expect("20:00 UTC", interval="any"), "2026-11-24T00:00", 1) == ["None"]
    assert abouts(Expect(":05 UTC", "hour", interval="same"), "2026-11-24T00:00", 1) == [
        "2026-11-24T00:00Z/2026-11-24T01:00Z"
    ]


def test_the_windows_of_deadlines_lie_side_by_side():
    found = list(islice(deadlines(Expect("06:30 UTC", each="weekday"), datetime(2026, 11, 26, tzinfo=UTC)), 4))
    assert [one.window.end for one in found[:-1]] == [one.window.start for one in found[1:]]
    assert all(one.window.start < one.at < one.window.end for one in found)


def test_until_is_the_last_that_may_come():
    at = datetime(2026, 11, 24, 6, 30, tzinfo=UTC)
    assert [one.at for one in deadlines(Expect("06:30 UTC"), at - timedelta(days=2), at)] == [
        at - timedelta(days=1),
        at,
    ]


WRONG = {
    "no time of day": Expect("half past six"),
    "a time without a zone": Expect("06:30"),
    "an hour of a day where an hour is meant": Expect("06:30 UTC", each="hour"),
    "a minute where a time of day is meant": Expect(":30 UTC"),
    "no time": Expect("24:00 UTC"),
    "no zone": Expect("06:30 America/New_Yrok"),
    "no calendar": Expect("06:30 UTC", each="XNYX"),
    "no interval": Expect("06:30 UTC", interval="prevoius"),
    "no span": Expect("06:30 UTC", grace="half an hour"),
}


@pytest.mark.parametrize("expect", WRONG.values(), ids=WRONG)
def test_every_wrong_word_is_told_with_its_place_and_remedy(expect):
    (problem,) = expect_problems(expect, "mart: expect", "pipeline.py:7")
    assert problem.place == "pipeline.py:7"
    assert problem.message.startswith("mart: expect: ")
    assert problem.hint


def test_the_right_words_have_no_problems():
    for each in ("day", "weekday", "XNYS", "US-NY", "FR"):
        assert list(expect_problems(Expect(" 6:30  Europe/Paris ", each, "1h30m"), "", "")) == []
    assert list(expect_problems(Expect(":00 UTC", "hour"), "", "")) == []


def test_another_time_of_day_is_another_expectation_and_another_grace_is_not():
    ids = [Expected("mart", Expect(by, grace=grace)).id for by, grace in (("06:30 UTC", "0s"), ("06:30  UTC", "1h"))]
    assert ids[0] == ids[1] != Expected("mart", Expect("07:00 UTC")).id
