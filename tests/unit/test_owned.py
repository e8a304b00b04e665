"""A partition's window: what may be committed is the prefix in which every record has its outcome."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farandole.owned import RUNNING, WRITTEN, Ended, Owned


def owned(*offsets):
    one = Owned("t", 0, 1)
    one.next_offset = one.seen = offsets[0] if offsets else 0
    return one, [one.admit(offset) for offset in offsets]


def test_nothing_may_be_committed_before_the_first_record_has_its_outcome():
    one, (first, second, _) = owned(5, 6, 7)
    one.end(second)
    assert one.prefix() == 5
    one.end(first)
    assert one.prefix() == 7
    assert one.open == 1


def test_a_window_without_open_records_ends_behind_the_last_one():
    one, slots = owned(5, 9)  # a compacted topic has gaps
    for slot in slots:
        one.end(slot)
    assert one.prefix() == 10


def test_a_record_ends_once_and_keeps_its_first_reason():
    one, (slot,) = owned(5)
    one.end(slot, "tombstone")
    one.end(slot, "duplicate")
    assert (slot.reason, one.open) == ("tombstone", 0)


def test_what_was_written_beyond_the_prefix_is_not_written_again():
    one, (first, second) = owned(5, 6)
    one.add(Ended([second], []))
    assert one.unwritten() == [second]
    one.written()
    assert (second.state, one.unwritten(), len(one.window)) == (WRITTEN, [], 2)
    one.add(Ended([first], []))
    assert one.unwritten() == [first]
    one.written()
    assert len(one.window) == 0


@given(st.data())
def test_the_prefix_never_passes_an_open_record_and_never_goes_back(data):
    one = Owned("t", 0, 1)
    slots, before = {}, 0
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["admit", "end", "write"]))
        if step == "admit":
            offset = one.seen + data.draw(st.integers(0, 2))
            slots[offset] = one.admit(offset)
        elif step == "end" and slots:
            one.end(slots.pop(data.draw(st.sampled_from(sorted(slots)))))
        elif step == "write":
            one.written()
        assert one.prefix() >= before
        assert all(offset >= one.prefix() for offset in slots)
        assert one.open == len(slots)
        before = one.prefix()


def test_a_wait_doubles_up_to_its_longest():
    one, _ = owned()
    waits = []
    for _ in range(8):
        one.wait(100.0, "the broker is away")
        waits.append(round(one.due - 100.0, 1))
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert one.why == "the broker is away"


def test_it_is_careful_only_up_to_where_processes_died():
    one, _ = owned(5)
    one.phase, one.careful_until = RUNNING, 7
    assert one.careful
    one.admit(6)
    assert not one.careful
