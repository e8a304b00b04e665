"""Books that are closed on the real broker: refused while something is open, signed, reopened by what is done later."""

from __future__ import annotations

import json
import sqlite3

import pytest
from click.testing import CliRunner

from farandole.cli import cli
from farandole.closing import digest
from farandole.errors import FarandoleError, SettingsError
from tests.integration.why_world import why_world

KEY = "a secret of this test, long enough"


@pytest.fixture(scope="module")
def world(stack, tmp_path_factory):
    with why_world(stack, tmp_path_factory.mktemp("close")) as made:
        yield made


@pytest.fixture
def close(world, monkeypatch):
    """Close the books of a pipeline and a day, after the ledger was projected: the exit code and the answer."""
    monkeypatch.setenv("FARANDOLE_CLOSE_KEY", KEY)
    monkeypatch.setenv("FARANDOLE_ACTOR", "ada")

    def close(pipeline, day, *options):
        world.projected()
        target = f"{world.module.__name__}:{pipeline}"
        words = ["close", target, f"{day:%Y-%m-%d}", *options, "-o", "json"]
        told = CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
        return told.return_value, json.loads(told.stdout)

    return close


def test_books_are_closed_once_and_stay_closed_until_something_about_them_is_done(world, close, monkeypatch):
    day = world.day()
    ids = [world.sent("plain", day, key=f"k{n}") for n in range(2)]
    foreseen = world.sent("plain", day, "foreseen")
    other = world.sent("beside", day)
    world.ran("Plain", "caught")
    assert close("Plain", day, "--check") == (3, close("Plain", day, "--check")[1])
    assert close("Plain", day, "--check")[1]["state"] == "open"

    code, told = close("Plain", day, "--reason", "month end")

    sets = told["statement"]["sets"]
    assert (code, told["state"], told["statement"]["actor"], told["statement"]["reason"]) == (
        0,
        "closed",
        "ada",
        "month end",
    )
    assert sets["done"] == digest(ids)
    assert sets["caught"] == digest([foreseen])
    assert sets["filtered"] == digest([other])
    assert sets["landed"] == digest([*ids, foreseen, other])
    assert {name for name, one in sets.items() if not one["count"]} >= {"waiting", "parked", "dead", "uncertain"}
    assert told["statement"]["outputs"]["count"] == 3

    assert [close("Plain", day, "--check")[0], close("Plain", day)[1]["id"]] == [0, told["id"]], "closed once"
    acts = CliRunner().invoke(cli, ["audit", world.group("Plain")], standalone_mode=False, catch_exceptions=False)
    assert [json.loads(line)["act"] for line in acts.stdout.splitlines()] == ["close"]

    late = world.sent("plain", day, key="late")
    code, now = close("Plain", day, "--check")
    assert (code, now["state"]) == (3, "reopened")
    assert any(late in line and "not read yet" in line for line in now["open"])
    world.ran("Plain")
    code, now = close("Plain", day, "--check")
    assert (code, now["state"], "landed: 4 then, 5 now" in now["open"]) == (3, "reopened", True)

    code, again = close("Plain", day, "--reason", "with the late one")
    assert (code, again["statement"]["supersedes"]) == (0, told["id"])
    assert again["statement"]["sets"]["done"] == digest([*ids, late])
    assert close("Plain", day, "--check")[0] == 0

    monkeypatch.setenv("FARANDOLE_CLOSE_KEY", KEY + "?")
    with pytest.raises(FarandoleError, match="signed with the key"):
        close("Plain", day, "--check")
    monkeypatch.setenv("FARANDOLE_CLOSE_KEY", KEY)
    with sqlite3.connect(world.folder.parent / "projector.db") as books:
        changed = books.execute(
            "UPDATE fact SET detail = replace(detail, 'late one', 'other one') WHERE fact = 'books.closed'"
        )
        assert changed.rowcount == 1
    with pytest.raises(FarandoleError, match="one of them was changed"):
        close("Plain", day, "--check")


def test_books_stay_open_while_something_is(world, close):
    day = world.day()
    event = world.sent("plain", day, "bad")
    world.ran("Plain", "dead")
    code, told = close("Plain", day)
    assert (code, told["state"], told["statement"]) == (3, "open", None)
    assert told["open"] == [f"1 event dead: {event}"]

    day = world.day()
    event = world.sent("pair", day, "left")
    world.ran("Pair", "waiting")
    assert close("Pair", day)[1]["open"] == [f"1 event waiting: {event}"]
    assert close("Pair", world.day())[1]["open"] == ["nothing has come about it, and nobody has waived it"]


def test_books_are_not_closed_without_a_key(world, close, monkeypatch):
    day = world.day()
    world.sent("plain", day)
    world.ran("Plain", "done")
    monkeypatch.setenv("FARANDOLE_CLOSE_KEY", "short")
    with pytest.raises(SettingsError, match="16 characters"):
        close("Plain", day)
    assert close("Plain", day, "--check")[1]["state"] == "open"
