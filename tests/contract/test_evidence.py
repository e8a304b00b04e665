"""What is asked of the projection on why something did not run, and on its rhythm: the same on both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from farandole.clock import ManualClock
from farandole.event import Interval, Position
from farandole.expectation import Expectation, waived
from farandole.ledger import evidence
from farandole.ledger.database import open_projection
from farandole.ledger.entry import BOOKS_CLOSED, Entry
from farandole.ledger.expected import ExpectationProjector
from farandole.ledger.history import already_expected, of_events, of_pipelines
from farandole.ledger.projection import Line, project
from farandole.rhythm import Came

START = datetime(2013, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ABOUT = Interval(START, START + HOUR)


def millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def a_run(name: str, state: str, offset: int, **more) -> Entry:
    took = {
        "signal": "file", "topic": "in.v1", "topic_id": "T1", "partition": 0, "offset": offset, "event_id": f"e{offset}",
        "event_source": "/s", "event_type": "in.v1", "digest": b"12345678", "derived": False,
    }  # fmt: skip
    gave = {"topic": "out.v1", "id": f"o-{name}", "type": "out.v1", "digest": b"12345678"}
    return Entry("run", "merge", name, state=state, triggers=[took], outputs=[gave] if state == "done" else [], **more)


def a_fact(name: str, about: str, /, **detail: str) -> Entry:
    return Entry("fact", "merge", f"fact:merge:{name}:{about}", state="fact", fact=name, detail=detail)


def entries():
    yield a_run("r0", "done", 0, interval=ABOUT)
    yield a_run(
        "r1",
        "dead",
        1,
        interval=ABOUT,
        error={"class": "E", "message": "m", "fingerprint": "f", "stage": "handle", "step": "s"},
    )
    yield a_run("r2", "done", 1, interval=ABOUT, epoch=1)
    yield a_run("r3", "joined", 2, interval=ABOUT)
    yield a_run("r4", "done", 3)
    yield a_run("r5", "done", 4, interval=Interval(START + HOUR, START + 2 * HOUR))
    span = {
        "topic": "in.v1",
        "topic_id": "T1",
        "partition": 0,
        "start": 5,
        "end": 9,
        "filtered": {"not (x)": [5]},
        "duplicates": [7],
    }
    yield Entry("range", "merge", "range:1", state="range", span=span)
    yield a_fact("partition.began", "1", topic_id="T1", partition="0", at="3")
    yield a_fact("rewind.ignored", "1", topic_id="T1", partition="0", committed="0", position="4")
    yield a_fact("breaker.opened", "1", name="api", since="1", error="E")
    yield a_fact("breaker.opened", "2", name="api", since="2", error="E")
    yield a_fact("breaker.closed", "1", name="api", since="1")
    yield a_fact(BOOKS_CLOSED, "1", statement=json.dumps({"interval": 1}), signature="s", key="k")


class Topic:
    def __init__(self) -> None:
        window = Interval(START, START + HOUR)
        row = Expectation("x1", "x", "feed", START + 2 * HOUR, window, "2013-01-01", interval=ABOUT, event_type="in.v1")
        gone = Expectation("x2", "x", "old", START + HOUR, window, "2013-01-01", interval=ABOUT, event_type="in.v1")
        any_ = Expectation("x3", "x", "merge", START + 3 * HOUR, window, "2013-01-01", pipeline="merge")
        self.rows = {"x1": row, "x2": waived(gone, "ada", "gone"), "x3": any_}

    def read(self):
        return dict.fromkeys(self.rows, 0)


@pytest.fixture
def conn(store_url):
    database = open_projection(store_url)
    lines = [Line(0, n, one, one.id, millis(START) + n) for n, one in enumerate(entries())]
    with database.writing() as written:
        project(written, lines, topic_id="L1", read_to={0: len(lines)}, checked_at={0: 1})
    ExpectationProjector(database, lambda: (Topic(), "T1"), ManualClock(START)).look()
    with database.reading() as opened:
        yield opened
    database.close()


def test_runs_about_an_interval_and_those_that_took_a_record(conn):
    about = evidence.runs_about(conn, "merge", ABOUT)
    assert [(run["id"], run["events"]) for run in about] == [("r0", ["e0"]), ("r2", ["e1"])], "r1 was done in epoch 1"
    places = [Position("in.v1", "T1", 0, offset) for offset in range(6)]
    at = evidence.runs_at(conn, "merge", places)
    assert {place[2]: run["id"] for place, run in at.items()} == {0: "r0", 1: "r2", 3: "r4", 4: "r5"}
    assert evidence.outputs_of(conn, ["r0", "r2"]) == ["o-r0 3132333435363738", "o-r2 3132333435363738"]


def test_what_came_to_no_run_and_what_the_facts_say(conn):
    assert evidence.outcomes_at(conn, "merge", Position("in.v1", "T1", 0, 6)) == {
        "filtered": "not (x)",
        "duplicate": "",
    }
    assert evidence.outcomes_at(conn, "merge", Position("in.v1", "T1", 0, 9)) == {}
    assert evidence.beginnings(conn, "merge") == {("T1", 0): 3}
    assert [(one["from"], one["to"]) for one in evidence.ignored(conn, "merge")] == [(0, 4)]
    assert [one["since"] for one in evidence.breakers(conn, "merge")] == ["2"]
    assert [(one["pipeline"], one["statement"]) for one in evidence.books(conn)] == [("merge", {"interval": 1})]
    assert evidence.makers(conn, "out.v1") == {"merge"}
    assert [evidence.has_taken(conn, "merge", signal) for signal in ("file", "other")] == [True, False]


def test_what_is_expected_of_an_event_or_a_pipeline(conn):
    of_event = evidence.expected_about(conn, ABOUT, event_type="in.v1")
    assert [(row["id"], row["state"], row["actor"]) for row in of_event] == [
        ("x1", "pending", ""),
        ("x2", "waived", "ada"),
    ]
    assert [row["id"] for row in evidence.expected_about(conn, ABOUT, pipeline="merge")] == ["x3"]
    assert evidence.expected_about(conn, Interval(START + 48 * HOUR, START + 49 * HOUR), event_type="in.v1") == []


def test_the_history_of_live_work(conn):
    at = {name: START + timedelta(milliseconds=n) for n, name in enumerate(["r0", "r1", "r2", "r3", "r4", "r5"])}
    later = Interval(START + HOUR, START + 2 * HOUR)
    of_merge = of_pipelines(conn, START)["merge"]
    assert sorted(of_merge, key=lambda one: one.at) == [Came(at["r0"], ABOUT), Came(at["r4"]), Came(at["r5"], later)]
    assert of_pipelines(conn, START, "other") == {}
    assert set(of_events(conn, START)) == {"in.v1"}
    assert dict(already_expected(conn)) == {"in.v1": "feed", "merge": "merge"}
