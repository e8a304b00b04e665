"""What people are told of an absence names what to ask and what to do, in commands that exist."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta

import click
import pytest

from farandole.alerts import alert_of
from farandole.cli import cli
from farandole.event import Interval
from farandole.expectation import Expectation, waived

DAY = datetime(2026, 11, 23, tzinfo=UTC)
WINDOW = Interval(DAY, DAY + timedelta(days=1))


def row(each: str = "day", **more) -> Expectation:
    due = DAY + timedelta(hours=30)
    return Expectation("x1", f"mart {each} previous by 06:00 UTC", "mart", due, WINDOW, "2026-11-24", **more)


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"farandole (.+)$", text, re.MULTILINE)]


def test_what_a_pipeline_missed_can_be_asked_and_waived():
    told = alert_of(row(pipeline="mart", interval=WINDOW), "missed")
    assert commands(told.text) == [
        ["why", "mart", "--for", "2026-11-23T00:00:00.000Z/2026-11-24T00:00:00.000Z"],
        ["expect", "waive", "mart", "2026-11-24", "--reason", "…"],
    ]


@pytest.mark.parametrize(
    ("one", "when"),
    [(row(event_type="in.v1"), "2026-11-24"), (row("hour", event_type="in.v1"), "2026-11-24T06:00:00.000Z")],
)
def test_of_a_day_with_many_deadlines_the_one_is_named(one, when):
    assert commands(alert_of(one, "missed").text) == [["expect", "waive", "mart", when, "--reason", "…"]]


def test_the_commands_exist_and_take_those_words():
    for name, *said in commands(alert_of(row(pipeline="mart", interval=WINDOW), "missed").text):
        command, words = cli.get_command(click.Context(cli), name), said
        if isinstance(command, click.Group):
            command, words = command.get_command(click.Context(command), words[0]), words[1:]
        assert command is not None
        command.make_context(name, words)


def test_what_a_person_waived_is_over_and_says_who_and_why():
    told = alert_of(waived(row(pipeline="mart"), "ada", "the desk is closed"), "resolved")
    assert told.over
    assert "waived by ada: the desk is closed" in told.text
