"""`farandole dlq` before it talks to any server: its help, its options, and what they mean."""

from __future__ import annotations

import shlex

import click
import pytest
from click.testing import CliRunner

from farandole.cli.dlq import COMMANDS, dlq
from farandole.cli.dlq_redrive import RATE, SHARE, SPAN
from farandole.cli.letters import selection

COMMAND = pytest.mark.parametrize("name", COMMANDS)


def examples(name: str) -> list[str]:
    told = CliRunner().invoke(dlq, [name, "--help"]).output.splitlines()
    return [line.strip() for line in told if line.strip().startswith("farandole dlq")]


@COMMAND
def test_every_command_has_examples_and_they_are_right(name):
    command = dlq.get_command(click.Context(dlq), name)
    shown = examples(name)
    assert shown
    for line in shown:
        words = shlex.split(line.partition(" > ")[0].partition(" | ")[0])
        assert words[:3] == ["farandole", "dlq", name]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize(("text", "rate"), [("20/s", 20.0), ("20", 20.0), ("600/m", 10.0), ("0.5/s", 0.5)])
def test_a_rate_is_so_many_a_second(text, rate):
    assert RATE.convert(text, None, None) == rate


@pytest.mark.parametrize("text", ["fast", "20/h", "0/s", "-1", "/s"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(click.BadParameter):
        RATE.convert(text, None, None)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("100%", 1.0)])
def test_a_share_is_a_part_of_the_whole(text, share):
    assert SHARE.convert(text, None, None) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "101%", "-1%", "few"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(click.BadParameter):
        SHARE.convert(text, None, None)


def test_a_wait_is_a_span():
    assert SPAN.convert("10m", None, None) == 600
    with pytest.raises(click.BadParameter, match="no span"):
        SPAN.convert("long", None, None)


def test_a_key_is_text_or_bytes_and_a_time_has_a_zone():
    assert selection((), "", "k3", "", "").key == selection((), "", "0x6b33", "", "").key == "6b33"
    assert selection((), "", None, "2013-01-01", "2013-01-01T01:00+01:00").since == 1_356_998_400_000
    assert selection((), "", None, "", "2013-01-01T01:00+01:00").until == 1_356_998_400_000


@pytest.mark.parametrize("words", [["redrive"], ["redrive", "--yes"], ["resolve", "--reason", "x"], ["resolve", "id"]])
def test_what_says_nothing_is_refused_before_any_server_is_asked(words):
    told = CliRunner().invoke(dlq, words)

    assert told.exit_code == 2  # click's own; the door makes 64 of it
    assert "say which letters" in told.output or "--reason" in told.output
