"""The projection gives the same answers on SQLite and on PostgreSQL, and the same again when it is built anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from farandole.errors import FarandoleError
from farandole.event import Interval
from farandole.ledger.database import drop_projection, open_projection, read_projection
from farandole.ledger.entry import Entry
from farandole.ledger.gaps import gap_named, gaps
from farandole.ledger.lineage import Key, lineage
from farandole.ledger.projection import Line, positions, project
from farandole.ledger.queries import checked_at, counts, facts, run_shown, runs

START = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/{{pipeline}}.db"
    return request.getfixturevalue("stack").postgres_url()


@pytest.fixture
def database(url):
    opened = open_projection(url)
    yield opened
    opened.close()


def origin(event_id, offset=0, topic="lake.file.landed.v1"):
    return {
        "signal": "file",
        "topic": topic,
        "topic_id": "T1",
        "partition": 0,
        "offset": offset,
        "event_id": event_id,
        "event_source": "/producer",
        "event_type": topic,
        "digest": b"12345678",
        "derived": False,
    }


def emitted(event_id, topic="lake.table.staged.v1"):
    return {"topic": topic, "id": event_id, "type": topic, "digest": b"12345678"}


def step_taken(name="merge", state="done", attempts=1, error=None):
    return {
        "name": name,
        "state": state,
        "attempts": attempts,
        "started_at": START,
        "ended_at": START + timedelta(seconds=2),
        "error": error,
        "reused": False,
        "version": "1.0",
    }


def a_run(run_id, state="done", *, took=("e1",), gave=(), life=0, pipeline="merge", **more):
    return Entry(
        "run",
        pipeline,
        run_id,
        state=state,
        life=life,
        keys=[b"k" * 16],
        triggers=[origin(e, n) for n, e in enumerate(took)],
        outputs=[emitted(e) for e in gave],
        steps=[step_taken()],
        started_at=START,
        ended_at=START + timedelta(seconds=3),
        correlation_id=took[0],
        **more,
    )


def lines(*entries, partition=0, first=0):
    return [Line(partition, first + n, e, e.id, 1000 + first + n) for n, e in enumerate(entries)]


def take(database, *some, **more):
    with database.writing() as conn:
        return project(conn, some, topic_id="L1", **more)


def ask(database, question, *args, **more):
    with database.reading() as conn:
        return question(conn, *args, **more)


def test_a_run_is_shown_with_its_steps_its_events_and_its_interval(database):
    entry = a_run("r1", gave=["e2", "e3"], interval=Interval(START, START + timedelta(hours=1)), parameters={"a": "b"})

    take(database, *lines(entry))

    shown = ask(database, run_shown, "r1")
    assert shown["interval"] == {"start": "2013-01-01T00:00:00.000Z", "end": "2013-01-01T01:00:00.000Z"}
    assert [s["name"] for s in shown["steps"]] == ["merge"]
    assert [(t["id"], t["topic"], t["partition"], t["offset"]) for t in shown["triggers"]] == [
        ("e1", "lake.file.landed.v1", 0, 0)
    ]
    assert [o["id"] for o in shown["outputs"]] == ["e2", "e3"]
    assert (shown["seconds"], shown["parameters"], shown["state"]) == (3.0, {"a": "b"}, "done")


def test_a_later_entry_replaces_an_earlier_one_with_all_its_parts(database):
    take(database, *lines(a_run("r1", "parked", gave=["e2", "e3"])))

    take(database, *lines(a_run("r1", "done", gave=["e4"]), first=1))

    shown = ask(database, run_shown, "r1")
    assert (shown["state"], [o["id"] for o in shown["outputs"]]) == ("done", ["e4"])


def test_a_batch_that_is_told_twice_changes_nothing(database):
    batch = lines(a_run("r1", "parked"), a_run("r1", "done"), a_run("r2"))
    take(database, *batch)
    before = ask(database, runs)

    told = take(database, *batch)

    assert (told.taken, told.known) == (0, 3)
    assert ask(database, runs) == before


def test_the_offsets_move_in_the_same_transaction_as_the_rows(database):
    class CrashError(Exception):
        pass

    def crash():
        with database.writing() as conn:
            project(conn, lines(a_run("r1")), topic_id="L1")
            raise CrashError

    with pytest.raises(CrashError):
        crash()

    assert ask(database, positions) == {}
    assert ask(database, runs) == []


def test_markers_behind_the_last_entry_count_as_read(database):
    take(database, *lines(a_run("r1")), read_to={0: 2, 3: 17})

    assert ask(database, positions) == {0: (2, "L1"), 3: (17, "L1")}


def test_a_lower_rank_after_done_is_refused_and_reported(database):
    take(database, *lines(a_run("r1", "done", gave=["e2"])))

    told = take(database, *lines(a_run("r1", "dead", life=7), first=1))

    assert told.refused == 1
    assert ask(database, run_shown, "r1")["state"] == "done"
    (fact,) = ask(database, facts, "ledger.lower-rank")
    assert (fact["detail"]["run"], fact["detail"]["refused"]) == ("r1", "dead, life 7")


def test_a_lower_rank_within_one_batch_is_refused_too(database):
    told = take(database, *lines(a_run("r1", "done"), a_run("r1", "claimed")))

    assert (told.refused, ask(database, run_shown, "r1")["state"]) == (1, "done")


def test_a_redriven_run_leaves_dead_in_its_next_life(database):
    take(database, *lines(a_run("r1", "dead"), a_run("r1", "claimed", life=1)))
    assert ask(database, run_shown, "r1")["state"] == "claimed"

    take(database, *lines(a_run("r1", "done", life=1), first=2))

    assert (ask(database, run_shown, "r1")["state"], ask(database, facts)) == ("done", [])


def test_what_came_to_no_run_is_counted_by_reason(database):
    span = {"topic": "t.v1", "topic_id": "T1", "partition": 0, "start": 0, "end": 9}
    one = Entry("range", "merge", "range:T1/0/0", span={**span, "filtered": {"criteria": [1, 2]}, "duplicates": [3]})
    two = Entry("range", "merge", "range:T1/0/9", span={**span, "filtered": {"criteria": [9]}, "duplicates": []})

    take(database, *lines(one, two, a_run("r1")))

    assert [(c["what"], c["reason"], c["number"]) for c in ask(database, counts, "merge")] == [
        ("done", "", 1),
        ("duplicate", "", 1),
        ("filtered", "criteria", 3),
    ]


def a_gap(start, end, pipeline="merge", partition=3):
    detail = {"from": str(start), "to": str(end), "topic": "t.v1", "topic_id": "T1", "partition": str(partition)}
    name = f"fact:{pipeline}:data.gap:T1/{partition}/{start}"
    return Entry("fact", pipeline, name, state="fact", fact="data.gap", detail=detail)


def closed(gap, reason="a test of ours"):
    detail = {"gap": gap, "actor": "ann", "reason": reason}
    return Entry("fact", "merge", f"fact:merge:gap.closed:{gap}", state="fact", fact="gap.closed", detail=detail)


def test_open_gaps_are_listed_with_their_range_until_they_are_closed(database):
    take(database, *lines(a_gap(10, 15), a_gap(30, 40), a_gap(0, 7, pipeline="mart"), closed("merge:T1/3/30")))

    (gap,) = ask(database, gaps, "merge")
    assert (gap["id"], gap["topic"], gap["partition"]) == ("merge:T1/3/10", "t.v1", 3)
    assert (gap["from"], gap["to"], gap["records_at_most"], gap["state"]) == (10, 15, 5, "open")
    assert [g["pipeline"] for g in ask(database, gaps)] == ["merge", "mart"]
    known = [g for g in ask(database, gaps, "merge", closed=True) if g["state"] == "closed"]
    assert [(g["from"], g["actor"], g["reason"]) for g in known] == [(30, "ann", "a test of ours")]


def test_a_gap_found_again_before_it_was_committed_stands_once_with_its_last_end(database):
    take(database, *lines(a_gap(10, 15), a_gap(10, 18)))

    assert [(g["from"], g["to"]) for g in ask(database, gaps)] == [(10, 18)]


def test_a_gap_whose_end_nobody_knows_says_so(database):
    take(database, *lines(a_gap(10, "unknown")))

    (gap,) = ask(database, gaps)
    assert (gap["from"], gap["to"], gap["records_at_most"]) == (10, None, None)


def test_a_gap_is_found_by_the_beginning_of_its_id(database):
    take(database, *lines(a_gap(1, 5), a_gap(10, 15), a_gap(2, 3, pipeline="mart")))

    assert ask(database, gap_named, "mart")["from"] == 2
    assert ask(database, gap_named, "merge:T1/3/1")["from"] == 1
    with pytest.raises(FarandoleError, match="more than one gap"):
        ask(database, gap_named, "merge")
    with pytest.raises(FarandoleError, match="no gap 'x'"):
        ask(database, gap_named, "x")


def test_a_tombstone_makes_the_projection_forget(database):
    take(database, *lines(a_run("r1", gave=["e2"]), a_run("r2")))

    take(database, Line(0, 2, None, "r1"))

    assert [r["id"] for r in ask(database, runs)] == ["r2"]
    with pytest.raises(FarandoleError, match="no run took or gave"):
        ask(database, lineage, "e2")


def test_lineage_goes_both_ways_through_several_pipelines(database):
    take(
        database,
        *lines(
            a_run("r1", took=["landed"], gave=["staged-a", "staged-b"], pipeline="relationalize"),
            a_run("r2", took=["staged-a"], gave=["merged-a"]),
            a_run("r3", took=["staged-b"], gave=["merged-b"]),
            a_run("r4", took=["merged-a", "merged-b"], gave=["mart"], pipeline="mart-delays"),
        ),
    )

    whole = ask(database, lineage, "merged-a")

    ids = {key.id for key in whole.nodes}
    assert ids == {"landed", "r1", "staged-a", "r2", "merged-a", "r4", "mart"}
    assert whole.effects(Key("event", "merged-a")) == [Key("run", "r4")]
    assert whole.causes(Key("event", "staged-a")) == [Key("run", "r1")]
    assert whole.nodes[Key("event", "landed")]["offset"] == 0
    assert {k.id for k in ask(database, lineage, "r4", down=False).nodes} == ids - {"mart"} | {
        "staged-b",
        "r3",
        "merged-b",
    }


def test_a_foreign_event_is_linked_to_the_story_that_it_belongs_to(database):
    entry = a_run("r1", took=["foreign"])
    entry.correlation_id = "landed"
    take(database, *lines(a_run("r0", took=["landed"]), entry))

    found = ask(database, lineage, "r1", down=False)

    assert [key.id for key in found.causes(Key("event", "foreign"))] == ["landed"]


def test_runs_are_found_by_the_beginning_of_their_id(database):
    take(database, *lines(a_run("abc-1"), a_run("abd-1"), a_run("x%_")))

    assert ask(database, run_shown, "abd")["id"] == "abd-1"
    assert ask(database, run_shown, "x%")["id"] == "x%_"
    with pytest.raises(FarandoleError, match=r"more than one run.*abc-1, abd-1"):
        ask(database, run_shown, "ab")
    with pytest.raises(FarandoleError, match="no run 'b'"):
        ask(database, run_shown, "b")


def test_runs_are_listed_newest_first_and_filtered(database):
    take(database, *lines(a_run("r1"), a_run("r2", "dead"), a_run("r3", pipeline="other"), a_run("r4", "joined")))

    assert [r["id"] for r in ask(database, runs)] == ["r3", "r2", "r1"]
    assert [r["id"] for r in ask(database, runs, pipeline="merge", states=["dead", "joined"])] == ["r4", "r2"]
    assert [r["id"] for r in ask(database, runs, limit=1)] == ["r3"]
    assert [r["id"] for r in ask(database, runs, since=datetime.fromtimestamp(1.001, UTC))] == ["r3", "r2"]


def test_runs_recorded_in_the_same_moment_have_one_order(database):
    same = [Line(p, 0, a_run(f"r{p}"), f"r{p}", 1000) for p in range(5)]
    take(database, *reversed(same))

    assert [r["id"] for r in ask(database, runs)] == ["r0", "r1", "r2", "r3", "r4"]


def test_dropped_and_read_from_the_beginning_it_gives_the_same_answers(database, url):
    history = lines(
        a_run("r1", "dead", error={"class": "E", "message": "m", "fingerprint": "f", "stage": "run", "step": "s"}),
        a_run("r2", "done", gave=["e2"]),
        a_run("r2", "claimed"),
        Entry("fact", "merge", "f1", fact="offset.regressed", detail={"from": "5"}),
        a_run("r1", "done", life=1),
    )

    def answers(of):
        with of.reading() as conn:
            shown = [run_shown(conn, r) for r in ("r1", "r2")]
            return runs(conn), shown, facts(conn), counts(conn), positions(conn)

    for line in history:
        take(database, line)
    before = answers(database)
    drop_projection(database)
    anew = open_projection(url)
    take(anew, *history)

    assert answers(anew) == before
    anew.close()


def test_a_projection_of_another_version_is_read_anew(database, url):
    take(database, *lines(a_run("r1")))
    with database.writing() as conn:
        conn.exec_driver_sql("update projection_version set version = 0")

    with pytest.raises(FarandoleError, match="no projection"):
        read_projection(url)
    anew = open_projection(url)

    assert ask(anew, positions) == {}
    anew.close()


def test_asking_before_the_projector_ran_names_the_remedy(url):
    with pytest.raises(FarandoleError, match="farandole run projector"):
        read_projection(url)


def test_how_old_an_answer_is_follows_the_partition_seen_least_lately(database):
    take(database, checked_at={0: 5_000, 1: 5_000}, read_to={0: 1, 1: 1})
    take(database, checked_at={1: 9_000}, read_to={1: 4})

    assert ask(database, checked_at) == datetime.fromtimestamp(5, UTC)


def test_a_large_batch_needs_few_round_trips(database):
    from sqlalchemy import event

    executed = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: executed.append(args[2]))

    take(database, *lines(*(a_run(f"r{n}", took=[f"e{n}"], gave=[f"o{n}"]) for n in range(2000))))

    assert len(executed) < 50
    assert len(ask(database, runs, limit=5000)) == 2000
