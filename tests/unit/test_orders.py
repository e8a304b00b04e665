"""An order as it stands on the control topic, and which records it asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.cascade import handed_on, refused, restated, restatement
from farandole.control import Command
from farandole.declaration import Declaration, Subscription
from farandole.errors import FarandoleError
from farandole.event import RawRecord
from farandole.orders import Order, Progress, Range, Stretch, runs_among
from farandole.planning import downstream

RANGE = Range("a.b.c.v1", "T", 0, 10, 30)
ORDER = Order("o1", "merge", (Stretch(RANGE, ((12, 14), (20, 20))),), key=b"k".hex(), since=100, until=200)


def record(offset, key=b"k", timestamp=150, topic="a.b.c.v1"):
    return RawRecord(topic, "T", 0, offset, timestamp, key, b"v")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (record(12), ""),
        (record(14), ""),
        (record(20), ""),
        (record(11), "replay.not-asked"),
        (record(15), "replay.not-asked"),
        (record(12, topic="other"), "replay.not-asked"),
        (record(12, key=None), "replay.other-key"),
        (record(12, timestamp=99), "replay.outside"),
        (record(12, timestamp=200), "replay.outside"),
        (record(12, timestamp=-1), ""),
    ],
)
def test_a_record_that_is_not_asked_for_is_refused_with_the_reason(raw, why):
    assert ORDER.refuses(raw) == why


def test_an_order_is_the_same_after_the_control_topic():
    order = replace(ORDER, cascade="direct", rate=2.5, concurrency=3, state="paused", actor="a", reason="r", given_at=7)
    command = Command.of(order.command(9).record())
    assert (Order.of(command), command.id, command.at) == (order, "order:o1", 9)


def test_an_order_that_no_record_can_hold_is_refused_with_a_remedy():
    scattered = tuple((n, n) for n in range(0, 400_000, 2))
    with pytest.raises(FarandoleError, match="too many offsets"):
        Order("o", "p", (Stretch(RANGE, scattered),)).command(0)


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_runs_hold_the_offsets_and_nothing_else_but_holes(offsets, holes):
    holes -= offsets
    records = ((n, n in offsets) for n in range(61) if n not in holes)
    stretch = Stretch(Range("t", "T", 0, 0, 61), runs_among(records))
    taken = {n for n in range(61) if stretch.takes(n)}
    assert offsets <= taken <= offsets | holes
    assert stretch.below(61) == len(taken)
    assert Stretch.of(stretch.record()) == stretch


def test_progress_counts_what_is_asked_for_and_guesses_by_its_speed():
    order = Order("o", "p", (Stretch(RANGE),))
    half = Progress(order, 1, 5, 20, begun_at=1000)
    assert (half.state, half.seconds_left(11_000)) == ("running", 30.0)
    assert Progress(order, 1, 20, 20).state == "done"
    assert Progress(order).state == "given"
    assert Progress(replace(order, state="paused"), 1, 5, 20).state == "paused"


def test_a_restatement_reaches_as_far_as_its_scope():
    told = {scope: restatement(scope, "merge", 3) for scope in ("none", "direct", "all")}
    assert [refused(told[s]) for s in told] == ["cascade.none", "", ""]
    assert [handed_on([told[s]]) for s in told] == [told["none"], told["none"], told["all"]]
    assert handed_on(["", told["all"], told["direct"]]) == told["all"]
    assert handed_on(["", ""]) == ""


def test_each_restatement_gives_a_key_of_its_own_whatever_its_scope():
    keys = {restated(b"key", restatement(scope, "merge", epoch)) for scope in ("direct", "all") for epoch in (1, 2)}
    assert len(keys) == 2
    assert restated(b"key", "") == b"key"


def declared(name, listens, emits):
    subscriptions = tuple(Subscription(topic, topic) for topic in listens)
    return Declaration(name, "", "beginning", subscriptions, (), emits=tuple(emits))


def test_downstream_is_what_the_declarations_add_up_to():
    first, second = declared("first", ["a"], ["b"]), declared("second", ["b"], ["c"])
    third, loop, other = declared("third", ["c"], []), declared("loop", ["c"], ["a"]), declared("other", ["x"], [])
    found = downstream(first, [first, second, third, loop, other])
    assert found == [("second", 1), ("third", 2), ("loop", 2)]
