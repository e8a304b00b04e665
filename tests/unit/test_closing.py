"""Closed books: what stands in which set, what keeps them open, and what a changed statement is worth."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.closing import SETS, Signed, changes, digest, open_matters, sets_of, sign, statement, verify
from farandole.errors import FarandoleError, SettingsError
from farandole.why import Evidence
from tests.unit.test_why import ABOUT, NOW, came, event, row, run

KEY = "sixteen characters"
BY = {"closed_at": "2026-11-25T00:00:00.000Z", "actor": "ada", "reason": "month end"}


def known(*landed, **more) -> Evidence:
    return Evidence("mart", ABOUT, NOW, inputs=(came(*landed),), instances=1, **more)


def told(e: Evidence, outputs=("o1 00",)) -> dict:
    return statement(e, sets_of(e), outputs, {"3": 7}, BY)


DONE = known(event("run", run=run()), event("refused", "e2"), event("duplicate", "e3"), runs=(run(),))


def test_each_event_stands_in_one_set_and_in_landed():
    sets = sets_of(DONE)
    assert {name: ids for name, ids in sets.items() if ids} == {
        "landed": {"e1", "e2", "e3"}, "done": {"e1"}, "filtered": {"e2"}, "duplicate": {"e3"},
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(["done", "dead", "parked", "resolved", "caught"]), st.integers(0, 2)), max_size=6
    )
)
def test_landed_is_all_others_together_whatever_became_of_them(outcomes):
    runs = tuple(run(state, f"r{n}", epoch=epoch, events=[f"e{n % 3}"]) for n, (state, epoch) in enumerate(outcomes))
    sets = sets_of(known(event("refused", "e9"), runs=runs))
    others = [sets[name] for name in SETS[1:]]
    assert sum(map(len, others)) == len(sets["landed"])
    assert set().union(*others) == sets["landed"]


def test_what_ran_again_counts_as_its_last_epoch_says():
    sets = sets_of(known(runs=(run("dead"), run("done", "r2", epoch=1))))
    assert (sets["done"], sets["dead"]) == ({"e1"}, set())


def test_nothing_is_open_where_all_is_settled():
    assert open_matters(DONE, sets_of(DONE)) == []


@pytest.mark.parametrize(
    ("evidence", "matter"),
    [
        (replace(DONE, now=ABOUT.start), "the interval is not over"),
        (replace(DONE, current=False), "farandole run projector"),
        (replace(DONE, gaps=({"topic": "in.v1", "partition": 0, "from": 3, "to": 5, "id": "g", "state": "open"},)), "a gap is open: in.v1[0] from 3 to 5 (g)"),
        (known(event("ahead")), "1 event not read yet: e1"),
        (known(event("unsettled")), "1 event below the offset, without an outcome: e1"),
        (known(event("run", run=run("dead"))), "1 event dead: e1"),
        (known(event("run", run=run("parked"))), "1 event parked: e1"),
        (known(runs=(run("waiting"),)), "1 event waiting: e1"),
        (replace(DONE, expected=row("pending")), "is pending: x1"),
        (replace(DONE, expected=row("missed")), "is missed: x1"),
        (known(), "nothing has come"),
        (known(event("unreadable")), "1 event that nobody can read"),
        (Evidence("mart", ABOUT, NOW, inputs=(replace(came(event("run", run=run())), cut=True),)), "more than can be counted"),
    ],
)  # fmt: skip
def test_what_is_open_is_named(evidence, matter):
    found = open_matters(evidence, sets_of(evidence))
    assert any(matter in line for line in found), found


def test_a_closed_gap_and_a_waived_day_keep_nothing_open():
    gap = {"topic": "in.v1", "partition": 0, "from": 3, "to": 5, "id": "g", "state": "closed"}
    assert open_matters(replace(DONE, gaps=(gap,)), sets_of(DONE)) == []
    empty = known(expected=row("waived"))
    assert open_matters(empty, sets_of(empty)) == []


def test_a_signature_is_that_of_its_statement_and_key():
    signed = sign(told(DONE), KEY)
    verify(signed, KEY)
    forged = {**signed.statement, "sets": {**signed.statement["sets"], "dead": digest(["e7"])}}
    with pytest.raises(FarandoleError, match="was changed"):
        verify(Signed(forged, signed.signature, signed.key), KEY)
    with pytest.raises(FarandoleError, match="signed with the key"):
        verify(signed, KEY + "!")
    with pytest.raises(SettingsError, match="16 characters"):
        sign(told(DONE), "short")
    assert KEY not in str(signed)


def test_what_is_done_later_shows_as_a_change_and_who_closed_it_does_not():
    later = replace(DONE, runs=(*DONE.runs, run("done", "r2", epoch=1)))
    assert changes(told(DONE), {**told(DONE), "closed_at": "later", "actor": "bob"}) == []
    assert changes(told(DONE), told(later)) == ["runs: 1 then, 2 now"]
    assert changes(told(DONE), told(DONE, ["o1 11"])) == ["outputs: 1 then, 1 now"]
    more = known(event("run", run=run()), event("refused", "e2"), event("refused", "e3"), runs=(run(),))
    assert changes(told(DONE), told(more)) == ["filtered: 1 then, 2 now", "duplicate: 1 then, 0 now"]


@given(st.lists(st.text(max_size=4)))
def test_a_digest_knows_neither_order_nor_repeats(ids):
    assert digest(ids) == digest([*reversed(ids), *ids])


def test_a_person_reads_the_state_the_sets_and_who_closed_it():
    from farandole.cli.close import _told

    said = [click.unstyle(line) for line in _told("reopened", sign(told(DONE), KEY), ["done: 1 then, 2 now"])]
    assert said[:2] == ["reopened", "  done: 1 then, 2 now"]
    assert any(line.split()[:2] == ["landed", "3"] for line in said)
    assert any("by ada: month end" in line for line in said)
    assert list(_told("open", None, ["1 event dead: e1"]))[1:] == ["  1 event dead: e1"]
