"""The inbox: what is settled, up to where, and by whom."""

from __future__ import annotations

import pytest

from farandole.errors import Fenced
from farandole.store import Lane
from tests.contract.store_values import TOPIC, TOPIC_ID, claim, digest, emitted, key, outcome, own, settlement


def test_a_first_take_over_finds_no_position_and_nobody_before(store):
    taken = store.inbox.take_over(TOPIC, TOPIC_ID, 0, "a")

    assert (taken.next_offset, taken.ledger_offset, taken.previous_owner) == (None, 0, None)


def test_a_take_over_after_an_unclean_end_names_who_was_there(store):
    lane = own(store, owner="a")
    store.inbox.settle([settlement(lane, next_offset=7, ledger_offset=40)])

    taken = store.inbox.take_over(TOPIC, TOPIC_ID, 0, "b")

    assert (taken.next_offset, taken.ledger_offset, taken.previous_owner) == (7, 40, "a")
    assert taken.fence == lane.fence + 1


def test_a_take_over_after_an_orderly_end_finds_nobody(store):
    store.inbox.release([own(store)])

    assert store.inbox.take_over(TOPIC, TOPIC_ID, 0, "b").previous_owner is None


def test_an_old_owner_cannot_release_what_another_one_has(store):
    old = own(store, owner="a")
    own(store, owner="b")

    store.inbox.release([old])

    assert store.inbox.take_over(TOPIC, TOPIC_ID, 0, "c").previous_owner == "b"


def test_a_recreated_topic_has_a_position_of_its_own(store):
    store.inbox.settle([settlement(own(store), next_offset=7)])

    assert store.inbox.take_over(TOPIC, "another-uuid", 0, "a").next_offset is None


def test_a_settled_key_is_known_with_its_run_and_digest(store):
    store.inbox.settle([settlement(own(store), outcome(1), outcome(2, "caught", life=3))])

    known = store.inbox.known(0, [key(1), key(2), key(3)])

    assert set(known) == {key(1), key(2)}
    assert (known[key(1)].state, known[key(1)].run_id, known[key(1)].digest) == ("done", "run-1", digest())
    assert (known[key(2)].state, known[key(2)].life, known[key(2)].unpublished) == ("caught", 3, False)
    assert known[key(1)].final


def test_another_epoch_knows_nothing(store):
    store.inbox.settle([settlement(own(store), outcome(1))])

    assert store.inbox.known(1, [key(1)]) == {}


def test_another_pipeline_in_the_same_database_knows_nothing(store, another_store):
    store.inbox.settle([settlement(own(store), outcome(1))])

    assert another_store("another").inbox.known(0, [key(1)]) == {}


def test_more_keys_than_fit_into_one_statement_are_known(store):
    store.inbox.settle([settlement(own(store), *(outcome(n) for n in range(11_000)))])

    known = store.inbox.known(0, [key(n) for n in range(12_000)])

    assert len(known) == 11_000
    assert store.inbox.count("done") == 11_000


def test_a_dead_letter_is_open_and_says_where(store):
    lane = own(store, partition=3)
    store.inbox.settle([settlement(lane, outcome(1, "dead", offset=17, detail="ValueError"))])

    known = store.inbox.known(0, [key(1)])[key(1)]

    assert (known.state, known.topic_id, known.partition, known.offset) == ("dead", TOPIC_ID, 3, 17)
    assert known.fence == lane.fence
    assert not known.final


def test_a_fenced_owner_settles_nothing_at_all_while_its_neighbour_does(store):
    old, good = own(store, 0, "a"), own(store, 1, "a")
    store.inbox.settle([settlement(old, next_offset=5)])
    now = own(store, 0, "b")
    with store.transaction() as conn:
        store.inbox.record_decision(conn, now, [], [emitted("run-8")])

    fenced = store.inbox.settle(
        [
            settlement(old, outcome(1), outcome(2, "dead"), next_offset=9, published=["run-8"], finished=["run-8"]),
            settlement(good, outcome(3), next_offset=4),
        ]
    )

    assert fenced == [old]
    assert set(store.inbox.known(0, [key(1), key(2), key(3)])) == {key(3)}
    assert store.inbox.unpublished(["run-8"])
    assert store.inbox.take_over(TOPIC, TOPIC_ID, 0, "c").next_offset == 5


def test_a_settlement_of_a_partition_nobody_has_is_fenced(store):
    lane = Lane(TOPIC, TOPIC_ID, 9, 1)

    assert store.inbox.settle([settlement(lane, outcome(1))]) == [lane]
    assert store.inbox.count() == 0


def test_positions_never_move_back(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, next_offset=9, ledger_offset=90)])
    store.inbox.settle([settlement(lane, next_offset=4, ledger_offset=40)])

    taken = store.inbox.take_over(TOPIC, TOPIC_ID, 0, "b")

    assert (taken.next_offset, taken.ledger_offset) == (9, 90)


def test_a_quiet_partition_notes_how_far_the_ledger_was_read_and_keeps_its_offset(store):
    old, lane = own(store, 0), own(store, 1)
    store.inbox.settle([settlement(lane, next_offset=9, ledger_offset=10)])
    own(store, 0, "b")

    store.inbox.touch_ledger_offset([old, lane], 77)

    assert store.inbox.take_over(TOPIC, TOPIC_ID, 1, "b").ledger_offset == 77
    assert store.inbox.take_over(TOPIC, TOPIC_ID, 1, "b").next_offset == 9
    assert store.inbox.take_over(TOPIC, TOPIC_ID, 0, "b").ledger_offset == 0


def test_settling_twice_leaves_one_row(store):
    lane = own(store)
    for _ in range(2):
        store.inbox.settle([settlement(lane, outcome(1), outcome(1))])

    assert store.inbox.count() == 1


def test_settling_again_on_another_day_leaves_one_row(store, monkeypatch):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome(1))])
    monkeypatch.setattr(store.inbox.buckets, "day", lambda _: 30_000)

    store.inbox.settle([settlement(lane, outcome(1), outcome(2))])

    assert store.inbox.count() == 2


def test_done_is_left_by_nothing_inside_its_epoch(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome(1))])

    store.inbox.settle([settlement(lane, outcome(1, "dead"), outcome(1, "parked"))])

    assert store.inbox.known(0, [key(1)])[key(1)].state == "done"


@pytest.mark.parametrize(
    ("first", "then", "stands"),
    [
        (("parked", 0), ("dead", 0), ("dead", 0)),
        (("dead", 0), ("parked", 0), ("dead", 0)),
        (("dead", 0), ("parked", 1), ("parked", 1)),
        (("parked", 1), ("dead", 0), ("parked", 1)),
        (("dead", 0), ("resolved", 0), ("resolved", 0)),
        (("uncertain", 0), ("done", 0), ("done", 0)),
    ],
)
def test_of_two_entries_for_a_key_the_higher_life_and_rank_stands(store, first, then, stands):
    lane = own(store)
    for state, life in (first, then):
        store.inbox.settle([settlement(lane, outcome(1, state, life=life))])

    known = store.inbox.known(0, [key(1)])[key(1)]

    assert (known.state, known.life) == stands


def test_of_two_entries_in_one_settlement_the_same_stands_whatever_their_order(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome(1), outcome(1, "parked"), outcome(2, "parked"), outcome(2, "dead"))])

    known = store.inbox.known(0, [key(1), key(2)])

    assert {known[key(1)].state, known[key(2)].state} == {"done", "dead"}


def test_a_decision_stands_unpublished_until_its_settlement(store):
    lane = own(store)
    rows = [emitted("run-1", 1, b"second"), emitted("run-1", 0, b"first"), emitted("run-1", 2, None)]
    with store.transaction() as conn:
        assert store.inbox.lock_claim(conn, lane, claim(1)) is None
        store.inbox.record_decision(conn, lane, [outcome(1)], rows)

    assert store.inbox.known(0, [key(1)])[key(1)].unpublished
    assert store.inbox.unpublished(["run-1", "run-2"]) == {"run-1": [rows[1], rows[0], rows[2]]}

    store.inbox.settle([settlement(lane, outcome(1), published=["run-1"])])

    assert not store.inbox.known(0, [key(1)])[key(1)].unpublished
    assert store.inbox.unpublished(["run-1"]) == {}
    assert store.inbox.count() == 1


def test_a_decision_that_is_rolled_back_leaves_nothing(store):
    lane = own(store)

    class PowerLossError(Exception):
        pass

    def decide():
        with store.transaction() as conn:
            store.inbox.lock_claim(conn, lane, claim(1))
            store.inbox.record_decision(conn, lane, [outcome(1)], [emitted("run-1")])
            raise PowerLossError

    with pytest.raises(PowerLossError):
        decide()

    assert store.inbox.known(0, [key(1)]) == {}
    assert store.inbox.unpublished(["run-1"]) == {}


def test_a_decision_of_an_old_owner_is_refused_and_its_effect_with_it(store):
    old = own(store, owner="a")
    own(store, owner="b")
    with store.transaction() as conn:
        conn.exec_driver_sql("CREATE TABLE effect (n integer)")

    def decide():
        with store.transaction() as conn:
            conn.exec_driver_sql("INSERT INTO effect VALUES (1)")
            store.inbox.record_decision(conn, old, [outcome(1)], [emitted("run-1")])

    with pytest.raises(Fenced) as raised:
        decide()

    assert raised.value.place == f"{TOPIC}[0]"
    assert store.inbox.known(0, [key(1)]) == {}
    with store.transaction() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM effect").scalar() == 0


def test_a_decision_tried_again_keeps_the_bytes_that_were_decided_first(store):
    lane = own(store)
    for value in (b"first", b"recomputed"):
        with store.transaction() as conn:
            store.inbox.record_decision(conn, lane, [outcome(1)], [emitted("run-1", 0, value)])

    assert [row.value for row in store.inbox.unpublished(["run-1"])["run-1"]] == [b"first"]


def test_forgetting_old_days_keeps_the_young_and_other_pipelines(store, another_store, monkeypatch):
    other = another_store("another")
    for day in (100, 101, 102, 103):
        for one in (store, other):
            monkeypatch.setattr(one.inbox.buckets, "day", lambda _, day=day: day)
        store.inbox.settle([settlement(own(store), outcome(day))])
        if day == 101:
            other.inbox.settle([settlement(own(other), outcome(day))])

    store.inbox.drop_buckets(102)

    assert set(store.inbox.known(0, [key(day) for day in range(100, 104)])) == {key(102), key(103)}
    assert set(other.inbox.known(0, [key(101)])) == {key(101)}


def test_a_day_that_was_forgotten_can_come_back(store, monkeypatch):
    monkeypatch.setattr(store.inbox.buckets, "day", lambda _: 100)
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome(1))])
    store.inbox.drop_buckets(102)

    store.inbox.settle([settlement(lane, outcome(1))])

    assert store.inbox.count() == 1


def test_an_owner_that_takes_over_once_more_has_not_died(store):
    for _ in range(3):
        assert store.inbox.take_over(TOPIC, TOPIC_ID, 0, "a").crashes == 0
    assert [store.inbox.take_over(TOPIC, TOPIC_ID, 0, other).crashes for other in ("b", "b", "c")] == [1, 1, 2]


def test_a_log_that_is_too_short_is_remembered_until_it_is_accepted_and_only_then_a_position_moves_back(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, next_offset=50)])
    store.inbox.cut(lane, 7)
    taken = store.inbox.take_over(TOPIC, TOPIC_ID, 0, "b")
    assert (taken.next_offset, taken.cut) == (50, 7)
    with pytest.raises(Fenced):
        store.inbox.cut(lane, 7, accepted=2)

    store.inbox.cut(Lane(TOPIC, TOPIC_ID, 0, taken.fence), 9, accepted=2)

    taken = store.inbox.take_over(TOPIC, TOPIC_ID, 0, "c")
    assert (taken.next_offset, taken.cut) == (2, None)
