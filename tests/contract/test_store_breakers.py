"""What holds a pipeline back, shared by its instances: every change of a breaker is made once, by the database's clock."""

from __future__ import annotations

import time
from functools import partial

from farandole.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from farandole.store import Lane
from tests.contract.store_values import TOPIC, TOPIC_ID, own, together

API = "orders-api"
HERE = (TOPIC_ID, 0)


def fail(breaker, now, times=1):
    return breaker.failed(now, times, "ApiDown: away")


def opened(store):
    return store.breakers.change(API, partial(fail, times=5))


# --- one breaker, several instances


def test_of_what_never_failed_nothing_is_kept(store):
    assert store.breakers.load()[0] == {}


def test_a_change_is_read_back_by_every_instance(store, another_store):
    change = opened(store)

    assert change.before == Breaker(API)
    assert change.after.state == OPEN
    assert another_store().breakers.load()[0] == {API: change.after}


def test_a_breaker_closes_as_if_nothing_had_been(store):
    opened(store)
    store.breakers.change(API, lambda b, now: b.asked(b.until, "a").probed(now, "a", answer=True))

    assert store.breakers.load()[0] == {API: Breaker(API)}


def test_pipelines_do_not_share_their_breakers(store, another_store):
    opened(store)

    assert another_store("landing").breakers.load()[0] == {}


def test_the_time_is_the_databases_and_moves(store):
    first = store.breakers.change(API, lambda b, _: b).now
    time.sleep(0.02)
    second = store.breakers.load()[1]

    assert 10 <= second - first < 60_000
    assert abs(first - time.time() * 1000) < 60_000


def test_failures_that_are_told_at_the_same_time_are_all_counted(store, another_store):
    stores = [store, *(another_store() for _ in range(3))]

    together(*(partial(one.breakers.change, API, fail) for one in stores))

    assert store.breakers.load()[0][API].failures == 4


def test_of_several_instances_that_see_it_fail_one_makes_the_transition(store, another_store):
    stores = [store, *(another_store() for _ in range(4))]

    changes = together(*(partial(opened, one) for one in stores))

    assert sum(c.before.state == CLOSED and c.after.state == OPEN for c in changes) == 1


def test_of_several_instances_that_want_to_probe_one_may(store, another_store):
    stores = {name: another_store() for name in "abcd"}
    opened(store)

    def ask(name):
        return stores[name].breakers.change(API, lambda b, _: b.asked(b.until, name))

    changes = together(*(partial(ask, name) for name in stores))

    assert sum(c.before.state == OPEN and c.after.state == HALF_OPEN for c in changes) == 1
    assert len({c.after.probe for c in changes}) == 1


def test_of_several_that_tell_of_a_probe_one_closes_it(store, another_store):
    stores = [another_store() for _ in range(4)]
    opened(store)
    store.breakers.change(API, lambda b, _: b.asked(b.until, "a"))

    changes = together(
        *(partial(one.breakers.change, API, lambda b, now: b.probed(now, "a", answer=True)) for one in stores)
    )

    assert sum(c.before.state == HALF_OPEN and c.after.state == CLOSED for c in changes) == 1


# --- partitions that were stopped


def test_a_partition_stays_stopped_whoever_asks(store, another_store):
    lane = own(store)

    assert store.guards.stop(lane, "1", "21 of 21")
    assert not store.guards.stop(lane, "2", "again")
    assert another_store().guards.standing(0) == {HERE: ("1", "21 of 21")}
    assert another_store("landing").guards.standing(0) == {}


def test_a_reset_frees_what_was_stopped_before_it_and_nothing_later(store):
    store.guards.stop(own(store), "1", "21 of 21")
    store.guards.stop(own(store, 1), "1", "21 of 21")

    assert store.guards.reset(0, [HERE], before=1_000) == []
    assert store.guards.reset(0, [HERE, (TOPIC_ID, 5)]) == [HERE]
    assert set(store.guards.standing(0)) == {(TOPIC_ID, 1)}


def test_what_a_replay_stops_is_not_stopped_in_live_work(store):
    lane = Lane(TOPIC, TOPIC_ID, 0, 1, epoch=7)
    store.guards.stop(lane, "1", "21 of 21")

    assert store.guards.standing(0) == {}
    assert store.guards.reset(0, [HERE]) == []
    assert set(store.guards.standing(7)) == {HERE}
