"""What `farandole status` says of a day: the sentence, what needs a person, and the exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from farandole.cli import cli
from farandole.clock import ManualClock
from farandole.event import Interval
from farandole.expectation import Expectation, waived
from farandole.ledger.database import open_projection
from farandole.ledger.entry import Entry
from farandole.ledger.expected import ExpectationProjector
from farandole.ledger.projection import Line, project

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def due(name: str, at: datetime, state: str = "pending", **more) -> Expectation:
    row = Expectation(
        f"{name} {at}", name, name, at, Interval(at - 12 * HOUR, at + 12 * HOUR), at.date().isoformat(), HOUR,
        Interval(at - 30 * HOUR, at - 6 * HOUR), pipeline=name, state=state,
    )  # fmt: skip
    return replace(row, **more)


class Topic:
    """The rows of the topic, as who reads it folds them."""

    def __init__(self) -> None:
        self.rows: dict[str, Expectation] = {}
        self.news: dict[str, int] = {}

    def put(self, *rows: Expectation) -> None:
        for row in rows:
            self.rows[row.id] = row
            self.news[row.id] = len(self.news)

    def read(self):
        news, self.news = self.news, {}
        return news


def run(pipeline: str, state: str, name: str, **more) -> Entry:
    entry = Entry("run", pipeline, name, state=state, **more)
    entry.error = {"class": "BadRows", "message": "no date\nin row 7", "fingerprint": "f1", "stage": "handle", "step": "s"} if state == "dead" else None  # fmt: skip
    return entry


class Books:
    """A projection that a test fills, and the clock by which it is asked."""

    def __init__(self, folder) -> None:
        self.url, self.now = f"sqlite:///{folder}/{{pipeline}}.db", NOW
        self.topic, self.clock, self.offset = Topic(), ManualClock(NOW), 0
        self.database = open_projection(self.url.format(pipeline="projector"))
        self.keeper = ExpectationProjector(self.database, lambda: (self.topic, "T1"), self.clock)
        self.tell()

    def tell(self, *entries: Entry, at: datetime = NOW) -> None:
        lines = [Line(0, self.offset + n, e, e.id, millis(at)) for n, e in enumerate(entries)]
        self.offset += len(lines)
        with self.database.writing() as conn:
            project(conn, lines, read_to={0: self.offset}, topic_id="L", checked_at={0: millis(self.clock.now())})
        self.keeper.look()

    def expect(self, *rows: Expectation) -> None:
        self.topic.put(*rows)
        self.tell()


@pytest.fixture
def books(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Books(tmp_path)
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", made.url)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("farandole.clock.SystemClock.now", lambda _: made.now)
    yield made
    made.database.close()


def ask(*arguments: str):
    told = CliRunner().invoke(cli, ["status", *arguments], standalone_mode=False, catch_exceptions=False)
    return told.return_value, told.stdout


def shown(*arguments: str) -> list[str]:
    return [line.strip() for line in ask("-o", "table", *arguments)[1].splitlines() if line.strip()]


def test_a_day_on_which_all_came_is_one_sentence_and_leaves_with_nought(books):
    books.expect(due("mart", NOW - 5 * HOUR, "met"), due("merge", NOW - 4 * HOUR, "met"), due("late", NOW + HOUR))

    assert ask()[0] == 0
    assert shown() == [
        "Last night · Tue 24 Nov 2026 · as of 12:00:00 UTC (0.0 s ago)",
        "2 of 3 that were expected came · 1 not due yet",
        "DUE         late  due 2026-11-24 13:00:00 UTC   about 2026-11-23T07:00:00.000Z to 2026-11-24T07:00:00.000Z",
    ]


@pytest.mark.parametrize(
    ("row", "stands", "code"),
    [
        (due("mart", NOW + HOUR), "due", 0),
        (due("mart", NOW - HOUR / 2), "late", 3),
        (due("mart", NOW - HOUR), "missing", 3),
        (due("mart", NOW - 5 * HOUR, "missed"), "missing", 3),
        (due("mart", NOW - 5 * HOUR, "met"), "done", 0),
        (due("mart", NOW - 5 * HOUR, "met_late", arrived_at=NOW), "done late", 0),
        (waived(due("mart", NOW - 5 * HOUR, "missed"), "ann", "holiday"), "waived", 0),
    ],
)
def test_each_state_has_its_word_and_its_exit_code(books, row, stands, code):
    books.expect(row)

    left, said = ask("-o", "json")

    told = json.loads(said)
    assert (left, told["attention"]) == (code, code == 3)
    assert [one["stands"] for one in told["expected"]] == [stands]


def test_what_is_missed_since_days_is_shown_until_it_is_closed(books):
    row = due("mart", NOW - 72 * HOUR, "missed")
    books.expect(row)
    assert any(line.startswith("MISSING     mart  due 2026-11-21 12:00:00 UTC   3 d ago") for line in shown())
    about = "2026-11-20T06:00:00.000Z/2026-11-21T06:00:00.000Z"
    assert shown()[-1] == f"next   farandole why mart --for {about}"

    books.expect(waived(row, "ann", "never came"))
    assert ask()[0] == 0
    assert any("by ann: never came" in line for line in shown("--day", "2026-11-21"))


def test_dead_runs_stand_by_pipeline_and_cause(books):
    books.tell(run("merge", "dead", "a"), run("merge", "dead", "b"), run("mart", "done", "c"))

    code, said = ask("-o", "json")

    told = json.loads(said)
    assert code == 3
    assert [(one["pipeline"], one["letters"], one["error"]) for one in told["dead"]] == [
        ("merge", 2, "BadRows: no date\nin row 7")
    ]
    assert "DEAD        merge  2 times BadRows: no date   since 2026-11-24 12:00:00 UTC" in shown()
    assert "nothing is expected; 1 runs of 1 pipelines are done · 2 dead in 1 group" in shown()


def test_what_ran_again_in_a_later_epoch_is_restated_and_no_alarm(books):
    books.tell(run("mart", "done", "a", epoch=2, interval=Interval(NOW - HOUR, NOW)), run("mart", "done", "b"))

    assert ask()[0] == 0
    assert "RESTATED    mart  1 runs in epoch 2 about 2026-11-24T11:00:00.000Z to 2026-11-24T12:00:00.000Z" in shown()
    assert json.loads(ask("-o", "json")[1])["counts"]["restated"] == 1
    assert "restated" not in " ".join(shown("--day", "2026-11-23"))


def test_what_ran_again_after_its_books_were_closed_reopens_them(books):
    about = {"start": "2026-11-24T11:00:00.000Z", "end": "2026-11-24T12:00:00.000Z"}
    other = {"start": "2026-11-20T11:00:00.000Z", "end": "2026-11-20T12:00:00.000Z"}
    for number, one in enumerate((about, other)):
        detail = {"statement": json.dumps({"interval": one}), "signature": "s", "key": "k"}
        closed = Entry(
            "fact", "mart", f"fact:mart:books.closed:{number}", state="fact", fact="books.closed", detail=detail
        )
        books.tell(closed, at=NOW - HOUR)
    books.tell(run("mart", "done", "a", epoch=2, interval=Interval(NOW - HOUR, NOW)))

    code, said = ask("-o", "json")

    assert (code, json.loads(said)["restated"][0]["reopens"]) == (3, [f"{about['start']}/{about['end']}"])
    assert f"REOPENED    mart  the books of {about['start']}/{about['end']} were closed before" in shown()


def fact(name: str, about: str, **detail: str) -> Entry:
    return Entry("fact", "merge", f"fact:merge:{name}:{about}", state="fact", fact=name, detail=detail)


def test_a_partition_that_stopped_is_shown_until_it_goes_on(books):
    books.tell(
        fact("guard.stopped", "1", at="in.v1[3]"), fact("data.truncated", "2", topic="in.v1", partition="1", at="7")
    )
    stopped = {one["at"]: one["why"] for one in json.loads(ask("-o", "json")[1])["stopped"]}
    assert stopped == {"in.v1[3]": "guard.stopped", "in.v1[1]": "data.truncated"}
    assert ask()[0] == 3

    books.tell(fact("guard.released", "3", at="in.v1[3]"), at=NOW + HOUR)
    trigger = {
        "signal": "s", "topic": "in.v1", "topic_id": "T", "partition": 1, "offset": 9, "event_id": "e",
        "event_source": "/s", "event_type": "in.v1", "digest": b"12345678", "derived": False,
    }  # fmt: skip
    books.tell(run("merge", "done", "after", triggers=[trigger]), at=NOW + HOUR)
    assert json.loads(ask("-o", "json")[1])["stopped"] == []


def test_a_gap_makes_a_pipeline_incomplete(books):
    books.tell(
        fact("data.gap", "T1/3/0", **{"from": "0", "to": "7", "topic": "in.v1", "topic_id": "T1", "partition": "3"})
    )

    assert ask()[0] == 3
    assert "INCOMPLETE  merge  7 records at most of in.v1[3] are lost from 0 on" in shown()
    assert shown()[-1] == "next   farandole gaps merge"


def test_an_answer_that_is_old_says_so_and_is_itself_a_matter_for_attention(books):
    books.expect(due("mart", NOW + HOUR / 2))
    books.now = NOW + 3 * HOUR

    assert ask()[0] == 3
    assert "as of 12:00:00 UTC (3 h ago) · too old to rely on: farandole run projector" in shown()[0]
    assert shown()[1].endswith("1 not due yet"), "what came since nobody knows, so nothing is called missing"


def test_a_date_that_is_none_is_told(books):
    told = CliRunner().invoke(cli, ["status", "--day", "yesterday"])
    assert told.exit_code == 2
    assert "'yesterday' is no date" in told.output


def test_the_table_follows_the_topic_and_is_written_anew_when_it_was_dropped(books):
    row = due("mart", NOW, "missed")
    books.expect(row, due("merge", NOW))
    del books.topic.rows[row.id]
    books.topic.news[row.id] = 9
    books.tell()
    assert [one["name"] for one in json.loads(ask("-o", "json")[1])["expected"]] == ["merge"]

    books.database.close()
    from farandole.ledger.database import drop_projection, make_projection

    drop_projection(books.database)
    make_projection(books.database)
    books.tell()
    assert [one["name"] for one in json.loads(ask("-o", "json")[1])["expected"]] == ["merge"]


def test_a_projector_that_is_behind_changes_nothing(books):
    books.expect(due("mart", NOW, "missed"))
    books.topic.rows[f"mart {NOW}"] = due("mart", NOW, "met")
    books.topic.news[f"mart {NOW}"] = 7
    books.tell()
    behind = Topic()
    behind.put(due("mart", NOW))
    ExpectationProjector(books.database, lambda: (behind, "T1"), books.clock).look()
    assert [one["state"] for one in json.loads(ask("-o", "json")[1])["expected"]] == ["met"]


def swept(pipeline: str, *found: dict, at: datetime) -> Entry:
    entry = Entry("fact", "reconciler", f"fact:sweep:{pipeline}:{at}", state="fact", fact="sweep.done")
    entry.detail = {"pipeline": pipeline, **({"findings": json.dumps(found)} if found else {})}
    return entry


def test_what_the_newest_sweep_found_needs_somebody_and_a_hint_does_not(books):
    typo = {"kind": "matches-nothing", "hint": False, "says": "it took none of 120", "next": None, "topic": "t"}
    alone = {"kind": "nobody-listens", "hint": True, "says": "no pipeline listens", "next": None, "topic": "u"}
    for name, found, at in (("merge", [typo], HOUR), ("gone", [typo], 30 * HOUR), ("mended", [typo], 2 * HOUR)):
        books.tell(swept(name, *found, at=NOW - at), at=NOW - at)
    for name, found in (("mended", []), ("reconciler", [alone])):
        books.tell(swept(name, *found, at=NOW), at=NOW)
    assert [line for line in shown() if line.startswith(("FOUND", "HINT"))] == [
        "FOUND       merge       matches-nothing: it took none of 120",
        "HINT        reconciler  nobody-listens: no pipeline listens",
    ]
    assert ask()[0] == 3
    books.tell(swept("merge", at=NOW), at=NOW)
    code, told = ask("-o", "json")
    assert code == 0
    assert [one["kind"] for one in json.loads(told)["findings"]] == ["nobody-listens"]
