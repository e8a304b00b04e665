"""Claims: of all who want a key, one has it, whatever happens at the same time."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections import Counter

import pytest

from farandole.errors import DatabaseUnreachable, Fenced
from tests.contract.store_values import claim, digest, key, outcome, own, settlement, together


def test_a_new_key_is_won(store):
    lane = own(store)

    assert store.inbox.claim(lane, [claim(1, 5), claim(2, 6)]) == {}
    known = store.inbox.known(0, [key(1)])[key(1)]
    assert (known.state, known.run_id, known.fence, known.offset) == ("claimed", "run-1", lane.fence, 5)


def test_nothing_to_claim_is_nothing_lost(store):
    assert store.inbox.claim(own(store), []) == {}


def test_a_key_that_another_partition_has_in_hand_is_not_won(store):
    first, second = own(store, 0), own(store, 1)
    store.inbox.claim(first, [claim(1, 5)])

    lost = store.inbox.claim(second, [claim(1, 9), claim(2, 10)])

    assert set(lost) == {key(1)}
    assert (lost[key(1)].state, lost[key(1)].partition, lost[key(1)].offset) == ("claimed", 0, 5)


def test_the_same_event_read_again_by_the_same_lane_is_won_again(store):
    lane = own(store)
    store.inbox.claim(lane, [claim(1, 5)])

    assert store.inbox.claim(lane, [claim(1, 5)]) == {}


def test_a_copy_on_the_same_partition_does_not_run_beside_the_first(store):
    lane = own(store)
    store.inbox.claim(lane, [claim(1, 5)])

    assert store.inbox.claim(lane, [claim(1, 6)])[key(1)].offset == 5


def test_what_an_older_owner_of_the_partition_had_in_hand_is_taken_over(store):
    store.inbox.claim(own(store, owner="a"), [claim(1, 5)])
    lane = own(store, owner="b")

    assert store.inbox.claim(lane, [claim(1, 5)]) == {}
    assert store.inbox.known(0, [key(1)])[key(1)].fence == lane.fence


def test_a_claim_whose_owner_lost_its_partition_is_taken_over_from_another_partition(store):
    store.inbox.claim(own(store, 0, "a"), [claim(1, 5)])
    lane = own(store, 1, "b")
    own(store, 0, "c")

    assert store.inbox.claim(lane, [claim(1, 9)]) == {}
    assert store.inbox.known(0, [key(1)])[key(1)].partition == 1


def test_an_old_owner_claims_nothing(store):
    old = own(store, owner="a")
    own(store, owner="b")

    with pytest.raises(Fenced):
        store.inbox.claim(old, [claim(1)])
    with pytest.raises(Fenced), store.transaction() as conn:
        store.inbox.lock_claim(conn, old, claim(1))

    assert store.inbox.known(0, [key(1)]) == {}


@pytest.mark.parametrize("state", ["dead", "parked", "uncertain"])
def test_a_key_that_is_not_finished_is_not_claimed(store, state):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome(1, state, life=2))])

    lost = store.inbox.claim(lane, [claim(1)])[key(1)]

    assert (lost.state, lost.life) == (state, 2)


def test_a_settled_key_is_lost_and_its_claim_removed(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome(1))])

    assert store.inbox.claim(lane, [claim(1)])[key(1)].state == "done"
    with store.transaction() as conn:
        assert store.inbox.lock_claim(conn, lane, claim(1)).state == "done"
        assert conn.exec_driver_sql("SELECT count(*) FROM inbox_open").scalar() == 0


def test_a_settled_claim_leaves_no_open_row(store):
    lane = own(store)
    store.inbox.claim(lane, [claim(1), claim(2)])

    store.inbox.settle([settlement(lane, outcome(1), outcome(2, "dead"))])

    known = store.inbox.known(0, [key(1), key(2)])
    assert (known[key(1)].state, known[key(2)].state) == ("done", "dead")
    with store.transaction() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM inbox_open").scalar() == 1


def test_a_lost_claim_shows_a_different_content(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome(1))])

    assert store.inbox.known(0, [key(1)])[key(1)].digest != digest("other")


def test_of_two_owners_claiming_the_same_keys_at_once_each_key_has_one(store, another_store):
    stores = [store, another_store(), another_store()]
    lanes = [own(one, at, str(at)) for at, one in enumerate(stores)]
    keys = list(range(400))

    def contend(one, lane, seed):
        mine, batch = [], random.Random(seed).sample(keys, len(keys))
        for some in (batch[at : at + 50] for at in range(0, len(batch), 50)):
            lost = one.inbox.claim(lane, [claim(n, n) for n in some])
            mine += [n for n in some if key(n) not in lost]
        return mine

    won = together(*(lambda at=at: contend(stores[at], lanes[at], at) for at in range(3)))

    assert Counter(itertools.chain(*won)) == Counter(keys)


def test_a_claim_waits_for_a_transaction_that_holds_the_key_and_then_sees_it_done(store, another_store):
    other = another_store()
    first, second = own(store, 0), own(other, 1)
    locked, decided = threading.Event(), threading.Event()

    def holder():
        with store.transaction() as conn:
            assert store.inbox.lock_claim(conn, first, claim(1)) is None
            locked.set()
            decided.wait(0.3)  # the effect takes its time, and the other one is already waiting
            store.inbox.record_decision(conn, first, [outcome(1)], [])

    def waiter():
        locked.wait(10)
        with other.transaction() as conn:
            return other.inbox.lock_claim(conn, second, claim(1))

    done, seen = together(holder, waiter)

    assert done is None
    assert seen.state == "done"


def test_a_claim_waits_for_a_transaction_that_holds_the_key_and_wins_if_it_is_undone(store, another_store):
    other = another_store()
    first, second = own(store, 0), own(other, 1)
    locked, undone = threading.Event(), threading.Event()

    class CrashError(Exception):
        pass

    def holder():
        with store.transaction() as conn:
            store.inbox.lock_claim(conn, first, claim(1))
            locked.set()
            undone.wait(0.3)
            raise CrashError

    def waiter():
        locked.wait(10)
        with other.transaction() as conn:
            return other.inbox.lock_claim(conn, second, claim(1))

    crashed, seen = together(holder, waiter)

    assert isinstance(crashed, CrashError)
    assert seen is None


def test_a_key_held_longer_than_the_lock_timeout_counts_as_claimed_and_the_transaction_lives(stack, another_store):
    from farandole.store import open_store

    url = stack.postgres_url()  # SQLite has one writer at a time: there the whole transaction waits
    store, other = open_store(url, "merge"), open_store(url, "merge")
    first, second = own(store, 0), own(other, 1)
    with store.transaction() as holding, other.transaction() as conn:
        store.inbox.lock_claim(holding, first, claim(1))
        conn.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")

        assert other.inbox.lock_claim(conn, second, claim(1)).state == "claimed"
        assert other.inbox.lock_claim(conn, second, claim(2)) is None
    store.close()
    other.close()


def test_no_key_is_applied_twice_while_the_days_turn(store, another_store, monkeypatch):
    """Owners race on the same keys, each key told to all of them, while today's bucket changes under their feet."""
    stores = [store, *(another_store() for _ in range(3))]
    lanes = [own(one, at, str(at)) for at, one in enumerate(stores)]
    days, keys = itertools.count(100), [os.urandom(4).hex() for _ in range(120)]
    for one in stores:
        monkeypatch.setattr(one.inbox.buckets, "day", lambda _: 100 + next(days) // 40 % 6)
    with store.transaction() as conn:
        conn.exec_driver_sql("CREATE TABLE effect (k varchar(32))")

    def apply(one, lane, name):
        for _ in range(200):  # held: somebody else is in the middle of it
            try:
                with one.transaction() as conn:
                    known = one.inbox.lock_claim(conn, lane, claim(name))
                    if known is None:
                        conn.exec_driver_sql(f"INSERT INTO effect VALUES ('{name}')")
                        one.inbox.record_decision(conn, lane, [outcome(name)], [])
                    if known is None or known.final:
                        return
            except DatabaseUnreachable:
                continue
        raise AssertionError(name)

    def work(at):
        order = random.Random(at)
        for name in sorted(keys * 2, key=lambda name: (keys.index(name) // 20, order.random())):
            apply(stores[at], lanes[at], name)

    assert together(*(lambda at=at: work(at) for at in range(4))) == [None] * 4
    with store.transaction() as conn:
        applied = conn.exec_driver_sql("SELECT k FROM effect").scalars().all()
        left = conn.exec_driver_sql("SELECT count(*) FROM inbox_open").scalar()
    assert Counter(applied) == Counter(keys)
    assert left == 0
    assert store.inbox.count() == len(keys)
