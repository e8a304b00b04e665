"""`farandole schedules`: what comes next, without any server."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from farandole.cli.schedules import schedules
from farandole.errors import DeclarationError

TIMETABLE = """
schedules:
  nightly: {cron: 30 2 * * *, zone: Europe/Paris, since: 2026-01-31, calendar: FR, each: day}
  hourly: {cron: 0 * * * *, zone: UTC, since: 2026-01-31, about: Each hour.}
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FARANDOLE_STATE", str(tmp_path / "state"))
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "FARANDOLE_SCHEDULES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "topology").mkdir()
    (tmp_path / "topology/schedules.yaml").write_text(TIMETABLE)

    def call(*words: str):
        done = CliRunner().invoke(schedules, list(words), standalone_mode=False)
        if done.exception:
            raise done.exception
        return done

    return call


def test_the_next_ticks_are_shown_with_what_they_are_about(said):
    rows = json.loads(said("next", "nightly", "-n", "3", "--from", "2026-10-24", "-o", "json").stdout)

    assert [(row["nominal"], row["local"], row["business_day"]) for row in rows] == [
        ("2026-10-24T00:30:00.000Z", "Sat 2026-10-24 02:30:00 CEST", False),
        ("2026-10-25T00:30:00.000Z", "Sun 2026-10-25 02:30:00 CEST", False),
        ("2026-10-26T01:30:00.000Z", "Mon 2026-10-26 02:30:00 CET", True),
    ]
    assert rows[2]["interval"] == {"start": "2026-10-25T00:30:00.000Z", "end": "2026-10-26T01:30:00.000Z"}


def test_a_table_is_for_a_person(said):
    lines = said("next", "hourly", "-n", "1", "--from", "2026-10-24T06:00Z", "-o", "table").stdout.splitlines()

    assert lines[0].split() == ["nominal", "local", "interval", "business_day"]
    assert lines[1].split("  ")[0] == "2026-10-24T06:00:00.000Z"
    assert "Sat 2026-10-24 06:00:00 UTC  2026-10-24T05:00Z/2026-10-24T06:00Z" in lines[1]


def test_nothing_comes_before_since(said):
    (row,) = said("next", "hourly", "-n", "1", "--from", "2020-01-01", "-o", "jsonl").stdout.splitlines()
    assert json.loads(row)["nominal"] == "2026-01-31T00:00:00.000Z"


def test_a_list_without_a_broker_says_that_it_cannot_know_what_was_told(said):
    done = said("list", "-o", "json")
    nightly, hourly = json.loads(done.stdout)

    assert (nightly["schedule"], nightly["zone"], nightly["calendar"], nightly["last"]) == (
        "nightly",
        "Europe/Paris",
        "FR",
        None,
    )
    assert (len(nightly["next"]), hourly["about"], hourly["due"]) == (3, "Each hour.", None)
    assert "which ticks were told is not known" in done.stderr
    assert "schedule" in said("list", "-o", "table").stdout.splitlines()[0]


def test_what_is_not_there_or_no_time_is_told(said):
    import click

    with pytest.raises(DeclarationError, match="no schedule `nigthly`"):
        said("next", "nigthly")
    with pytest.raises(click.BadParameter, match="write it like 2026-10-24"):
        said("next", "nightly", "--from", "tomorrow")
