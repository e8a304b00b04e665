"""What `farandole runs show` says of a run that waits."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from farandole.cli import cli
from farandole.ledger.database import open_projection
from farandole.ledger.entry import Entry
from farandole.ledger.projection import Line, project


@pytest.mark.parametrize(
    ("detail", "says"),
    [
        ({"detached": "rebuild"}, " detached   rebuild is under way, or waits"),
        ({"behind": "an earlier event of its record key"}, "attempt 2   behind an earlier event of its record key"),
        ({}, "attempt 2\n"),
    ],
)
def test_a_run_that_waits_says_for_what(tmp_path, monkeypatch, detail, says):
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/{{pipeline}}.db"
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", url)
    database = open_projection(url.format(pipeline="projector"))
    entry = Entry("run", "merge", "r1", state="parked", attempt=2, due=datetime(2013, 1, 1, tzinfo=UTC), detail=detail)
    with database.writing() as conn:
        project(conn, [Line(0, 0, entry, entry.id, 1000)])
    database.close()

    shown = CliRunner().invoke(cli, ["runs", "show", "r1", "-o", "table"], catch_exceptions=False)

    assert says in shown.stdout
