"""One cause from what is known: every cause can be the answer, and of several that hold one is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.event import Interval
from farandole.ledger.evidence import standing
from farandole.why import CAUSES, FINE, Evidence, Input, Landed, Verdict, decide

DAY = datetime(2026, 11, 23, tzinfo=UTC)
NOW = DAY + timedelta(days=2)
ABOUT = Interval(DAY, DAY + timedelta(days=1))


def run(state: str = "done", name: str = "r1", **more):
    told = {
        "id": name, "state": state, "epoch": 0, "interval": ABOUT, "error": None, "fingerprint": None, "stage": None,
        "step": None, "attempt": 2, "due": "2026-11-25T00:00:00.000Z", "detail": {},
        "recorded_at": "2026-11-24T06:00:00.000Z", "events": ["e1"],
    }  # fmt: skip
    return {**told, **more}


def event(outcome: str, name: str = "e1", **more) -> Landed:
    return Landed(name, "in.v1", "in.v1[0]@7", DAY + timedelta(hours=30), outcome, **more)


def came(*landed: Landed, **more) -> Input:
    return Input("day", "in.v1", landed=landed, **more)


def known(*inputs: Input, **more) -> Evidence:
    return Evidence("mart", ABOUT, NOW, inputs=inputs or (came(),), instances=1, **more)


def row(state: str, deadline: datetime = DAY + timedelta(hours=30)):
    return {
        "id": "x1",
        "name": "mart",
        "state": state,
        "deadline": deadline.isoformat(),
        "actor": "ada",
        "reason": "closed",
    }


def nobody(who: str, one: Input) -> Verdict:
    raise AssertionError(f"{who} was asked about {one.signal}")


def upstream(cause: str):
    return lambda who, _: Verdict(cause, who, "as it is", ({"run": "r9"},), "next")


MADE = came(producers=("merge",), taken=True)
ROWS: dict[str, tuple[Evidence, object]] = {
    "ran": (known(came(event("run", run=run())), runs=(run(),)), nobody),
    "caught": (known(runs=(run("caught"),)), nobody),
    "dead": (known(runs=(run("dead", error="BadRows: no", step="stage"), run(name="r2"))), nobody),
    "cancelled": (known(runs=(run("dead", error="Cancelled: by ada"),)), nobody),
    "join-expired": (known(runs=(run("dead", error="JoinExpired: weather did not come", stage="join"),)), nobody),
    "uncertain": (known(runs=(run("uncertain", error="Doubt: ?"),)), nobody),
    "resolved": (known(runs=(run("resolved", detail={"actor": "ada", "reason": "by hand"}),)), nobody),
    "parked": (known(runs=(run("parked", error="TableBusy: x"),)), nobody),
    "quarantined": (known(came(event("unreadable", run=run("dead", stage="decode")))), nobody),
    "paused": (known(came(event("ahead")), paused={"actor": "ada", "reason": "move", "at": DAY.isoformat()}), nobody),
    "stopped": (
        known(came(event("ahead")), stopped=({"at": "in.v1[0]", "why": "guard.stopped", "since": DAY.isoformat()},)),
        nobody,
    ),
    "denied": (replace(known(came(event("ahead"))), denied=("User:a may not Read topic in.v1",), instances=0), nobody),
    "no-instance": (replace(known(came(event("ahead"))), instances=0), nobody),
    "breaker-open": (
        known(came(event("ahead")), breakers=({"name": "api", "since": DAY.isoformat(), "error": "E"},)),
        nobody,
    ),
    "behind": (known(came(event("ahead")), lag=7), nobody),
    "missed": (known(came(event("unsettled"))), nobody),
    "blind": (known(came(event("unsettled")), current=False), nobody),
    "waiting": (known(runs=(run("waiting", detail={"missing": "day"}),)), nobody),
    "duplicate": (known(came(event("duplicate"))), nobody),
    "rewind-ignored": (known(came(event("ignored"))), nobody),
    "before-beginning": (known(came(event("before"))), nobody),
    "filtered": (known(came(event("refused", why="not (rows > 0): rows = 0"))), nobody),
    "waived": (known(expected=row("waived")), nobody),
    "no-deadline": (known(nothing_due=True), nobody),
    "not-due": (known(expected=row("pending", NOW + timedelta(hours=1))), nobody),
    "gap": (
        known(gaps=({"topic": "in.v1", "partition": 0, "from": 3, "state": "open"},)),
        nobody,
    ),
    "no-topic": (known(came(there=False)), nobody),
    "no-tick": (known(came(tick=("nightly", DAY + timedelta(hours=26)))), nobody),
    "sent-nothing": (known(MADE), upstream("ran")),
    "late": (known(came(newest=event("run", "e0"))), nobody),
    "never-sent": (known(), nobody),
}  # fmt: skip


def test_every_cause_has_its_row():
    assert ROWS.keys() == CAUSES.keys()


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_told_of_what_shows_it(cause):
    evidence, asked = ROWS[cause]
    found = decide(evidence, asked)
    assert (found.cause, found.interval, found.fine) == (cause, ABOUT, cause in FINE)
    assert found.says
    told = found.record()
    assert told["means"] == CAUSES[cause]


@pytest.mark.parametrize("cause", ["ran", "dead", "cancelled", "parked", "quarantined", "paused", "filtered", "missed"])
def test_a_cause_that_rests_on_ids_names_them(cause):
    assert decide(*ROWS[cause]).proof  # type: ignore[arg-type]


MERGED = known(MADE)


@pytest.mark.parametrize("cause", ["dead", "late", "paused", "no-instance", "never-sent", "sent-nothing"])
def test_what_others_make_is_asked_of_them_and_theirs_is_the_cause(cause):
    found = decide(MERGED, upstream(cause))
    assert (found.cause, found.pipeline) == (cause, "merge")
    assert found.chain[0] == ("mart", "in.v1 of merge")


def test_a_chain_names_everybody_who_waits():
    def middle(who: str, one: Input) -> Verdict:
        return decide(replace(MERGED, pipeline=who, inputs=(replace(one, producers=("landing",)),)), upstream("late"))

    found = decide(MERGED, middle)
    assert (found.pipeline, [who for who, _ in found.chain]) == ("landing", ["mart", "merge"])


def test_a_set_that_waits_for_what_others_make_waits_for_their_cause():
    waits = replace(MERGED, runs=(run("waiting", detail={"missing": "day"}),))
    assert decide(waits, upstream("breaker-open")).cause == "breaker-open"
    assert decide(waits, upstream("late")).cause == "waiting", "a feed from outside, further up, is what the set lacks"


def test_what_is_refused_every_day_is_no_cause_where_another_event_is_missing():
    usual = known(came(event("refused"), producers=("merge",), taken=True))
    assert decide(usual, upstream("dead")).cause == "dead"
    assert decide(usual, upstream("ran")).cause == "filtered"
    never = known(came(event("refused"), producers=("merge",), taken=False))
    assert decide(never, nobody).cause == "filtered", "criteria that never took anything are the cause themselves"


def test_what_holds_a_pipeline_is_told_in_the_order_in_which_it_has_to_be_mended():
    every = known(
        came(event("ahead")),
        paused={"actor": "ada", "reason": "move", "at": DAY.isoformat()},
        stopped=({"at": "in.v1[0]", "why": "guard.stopped", "since": DAY.isoformat()},),
        breakers=({"name": "api", "since": DAY.isoformat(), "error": "E"},),
        denied=("User:a may not Read topic in.v1",),
    )
    order = [replace(every, instances=0)]
    for mended in ({"denied": ()}, {"paused": None}, {"stopped": ()}, {"instances": 1}):
        order.append(replace(order[-1], **mended))
    assert [decide(one, nobody).cause for one in order] == [
        "denied", "paused", "stopped", "no-instance", "breaker-open",
    ]  # fmt: skip


def test_a_question_that_may_not_be_asked_is_answered_by_that():
    unread = Evidence("mart", ABOUT, DAY, denied=("nobody may not Read topic in.v1",))
    assert (decide(unread, nobody).cause, decide(unread, nobody).proof[0]["lacks"]) == ("denied", unread.denied)


def test_a_partition_that_stopped_elsewhere_is_not_the_cause():
    other = ({"at": "in.v1[3]", "why": "guard.stopped", "since": DAY.isoformat()},)
    assert decide(known(came(event("ahead")), stopped=other), nobody).cause == "behind"


def test_a_day_of_which_a_piece_has_not_been_read_yet_has_not_run():
    both = known(came(event("run", run=run()), event("ahead", "e2")), runs=(run(),))
    assert decide(both, nobody).cause == "behind"


def test_what_died_is_over_when_its_event_was_done_in_a_later_epoch():
    died, again = run("dead"), run("done", "r2", epoch=1)
    assert standing([died, again]) == [again]
    assert standing([again | {"epoch": 0}, died | {"epoch": 1}]) == [again | {"epoch": 0}, died | {"epoch": 1}]


@given(st.lists(st.sampled_from(sorted(CAUSES)), min_size=2, max_size=4))
def test_of_several_at_once_one_of_the_closed_list_is_the_answer(causes):
    many = [ROWS[cause][0] for cause in causes]
    inputs = (came(*(event_ for one in many for event_ in one.inputs[0].landed)),)
    mixed = replace(
        many[0],
        inputs=inputs,
        runs=tuple(r for one in many for r in one.runs),
        paused=next((one.paused for one in many if one.paused), None),
        gaps=tuple(g for one in many for g in one.gaps),
    )
    found = decide(mixed, upstream("ran"))
    assert found.cause in CAUSES
    if any(r["state"] == "dead" for r in mixed.runs):
        assert found.cause in ("dead", "cancelled", "join-expired")


def test_a_person_reads_who_waits_for_whom_the_cause_its_proof_and_what_to_do():
    from farandole.cli.why import _told

    evidence, asked = ROWS["paused"]
    lines = list(_told("mart", "2026-11-23", decide(replace(evidence, pipeline="merge"), asked)))  # type: ignore[arg-type]
    assert lines[0] == "mart has not run about 2026-11-23 because"
    assert "merge: paused by ada at 2026-11-23 00:00:00Z: move" in click.unstyle(lines[1])
    assert click.unstyle(lines[2]) == "  cause  paused"
    assert "event e1  type in.v1  place in.v1[0]@7  at 2026-11-24T06:00:00.000Z" in lines[4]
    assert lines[-1] == "next   farandole resume merge"
    ran = list(_told("mart", "2026-11-23", decide(*ROWS["ran"])))  # type: ignore[arg-type]
    assert ran[0] == "mart has run about 2026-11-23"
    chained = list(_told("mart", "2026-11-23", decide(MERGED, upstream("late"))))
    assert chained[1] == "  mart waits for in.v1 of merge"
