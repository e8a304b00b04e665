"""Orders in SQL: heard once, with an epoch of their own, and what becomes of them when a person changes their mind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from farandole.orders import CANCELLED, PAUSED, RUNNING, Order, Range, Stretch
from farandole.store import Lane
from tests.contract.store_values import TOPIC, TOPIC_ID, settlement

ONE = Range(TOPIC, TOPIC_ID, 0, 0, 10)


def order(name="o1", **said):
    return Order(name, "merge", (Stretch(ONE, ((2, 4), (8, 8))),), events=4, **said)


def test_an_order_heard_twice_is_one_epoch_and_news_once(store):
    first, second = store.orders.hear(order(), 5), store.orders.hear(order(), 5)
    assert (first.first, first.news, second.first, second.news) == (True, True, False, False)
    assert first.epoch == second.epoch
    assert store.epochs.under_way() == {first.epoch: [ONE]}
    assert store.orders.of(first.epoch) == order()
    assert store.orders.of(99) is None


def test_instances_that_hear_an_order_at_once_agree(store):
    with ThreadPoolExecutor(8) as threads:
        heard = list(threads.map(lambda n: store.orders.hear(order(f"o{n % 2}"), 5), range(16)))
    assert len({one.epoch for one in heard}) == 2
    assert sum(one.first for one in heard) == 2


def test_of_changes_the_latest_stands_and_what_waits_is_not_under_way(store):
    epoch = store.orders.hear(order(), 5).epoch
    assert store.orders.hear(replace(order(), state=PAUSED), 7).news
    assert not store.orders.hear(order(), 5).news
    assert (store.epochs.under_way(), store.orders.halted()) == ({}, {epoch})
    assert store.orders.hear(replace(order(), state=RUNNING), 8).news
    assert (store.epochs.under_way(), store.orders.halted()) == ({epoch: [ONE]}, set())
    store.orders.hear(replace(order(), state=CANCELLED), 9)
    assert store.orders.halted() == {epoch}


def test_progress_counts_the_offsets_that_are_meant(store):
    epoch = store.orders.hear(order(), 5).epoch
    taken = store.inbox.take_over(ONE.topic, ONE.topic_id, ONE.partition, "a", epoch)
    lane = Lane(ONE.topic, ONE.topic_id, ONE.partition, taken.fence, epoch)
    store.inbox.settle([settlement(lane, next_offset=4)])
    (half,) = store.orders.progress()
    assert (half.epoch, half.done, half.total, half.state) == (epoch, 2, 4, "running")
    store.inbox.settle([settlement(lane, next_offset=10)])
    assert [one.state for one in store.orders.progress()] == ["done"]


def test_what_an_epoch_emits_says_how_far_it_reaches(store):
    ordered = store.orders.hear(order(cascade="direct"), 5).epoch
    rewound = store.epochs.rewound([ONE])
    assert store.orders.restates(ordered) == f"direct:{store.pipeline}/{ordered}"
    assert store.orders.restates(rewound) == f"all:{store.pipeline}/{rewound}"
