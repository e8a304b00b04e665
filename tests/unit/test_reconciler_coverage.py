"""Offsets with and without an outcome: what counts once, what is a hole, and what a sweep keeps of it."""

from __future__ import annotations

from farandole.ledger.entry import BEGAN, Entry
from farandole.reconciler.account import Account
from farandole.reconciler.coverage import Coverage


def covered(*offsets, state="done"):
    made = Coverage()
    made.began(0)
    for offset in offsets:
        made.stands(offset, 0, state)
    return made


def test_an_offset_without_an_outcome_below_the_position_is_a_hole():
    assert covered(0, 1, 3).uncovered(0, 5) == [(2, 3), (4, 5)]


def test_what_stands_at_or_above_the_position_is_in_flight_and_no_hole():
    assert covered(0, 1).uncovered(0, 2) == []


def test_what_stood_below_the_first_offset_was_never_meant_for_the_pipeline():
    late = Coverage()
    late.began(70)
    late.stands(71, 0, "done")
    assert late.uncovered(0, 72) == [(70, 71)]


def test_without_a_word_of_where_it_began_the_first_outcome_is_the_beginning():
    made = Coverage()
    made.stands(7, 0, "done")
    made.stands(5, 0, "done")
    assert made.uncovered(0, 8) == [(6, 7)]


def test_a_pipeline_that_settled_nothing_has_no_holes():
    assert Coverage().uncovered(0, 100) == []


def test_what_retention_ate_is_no_hole():
    assert covered(0, 9).uncovered(5, 10) == [(5, 9)]


def test_an_outcome_that_is_told_twice_counts_once():
    made = covered(0)
    made.stands(0, 0, "done")
    made.settled(0, "filtered: no")
    assert made.outcomes() == {"done": 1}


def test_a_state_that_may_change_is_counted_as_the_one_it_is_now():
    made = covered(0, state="parked")
    assert made.outcomes() == {"parked": 1}
    made.stands(0, 0, "dead")
    made.stands(0, 1, "parked")  # redriven
    made.stands(0, 0, "dead")  # an older word, read late
    assert made.outcomes() == {"parked": 1}
    made.stands(0, 1, "done")
    made.stands(0, 1, "parked")
    assert made.outcomes() == {"done": 1}


def test_a_member_of_a_set_counts_as_what_its_run_has_become():
    made = covered(0, state="waiting")
    made.stands(0, 0, "joined")
    assert made.outcomes() == {"waiting": 1}
    made.stands(0, 0, "done")
    assert made.outcomes() == {"done": 1}


def test_a_record_that_brought_a_member_of_a_set_is_done_with_when_that_was_joined():
    account = Account("pairs")
    for state in ("waiting", "joined"):
        entry = Entry("run", "pairs", "waits-1", state=state, keys=[b"k"], via=["retry/0/5"])
        account.take(entry.record())
        assert account.of("retry", 0).covers(5)
    assert not account.of("retry", 0).open


def test_an_offset_that_holds_no_record_is_looked_at_once():
    made = covered(0, 2)
    made.empty(range(1, 2))
    assert made.uncovered(0, 3) == []
    assert made.outcomes() == {"done": 2}


def test_below_a_hole_everything_is_proven_and_nothing_above_is_forgotten():
    made = covered(*range(100_000), *range(100_001, 200_000))
    made.prove(0, 200_000)
    assert made.proven == 100_000
    assert made.uncovered(0, 200_000) == [(100_000, 100_001)]
    made.stands(100_000, 0, "done")
    made.prove(0, 200_000)
    assert made.proven == 200_000
    assert made.outcomes() == {"done": 200_000}
    assert made.covers(199_999)
    assert not made.covers(200_000)


def test_what_is_kept_between_two_sweeps_says_the_same():
    made = covered(0, 1, 5)
    made.stands(6, 0, "parked")
    made.prove(0, 3)
    again = Coverage.of(made.record())
    assert again.outcomes() == made.outcomes()
    assert again.uncovered(0, 8) == made.uncovered(0, 8) == [(2, 5), (7, 8)]


def test_a_million_offsets_take_a_bit_each():
    made = covered(*range(0, 1_000_000, 2))  # every second one is a marker
    assert sum(len(chunk) for chunk in made.record()["bits"].values()) < 140_000


# ---- from the ledger's lines


def origin(offset, partition=0):
    return {"topic_id": "T", "partition": partition, "offset": offset}


def account(*entries):
    made = Account("p")
    for entry in entries:
        made.take(entry.record())
    return made


def test_a_range_entry_says_by_reason_what_came_to_no_run():
    ranged = Entry("range", "p", "range:p:T/0/0", state="range")
    ranged.span = {
        "topic": "t", "topic_id": "T", "partition": 0, "start": 0, "end": 4, "filtered": {"no": [1, 2]}, "duplicates": [3],
    }  # fmt: skip
    run = Entry("run", "p", "r", state="done", triggers=[origin(0)])
    made = account(run, ranged).of("T", 0)
    assert made.outcomes() == {"done": 1, "filtered: no": 2, "duplicate": 1}
    assert made.uncovered(0, 4) == []


def test_another_pipeline_and_another_epoch_say_nothing_of_this_one():
    foreign = Entry("run", "q", "r", state="done", triggers=[origin(0)])
    replayed = Entry("run", "p", "r2", epoch=1, state="done", triggers=[origin(1)])
    assert account(foreign, replayed).coverage == {}


def test_a_run_by_the_retry_topic_settles_both_places():
    run = Entry("run", "p", "r", state="done", triggers=[origin(3)], via=["R/1/17"])
    made = account(run)
    assert made.of("T", 0).covers(3)
    assert made.of("R", 1).covers(17)


def test_the_fact_of_its_beginning_is_where_it_begins():
    began = Entry("fact", "p", "f", fact=BEGAN, detail={"topic_id": "T", "partition": "0", "at": "40"})
    run = Entry("run", "p", "r", state="done", triggers=[origin(42)])
    assert account(began, run).of("T", 0).uncovered(0, 43) == [(40, 42)]
