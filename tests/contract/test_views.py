"""The views of the projection: the same columns on both databases, asked by command, never written, kept as Parquet."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from farandole.cli import cli
from farandole.clock import ManualClock
from farandole.errors import FarandoleError
from farandole.event import Interval
from farandole.expectation import Expectation
from farandole.ledger.asked import answered, exported
from farandole.ledger.database import drop_projection, make_projection, open_projection
from farandole.ledger.entry import Entry
from farandole.ledger.expected import ExpectationProjector
from farandole.ledger.projection import Line, project
from farandole.ledger.views import VIEWS

ROOT = Path(__file__).parents[2]
START = datetime(2013, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def origin(event_id: str, offset: int):
    return {
        "signal": "file", "topic": "in.v1", "topic_id": "T1", "partition": 0, "offset": offset, "event_id": event_id,
        "event_source": "/producer", "event_type": "in.v1", "digest": b"12345678", "derived": False,
    }  # fmt: skip


def entries():
    step = {
        "name": "merge", "state": "done", "attempts": 1, "started_at": START, "ended_at": START + HOUR, "error": None,
        "reused": True, "version": "1.0",
    }  # fmt: skip
    error = {"class": "BadRows", "message": "100 % bad", "fingerprint": "f1", "stage": "handle", "step": "merge"}
    about = Interval(START, START + HOUR)
    for n, state in enumerate(["done", "done", "dead"]):
        yield Entry(
            "run", "merge", f"r{n}", state=state, triggers=[origin(f"e{n}", n)], steps=[step], interval=about,
            outputs=[{"topic": "out.v1", "id": f"o{n}", "type": "out.v1", "digest": b"12345678"}],
            error=error if state == "dead" else None, started_at=START, ended_at=START + timedelta(seconds=3),
        )  # fmt: skip
    span = {
        "topic": "in.v1",
        "topic_id": "T1",
        "partition": 0,
        "start": 3,
        "end": 9,
        "filtered": {"not (x)": [3, 4]},
        "duplicates": [5],
    }
    yield Entry("range", "merge", "range:1", state="range", span=span)
    yield Entry("fact", "merge", "fact:1", state="fact", fact="data.gap", detail={"from": "1"})


class Topic:
    def __init__(self) -> None:
        row = Expectation(
            "x1",
            "x",
            "mart",
            START,
            Interval(START, START + HOUR),
            "2013-01-01",
            state="met_late",
            arrived_at=START + HOUR,
        )
        self.rows = {"x1": row}

    def read(self):
        return dict.fromkeys(self.rows, 0)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/projector.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("stack").postgres_url()
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    opened = open_projection(url)
    lines = [Line(0, n, one, one.id, 1_356_998_400_123 + n) for n, one in enumerate(entries())]
    with opened.writing() as conn:
        project(conn, lines, topic_id="L1", read_to={0: 9}, checked_at={0: 1})
    ExpectationProjector(opened, lambda: (Topic(), "T1"), ManualClock(START)).look()
    yield opened
    opened.close()


def rows(database, statement: str):
    return list(answered(database, statement))


def ask(*arguments: str):
    return CliRunner().invoke(cli, ["sql", *arguments], standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_has_the_columns_that_are_promised_and_a_row_for_each_of_its_table(database, view):
    found = rows(database, f"select * from {view.name}")
    assert len(found) == {"runs": 3, "steps": 3, "events": 6, "ranges": 2, "facts": 1, "expectations": 1}[view.name]
    assert list(found[0]) == [column.name for column in view.columns]


def test_times_are_times_and_spans_are_seconds(database):
    (one,) = rows(database, "select interval_start, seconds, recorded_at from runs where id = 'r0'")
    known = {k: v if isinstance(v, datetime) or k == "seconds" else datetime.fromisoformat(v) for k, v in one.items()}
    assert known["interval_start"] == START
    assert float(known["seconds"]) == 3.0
    assert known["recorded_at"] == START + timedelta(milliseconds=123)
    assert [float(r["late_seconds"]) for r in rows(database, "select late_seconds from expectations")] == [3600.0]


def test_a_question_may_hold_a_percent_sign_and_whatever_else_sql_has(database):
    assert rows(database, "select id from runs where message like '100 \\%%' escape '\\'") == [{"id": "r2"}]
    counted = "with dead as (select * from runs where state = 'dead') select count(*) as n from dead"
    assert rows(database, counted) == [{"n": 1}]


@pytest.mark.parametrize(
    "statement",
    [
        "delete from run",
        "drop view runs",
        "select 1; delete from run",
        "commit; delete from run",
        "create table x (y int)",
    ],
)
def test_nothing_is_written_and_nothing_but_one_statement_is_taken(database, statement):
    with pytest.raises(FarandoleError):
        rows(database, statement)
    assert rows(database, "select count(*) as n from runs") == [{"n": 3}]
    with database.writing() as conn:  # the connection is as it was
        conn.exec_driver_sql("delete from run where id = 'r2'")
    assert rows(database, "select count(*) as n from runs") == [{"n": 2}]


def test_a_wrong_question_says_what_there_is(database):
    with pytest.raises(FarandoleError, match="nothing") as told:
        rows(database, "select nothing from runs")
    assert "expectations" in told.value.hint


def test_the_views_go_and_come_with_the_tables(database):
    drop_projection(database)
    with pytest.raises(FarandoleError):
        rows(database, "select 1 from runs")
    make_projection(database)
    assert rows(database, "select 1 from runs") == []


def test_by_command_in_every_form(database):
    asked = "select state, count(*) as runs from runs group by state order by state"
    assert [json.loads(line) for line in ask(asked).stdout.splitlines()] == [
        {"state": "dead", "runs": 1},
        {"state": "done", "runs": 2},
    ]
    assert list(csv.reader(io.StringIO(ask(asked, "-o", "csv").stdout))) == [
        ["state", "runs"],
        ["dead", "1"],
        ["done", "2"],
    ]
    assert ask(asked, "-o", "table").stdout.splitlines()[1].split() == ["dead", "1"]
    (told,) = json.loads(ask("select recorded_at from runs where id = 'r0'", "-o", "json").stdout)
    assert told == {"recorded_at": "2013-01-01T00:00:00.123Z"}
    cut = ask("select id from runs", "--limit", "2")
    assert (len(cut.stdout.splitlines()), "more than 2 rows" in cut.stderr) == (2, True)


def test_without_a_statement_the_views_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", f"sqlite:///{tmp_path}/nowhere.db")
    shown = [json.loads(line) for line in ask().stdout.splitlines()]
    assert [(one["view"], one["column"]) for one in shown] == [(v.name, c.name) for v in VIEWS for c in v.columns]


@pytest.mark.skipif(importlib.util.find_spec("duckdb") is None, reason="duckdb is not installed")
def test_parquet_files_hold_the_rows_and_are_the_same_when_they_are_made_again(database, tmp_path):
    import duckdb

    told = {name: (path, count) for name, path, count in exported(database, tmp_path / "out")}
    assert {name: count for name, (_, count) in told.items()} == {
        "runs": 3, "steps": 3, "events": 6, "ranges": 2, "facts": 1, "expectations": 1,
    }  # fmt: skip
    runs, steps = told["runs"][0], told["steps"][0]
    asked = f"select r.id, r.interval_start, s.reused from '{runs}' r join '{steps}' s on s.run_id = r.id order by 1"
    assert duckdb.sql(asked).fetchall()[0] == ("r0", START, True)

    before = {name: path.read_bytes() for name, (path, _) in told.items()}
    assert {name: path.read_bytes() for name, path, _ in exported(database, tmp_path / "out")} == before
    assert [name for name, *_ in exported(database, tmp_path / "one", ["facts"])] == ["facts"]


def test_the_examples_of_the_page_are_answered(database):
    page = (ROOT / "docs/reference/views.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 4
    for one in examples:
        rows(database, one)
