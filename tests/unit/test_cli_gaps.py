"""What is said of lost records at the command line."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from farandole.cli import cli
from farandole.ledger.database import open_projection
from farandole.ledger.entry import Entry
from farandole.ledger.projection import Line, project


def gap(start, end, pipeline="merge"):
    detail = {"from": start, "to": end, "topic": "t.v1", "topic_id": "T1", "partition": "3"}
    name = f"fact:{pipeline}:data.gap:T1/3/{start}"
    return Entry("fact", pipeline, name, state="fact", fact="data.gap", detail=detail)


@pytest.fixture
def known(tmp_path, monkeypatch):
    """What a projection knows: the entries that it is given."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/{{pipeline}}.db"
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", url)

    def project_these(*entries):
        database = open_projection(url.format(pipeline="projector"))
        with database.writing() as conn:
            project(conn, [Line(0, n, e, e.id, 1000 + n) for n, e in enumerate(entries)])
        database.close()

    return project_these


def ask(*arguments):
    told = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)
    return told.return_value, told.stdout, told.stderr


def test_open_gaps_are_shown_with_their_range_and_leave_with_three(known):
    known(gap("10", "15"), gap("0", "7", "mart"))

    code, said, _ = ask("gaps", "merge", "-o", "json")

    assert code == 3
    assert [(g["from"], g["to"], g["topic"], g["partition"]) for g in json.loads(said)] == [(10, 15, "t.v1", 3)]


def test_without_gaps_it_leaves_with_nought(known):
    known(gap("0", "7", "mart"))

    assert ask("gaps", "merge")[:2] == (0, "")
    assert ask("gaps")[0] == 3


def test_the_list_of_runs_says_which_pipelines_are_incomplete(known):
    known(gap("10", "15"))

    code, _, remark = ask("runs", "list")

    assert code == 0
    assert "merge is incomplete" in remark
    assert "farandole gaps merge" in remark
    assert "incomplete" not in ask("runs", "list", "--pipeline", "mart")[2]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["--reason", "x"], "say which"),
        (["--all", "--pipeline", "merge", "--reason", "x"], "say which"),
        (["merge:T1/3/10", "--all", "--reason", "x"], "say which"),
        (["--all"], "reason"),
        (["--all", "--reason", " "], "say why"),
    ],
)
def test_a_gap_is_closed_by_name_and_with_a_reason(known, asked, why):
    known(gap("10", "15"))

    with pytest.raises(click.UsageError, match=why):
        ask("gaps", "close", *asked)


def test_where_nothing_is_open_nothing_is_written(known):
    known(gap("10", "15"))

    assert ask("gaps", "close", "--pipeline", "mart", "--reason", "x")[:2] == (0, "")
