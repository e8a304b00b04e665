"""topology/schedules.yaml: what it may say, and every mistake with its line and its remedy."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from farandole.errors import DeclarationError
from farandole.problem import Mistakes
from farandole.sources.calendar import is_business_day
from farandole.sources.schedule import Schedule
from farandole.sources.timetable import check_timetable, find_schedule, notes, read_timetable

NIGHTLY = {"cron": "30 2 * * *", "zone": "Europe/Paris", "since": "2026-01-31"}


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "schedules.yaml").write_text(text)
        return tmp_path / "schedules.yaml"

    return write


@pytest.fixture
def entry(file):
    def write(**said: str) -> Path:
        lines = [f"    {key}: {value}" for key, value in {**NIGHTLY, **said}.items() if value]
        return file("\n".join(["schedules:", "  nightly:", *lines]) + "\n")

    return write


def wrong(path: Path) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        read_timetable(path)
    return [f"{p.place.rpartition('schedules.yaml:')[2]}  {p.message}  ({p.hint})" for p in caught.value.problems]


def test_three_words_are_enough(entry):
    assert read_timetable(entry()) == {
        "nightly": Schedule("nightly", "30 2 * * *", "Europe/Paris", datetime(2026, 1, 30, 23, tzinfo=UTC))
    }


def test_all_words_together(entry):
    path = entry(
        since="2026-01-31T12:00Z", calendar="XNYS", interval="day", catch_up="latest", about="The night.", cron='"0  18 * * *"'
    )  # fmt: skip

    assert read_timetable(path)["nightly"] == Schedule(
        "nightly",
        "0 18 * * *",
        "Europe/Paris",
        datetime(2026, 1, 31, 12, tzinfo=UTC),
        "XNYS",
        "business",
        "day",
        "latest",
        "The night.",
    )


def test_a_file_without_schedules_has_none(file):
    assert read_timetable(file("")) == read_timetable(file("schedules: {}\n")) == {}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"cron": "61 2 * * *"}, "3:11  nightly.cron: '61 2 * * *' is no cron expression: bad minute  (five fields: "),
        ({"cron": "30 2 * *"}, "3:11  nightly.cron: '30 2 * *' is no cron expression: wrong number of fields  (five "),
        ({"cron": "30 2 30 2 *"}, "3:11  nightly.cron: '30 2 30 2 *' is no cron expression: bad day-of-month  (five "),
        ({"cron": '"@daily"'}, "3:11  nightly.cron: '@daily' is no cron expression: wrong number of fields  (five "),
        ({"cron": "0 0 * * 1#2/3"}, "3:11  nightly.cron: '0 0 * * 1#2/3' is no cron expression: bad day-of-week  (five fields: "),
        ({"cron": "0 30 2 * * *"}, "3:11  nightly.cron: '0 30 2 * * *' has seconds and a fixed hour: when the clocks change it would be left out, or come twice  (leave the seconds out: 30 2 * * *)"),
        ({"cron": ""}, "3:5  nightly lacks `cron`  (write `cron: 30 2 * * *`)"),
        ({"zone": "Europe/Pari"}, "4:11  nightly.zone: there is no time zone 'Europe/Pari'  (did you mean `Europe/Paris`?)"),
        ({"zone": "../etc/passwd"}, "4:11  nightly.zone: there is no time zone '../etc/passwd'  (write it like Europe/Paris"),
        ({"zone": ""}, "3:5  nightly lacks `zone`  (write `zone: Europe/Paris`)"),
        ({"since": "yesterday"}, "5:12  nightly.since: 'yesterday' is no time  (write the day it begins, such as 2026-01-31)"),
        ({"since": "now"}, "5:12  nightly.since: 'now' is no time  (write the day it begins"),
        ({"since": "1969-12-31"}, "5:12  nightly.since: 1969-12-31 is before 1970  ("),
        ({"since": ""}, "3:5  nightly lacks `since`  (write `since: 2026-01-31`)"),
        ({"calendar": "XNYC"}, "6:15  nightly.calendar: there is no calendar 'XNYC'  (did you mean `XNYS`?)"),
        ({"calendar": "Narnia"}, "6:15  nightly.calendar: there is no calendar 'Narnia'  (a country (FR), a part of one (US-NY)"),
        ({"calendar": "US-NW"}, "6:15  nightly.calendar: US has no calendar of its part 'NW'  (did you mean `US-WY`?"),
        ({"each": "busines"}, "6:11  nightly.each: takes day, weekday, business, not 'busines'  (did you mean `business`?)"),
        ({"each": "business"}, "6:11  nightly.each: `business` days of no calendar  (add `calendar: FR`"),
        ({"interval": "previos"}, "6:15  nightly.interval: 'previos' is no interval  (did you mean `previous`?)"),
        ({"interval": "0s"}, "6:15  nightly.interval: '0s' is no interval  (previous, day, or a span such as 1h)"),
        ({"catch_up": "last"}, "6:15  nightly.catch_up: takes all, latest, none, not 'last'  (did you mean `latest`?)"),
        ({"catchup": "all"}, "6:5  schedule nightly has an unknown key `catchup`  (did you mean `catch_up`?)"),
        ({"cron": "0 2 * * SUN", "each": "weekday"}, "3:5  nightly never ticks: no time that '0 2 * * SUN' names is on a day that counts  (choose"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_its_remedy(entry, said, told):
    (found,) = wrong(entry(**said))
    assert found.startswith(told), found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schedule:\n  a: 1\n", "1:1  the timetable has an unknown key `schedule`  (did you mean `schedules`?)"),
        ("schedules: [1]\n", "1:12  schedules is no mapping  ("),
        ("schedules:\n  nightly: 30 2 * * *\n", "2:12  schedule nightly is no mapping  ("),
        ("schedules:\n  Night Run: {cron: 1 2 * * *, zone: UTC, since: 2026-01-01}\n", "2:14  'Night Run' is no name of a schedule  (small letters"),
        ("schedules:\n  nightly: {cron: * * * * *}\n", "2:20  it is no YAML: "),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_told(file, text, told):
    (found,) = wrong(file(text))
    assert found.startswith(told), found


def test_all_mistakes_are_told_at_once_and_in_the_order_of_their_lines(file):
    path = file(
        "schedules:\n  a: {cron: x, zone: UTC, since: 2026-01-01}\n  b:\n    zone: UTCC\n    cron: q\n    since: z\n"
    )

    assert [told.partition(":")[0] for told in wrong(path)] == ["2", "4", "5", "6"]


def test_a_schedule_that_is_not_there_is_told(entry):
    with pytest.raises(DeclarationError) as caught:
        find_schedule("nigthly", entry())
    assert caught.value.hint == "did you mean `nightly`?"


def test_a_timetable_needs_the_event_type_of_its_ticks(entry, file):
    with pytest.raises(Mistakes) as caught:
        check_timetable(entry(), ["a.b.happened.v1"])
    assert "schemas/avro/clock.ticked.v1.avsc" in caught.value.message
    assert "schemas generate" in caught.value.hint
    assert set(check_timetable(entry(), ["clock.ticked.v1"])) == {"nightly"}
    assert check_timetable(file("schedules: {}\n"), []) == {}


NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_notes_say_when_it_comes_next_and_whether_intervals_join(entry):
    plain = read_timetable(entry())["nightly"]
    overlapping = read_timetable(entry(cron="0 * * * *", interval="day"))["nightly"]
    leaving = read_timetable(entry(interval="1h"))["nightly"]

    assert list(notes(plain, NOW)) == ["next at 2026-05-01 02:30 CEST, about 2026-04-30T00:30Z/2026-05-01T00:30Z"]
    assert [list(notes(one, NOW))[1].partition(",")[0] for one in (overlapping, leaving)] == [
        "intervals overlap",
        "intervals leave gaps",
    ]


@pytest.mark.parametrize(
    ("calendar", "closed", "open_"),
    [
        ("FR", date(2026, 7, 14), date(2026, 7, 3)),
        ("XNYS", date(2026, 4, 3), date(2026, 10, 12)),  # Good Friday; Columbus Day is a bank holiday only
        ("US", date(2026, 10, 12), date(2026, 4, 3)),
        ("DE-BY", date(2026, 1, 6), date(2026, 1, 5)),
        ("AE", date(2026, 1, 3), date(2026, 1, 5)),
        ("", date(2026, 1, 4), date(2026, 12, 25)),
    ],
)
def test_a_calendar_knows_its_business_days(calendar, closed, open_):
    assert (is_business_day(calendar, closed), is_business_day(calendar, open_)) == (False, True)
