"""What could be expected, learned from a history: which days, by when, with which grace, and what it would have told."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from farandole import Expect
from farandole.cli import cli
from farandole.event import Interval
from farandole.expectation import Arrival, arrived, judged
from farandole.ledger.database import open_projection
from farandole.ledger.entry import Entry
from farandole.ledger.projection import Line, project
from farandole.rhythm import LEAST, Came, suggested
from farandole.sentinel import row_of
from farandole.sources.deadlines import Expected, deadlines, expect_problems

PARIS = "Europe/Paris"
DAY = timedelta(days=1)
START, WEEKS = date(2026, 2, 2), 12  # over a change of the clocks; a Monday
TODAY = START + WEEKS * 7 * DAY


def midnight(day: date, zone: str = PARIS) -> datetime:
    return datetime.combine(day, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)


def data_of(day: date, at: str, zone: str = PARIS) -> Came:
    """The data of a day, which came the day after at that time on the wall."""
    hour, minute = map(int, at.split(":"))
    wall = datetime.combine(day + DAY, datetime.min.time(), ZoneInfo(zone)) + timedelta(hours=hour, minutes=minute)
    return Came(wall.astimezone(UTC), Interval(midnight(day, zone), midnight(day + DAY, zone)))


def days(*weekdays: int) -> list[date]:
    every = [START + n * DAY for n in range(WEEKS * 7)]
    return [day for day in every if not weekdays or day.weekday() in weekdays]


def nightly(some: list[date], seed: int = 1) -> list[Came]:
    lot = Random(seed)
    return [data_of(day, f"05:{lot.randrange(0, 20):02}") for day in some]


def test_twelve_weeks_of_nights_give_a_deadline_a_grace_and_no_false_alarm():
    found = suggested(nightly(days()), PARIS, TODAY)

    assert found.expect is not None
    assert (found.expect.each, found.expect.interval) == ("day", "previous")
    assert found.expect.by in ("05:15 Europe/Paris", "05:20 Europe/Paris")
    assert found.tried is not None
    assert found.tried["days"] == len([d for d in days() if d < TODAY]) - LEAST
    assert (found.tried["false_alarms"], found.tried["absent"]) == (0, 0)
    assert [row["came"] for row in found.weekdays] == [WEEKS] * 7
    assert list(expect_problems(found.expect, "mart", "here")) == []


def test_what_comes_of_workdays_only_has_no_deadline_at_the_weekend():
    found = suggested(nightly(days(0, 1, 2, 3, 4)), PARIS, TODAY)
    assert found.expect is not None
    assert found.expect.each == "weekday"
    assert found.weekdays[5]["came"] == 0


def test_a_day_without_data_is_evidence_and_a_true_alarm():
    gone = date(2026, 4, 8)
    found = suggested(nightly([day for day in days() if day != gone]), PARIS, TODAY)
    assert found.absent == (gone,)
    assert found.tried is not None
    assert (found.tried["absent"], found.tried["false_alarms"]) == (1, 0)


def test_a_day_that_came_four_hours_late_is_a_false_alarm_of_the_rule_and_says_so():
    late = date(2026, 4, 7)
    came = [*nightly([day for day in days() if day != late]), data_of(late, "09:00")]
    found = suggested(came, PARIS, TODAY)
    assert found.tried is not None
    assert (found.tried["late"] >= 1, found.tried["false_alarms"]) == (True, 1)


def test_the_alarms_that_are_predicted_are_those_that_the_sentinel_would_raise():
    """The rule learned from the first half, judged by the sentinel's own functions on the second."""
    late = date(2026, 4, 7)
    came = [*nightly([day for day in days() if day != late]), data_of(late, "09:00")]
    half = date(2026, 3, 16)
    expect = suggested([one for one in came if one.at < midnight(half)], PARIS, half).expect
    assert expect is not None

    missed = []
    for deadline in deadlines(expect, midnight(half + DAY), midnight(TODAY)):
        row = row_of(Expected("mart", expect, pipeline="mart"), deadline)
        assert row.interval is not None
        in_time = [
            Arrival(one.at, one.interval, "id")
            for one in came
            if one.interval == row.interval and one.at < row.alarm_at
        ]
        if judged(arrived(row, in_time), row.alarm_at).state == "missed":
            missed.append(row.interval.start)

    assert missed == [midnight(late)]


def test_hourly_pieces_count_when_the_day_is_whole():
    came = []
    for day in days():
        first, last = midnight(day), midnight(day + DAY)
        while first < last:
            end = first + timedelta(hours=1)
            came.append(Came(end + timedelta(minutes=12), Interval(first, end)))
            first = end
    expect = suggested(came, PARIS, TODAY).expect
    assert expect == Expect("00:15 Europe/Paris", "day", "15m", "previous")


def test_data_that_are_whole_before_their_day_is_over_are_expected_the_same_day():
    came = [Came(one.at - timedelta(hours=8), one.interval) for one in nightly(days())]
    expect = suggested(came, PARIS, TODAY).expect
    assert expect is not None
    assert (expect.interval, expect.by[:2]) == ("same", "21")


def test_what_says_no_interval_is_expected_whenever_it_comes():
    came = [Came(one.at) for one in nightly(days())]
    expect = suggested(came, PARIS, TODAY).expect
    assert expect is not None
    assert (expect.interval, expect.by[:2]) == ("any", "05")


@pytest.mark.parametrize(
    ("some", "why"),
    [
        ([], "nothing has come yet"),
        (days()[: LEAST - 1], "days of history"),
        (days(1, 3), "no weekday is like the next"),
    ],
)
def test_where_there_is_no_rhythm_it_says_why_and_proposes_nothing(some, why):
    found = suggested(nightly(some), PARIS, TODAY)
    assert found.expect is None
    assert why in found.why


def test_the_day_that_is_not_over_yet_is_no_evidence():
    assert suggested(nightly(days()), PARIS, days()[-1]).last == days()[-2]


# ---- from the projection, by command


@pytest.fixture
def projected(tmp_path, monkeypatch):
    """A projection in which `mart` ran twelve weeks, and took an event that nobody here gives."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", f"sqlite:///{tmp_path}/{{pipeline}}.db")
    monkeypatch.setattr("farandole.clock.SystemClock.now", lambda _: midnight(TODAY) + timedelta(hours=9))
    lines = []
    for number, one in enumerate(nightly(days())):
        trigger = {
            "signal": "s", "topic": "in.v1", "topic_id": "T", "partition": 0, "offset": number, "event_id": f"e{number}",
            "event_source": "/s", "event_type": "in.v1", "digest": b"12345678", "derived": False,
        }  # fmt: skip
        output = {"topic": "out.v1", "id": f"o{number}", "type": "out.v1", "digest": b"12345678"}
        made = Entry(
            "run", "mart", f"r{number}", state="done", interval=one.interval, triggers=[trigger], outputs=[output]
        )
        before = Interval(one.interval.start - 84 * DAY, one.interval.end - 84 * DAY)
        again = Entry("run", "mart", f"b{number}", epoch=1, state="done", interval=before)
        at = round(one.at.timestamp() * 1000)
        lines += [Line(0, 2 * number, made, made.id, at), Line(0, 2 * number + 1, again, again.id, at + 86_400_000)]
    database = open_projection(f"sqlite:///{tmp_path}/projector.db")
    with database.writing() as conn:
        project(conn, lines, read_to={0: len(lines)}, topic_id="L", checked_at={0: 0})
    yield database
    database.close()


def ask(*arguments: str):
    return CliRunner().invoke(cli, ["expect", "suggest", *arguments], standalone_mode=False, catch_exceptions=False)


def test_a_suggestion_for_each_pipeline_and_each_event_from_outside(projected):
    told = json.loads(ask("--zone", PARIS, "-o", "json").stdout)

    assert [(one["kind"], one["of"], one["expected"]) for one in told] == [
        ("pipeline", "mart", False), ("event", "in.v1", False),
    ]  # fmt: skip
    assert {one["expect"]["by"][:2] for one in told} == {"05"}, "a backfill says nothing of the rhythm"
    assert told[0]["tried"]["false_alarms"] == 0


def test_a_person_reads_what_to_write_and_on_what_it_rests(projected):
    said = ask("mart", "--zone", PARIS, "-o", "table").stdout.splitlines()

    assert said[0] == "mart"
    assert said[1].startswith("  expect: {by: 05:")
    assert said[2].startswith("    Mon  12 of 12  usually 05:")
    assert "0 false alarms, nothing came on 0" in said[9]
    assert said[-1] == "  nothing is enabled: write it into the pipeline"


def test_a_name_of_which_nothing_came_and_a_zone_that_is_none_are_told(projected):
    from farandole.errors import FarandoleError

    with pytest.raises(FarandoleError, match="nothing of 'mort' came"):
        ask("mort")
    assert "no time zone" in CliRunner().invoke(cli, ["expect", "suggest", "--zone", "Mars"]).output
