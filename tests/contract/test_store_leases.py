"""Leases of detached steps: one holder at a time, by the database's clock, and nothing from one that lost its own."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
import sqlalchemy as sa

from farandole.errors import Fenced
from farandole.store.tables import lease
from tests.contract.store_values import own, settlement

LONG = 60_000


def run_out(store, owner):
    """The time of all leases of a holder is over."""
    with store.transaction() as conn:
        conn.execute(sa.update(lease).where(lease.c.owner == owner).values(until=1))


def take(store, lane, owner="a", milliseconds=LONG, run="run-1"):
    return store.leases.take(lane, run, "haul", owner, milliseconds)


def test_a_step_has_one_holder_until_its_time_is_over(store):
    lane = own(store)
    first = take(store, lane, "a", LONG)
    assert (first.fence, take(store, lane, "b")) == (1, None)

    run_out(store, "a")

    second = take(store, lane, "b")
    assert (second.fence, second.owner) == (2, "b")
    assert take(store, lane, "a") is None


def test_of_many_who_want_it_at_once_one_gets_it(store, another_store):
    lane = own(store)
    stores, taken = [another_store() for _ in range(6)], []
    together = threading.Barrier(len(stores))

    def try_it(number):
        together.wait()
        taken.append(take(stores[number], lane, f"holder-{number}"))

    threads = [threading.Thread(target=try_it, args=(n,)) for n in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len([one for one in taken if one is not None]) == 1
    assert len(taken) == len(stores)


def test_only_the_owner_of_the_partition_where_the_run_rests_takes_a_lease(store):
    lane = own(store, owner="a")
    own(store, owner="b")

    with pytest.raises(Fenced):
        take(store, lane)
    assert store.leases.free(["run-1"]) == {"run-1"}


def test_a_sign_of_life_keeps_every_lease_of_a_holder_and_of_nobody_else(store):
    lane = own(store)
    mine = {take(store, lane, "a", LONG, run) for run in ("run-1", "run-2")}
    other = take(store, lane, "b", LONG, "run-3")
    run_out(store, "a")
    run_out(store, "b")

    assert store.leases.renew("a", LONG) == mine

    assert store.leases.free(["run-1", "run-2", "run-3", "run-4"]) == {"run-3", "run-4"}
    assert take(store, lane, "c", run="run-3").fence == other.fence + 1
    assert store.leases.renew("b", LONG) == set()


def test_a_lease_that_is_let_go_is_free_at_once_and_one_that_was_taken_over_stays(store):
    lane = own(store)
    first = take(store, lane, "a")
    store.leases.release([first])
    second = take(store, lane, "b")
    assert second.fence == 2

    store.leases.release([first])

    assert store.leases.free(["run-1"]) == set()


@pytest.mark.parametrize("kind", ["kept", "started", "done"])
def test_who_lost_its_lease_keeps_nothing(store, kind):
    lane = own(store)
    first = take(store, lane, "a", LONG)
    store.checkpoints.started(first, "run-1", "effect", 1)
    run_out(store, "a")
    second = take(store, lane, "b")
    store.checkpoints.keep(second, "run-1", "before", b"second")

    with pytest.raises(Fenced):
        {
            "kept": lambda: store.checkpoints.keep(first, "run-1", "haul", b"first"),
            "started": lambda: store.checkpoints.started(first, "run-1", "haul", 1),
            "done": lambda: store.checkpoints.done(first, "run-1", "effect", b"first"),
        }[kind]()

    assert {one.step: one.result for one in store.checkpoints.load(["run-1"])["run-1"]} == {
        "effect": None,
        "before": b"second",
    }


def test_a_holder_is_not_stopped_by_a_new_owner_of_the_partition(store):
    """The step goes on where it is; whoever owns the partition by then reads its result."""
    lane = own(store, owner="a")
    held = take(store, lane, "a")
    new = own(store, owner="b")

    store.checkpoints.keep(held, "run-1", "haul", b"result")

    assert [one.result for one in store.checkpoints.load(["run-1"])["run-1"]] == [b"result"]
    with suppress(Fenced):
        store.checkpoints.keep(lane, "run-1", "told", b"from the owner before")
    assert len(store.checkpoints.load(["run-1"])["run-1"]) == 1
    assert take(store, new, "b") is None


def test_leases_go_with_the_checkpoints_when_the_run_is_settled(store):
    lane = own(store)
    take(store, lane, "a")
    take(store, lane, "a", run="run-2")

    store.inbox.settle([settlement(lane, finished=["run-1"])])

    assert store.leases.free(["run-1", "run-2"]) == {"run-1"}
    assert take(store, lane, "b").fence == 1
