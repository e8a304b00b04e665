"""Epochs: which ranges are processed again, under which number, and until when."""

from __future__ import annotations

from farandole.store import Lane, Range
from tests.contract.store_values import TOPIC, TOPIC_ID, settlement

ONE, TWO = Range(TOPIC, TOPIC_ID, 0, 0, 10), Range(TOPIC, TOPIC_ID, 1, 5, 10)


def done(store, epoch, one):
    taken = store.inbox.take_over(one.topic, one.topic_id, one.partition, "a", epoch)
    lane = Lane(one.topic, one.topic_id, one.partition, taken.fence, epoch)
    store.inbox.settle([settlement(lane, next_offset=one.end)])


def test_the_same_command_twice_is_the_same_epoch_and_another_one_the_next(store):
    assert [store.epochs.open("c-1", [ONE]), store.epochs.open("c-1", [ONE]), store.epochs.open("c-2", [ONE])] == [
        1,
        1,
        2,
    ]


def test_a_range_is_under_way_until_its_own_position_comes_to_its_end(store):
    epoch = store.epochs.open("c-1", [ONE, TWO])
    done(store, 0, ONE)  # live work is no replay
    assert store.epochs.under_way() == {epoch: [ONE, TWO]}
    done(store, epoch, ONE)
    assert store.epochs.under_way() == {epoch: [TWO]}
    done(store, epoch, TWO)
    assert store.epochs.under_way() == {}
    assert store.epochs.ranges(epoch) == [ONE, TWO]


def test_rewinds_found_together_are_one_request(store):
    assert [store.epochs.rewound([ONE]), store.epochs.rewound([TWO])] == [1, 1]


def test_a_rewind_found_again_before_it_was_done_is_the_same_one_and_after_that_a_new_one(store):
    assert [store.epochs.rewound([ONE]), store.epochs.rewound([ONE])] == [1, 1]
    done(store, 1, ONE)
    assert store.epochs.rewound([ONE]) == 2
