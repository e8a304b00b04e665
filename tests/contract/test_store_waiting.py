"""The waiting room: of the last members of a set exactly one completes it, and one owner runs it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from farandole.errors import Fenced
from tests.contract.store_values import TOPIC, key, member, outcome, own, settlement, together

HOUR = 3600.0


def wait(store, lane, *members, within=HOUR):
    """Members come, and the ledger says that they wait."""
    states = [store.waiting.add(lane, one, both, within).state for one in members]
    store.inbox.settle([settlement(lane, next_offset=0, waits=[one.key for one in members])])
    assert set(states) == {"waiting"}


def both(members) -> bool:
    return {one.signal for one in members} == {"flights", "weather"}


def test_a_first_member_waits_and_the_last_one_completes_in_order_of_arrival(store):
    lane = own(store)
    flights, weather = member("flights", offset=1), member("weather", offset=2)

    wait(store, lane, flights)
    joined = store.waiting.add(lane, weather, both, HOUR)

    assert joined.state == "complete"
    assert joined.members == [flights, weather]


def test_the_last_member_is_held_until_the_ledger_says_of_the_others_that_they_wait(store):
    lane, other = own(store, 0), own(store, 1)
    store.waiting.add(lane, member("flights", 0, 1), both, HOUR)
    weather = member("weather", 1, 1)

    assert store.waiting.add(other, weather, both, HOUR).state == "held"
    assert store.waiting.untold(0, [weather.join_key, b"another"]) == {weather.join_key}
    assert store.inbox.known(0, [weather.key]) == {}
    store.inbox.settle([settlement(lane, next_offset=0, waits=[key("flights")])])

    assert store.waiting.untold(0, [weather.join_key]) == set()
    assert store.waiting.add(other, weather, both, HOUR).state == "complete"


def test_a_member_behind_the_position_of_its_partition_counts_as_told(store):
    lane = own(store)
    store.waiting.add(lane, member("flights", 0, 1), both, HOUR)
    store.inbox.settle([settlement(lane, next_offset=1)])
    assert store.waiting.add(lane, member("weather", 0, 3), both, HOUR).state == "held"

    store.inbox.settle([settlement(lane, next_offset=2)])

    assert store.waiting.add(lane, member("weather", 0, 3), both, HOUR).state == "complete"


def test_only_who_reads_the_partition_of_a_member_tells_of_it(store):
    lane, other = own(store, 0), own(store, 1)
    store.waiting.add(lane, member("flights", 0, 1), both, HOUR)

    store.inbox.settle([settlement(other, next_offset=0, waits=[key("flights")])])

    assert store.waiting.add(other, member("weather", 1, 1), both, HOUR).state == "held"


def test_a_copy_of_a_member_that_was_not_told_is_known_and_leaves_the_telling_to_it(store):
    lane, other = own(store, 0), own(store, 1)
    store.waiting.add(lane, member("flights", 0, 1), both, HOUR)

    copy = store.waiting.add(other, member("flights", 1, 5), both, HOUR)

    assert (copy.state, copy.known.state, copy.known.offset) == ("known", "waiting", 1)


def test_members_that_the_ledger_has_as_waiting_are_told_at_a_takeover(store):
    flights = member("flights", 0, 1)
    store.waiting.add(own(store, 0, "a"), flights, both, HOUR)
    heir = own(store, 0, "b")

    store.waiting.restore(heir, [flights], HOUR)

    joined = store.waiting.add(heir, member("weather", 0, 2), both, HOUR)
    assert (joined.state, len(joined.members)) == ("complete", 2)


def test_a_set_with_a_member_that_was_not_told_does_not_expire_before_it_is(store):
    lane = own(store)
    store.waiting.add(lane, member("flights", 0, 1), both, 0)
    assert store.waiting.expired(lane, 10) == []

    store.inbox.settle([settlement(lane, next_offset=0, waits=[key("flights")])])

    assert len(store.waiting.expired(lane, 10)) == 1


def test_a_waiting_member_is_known_as_waiting_and_whether_it_was_told(store):
    lane = own(store)
    store.waiting.add(lane, member("flights", offset=4), both, HOUR)

    known = store.inbox.known(0, [key("flights")])[key("flights")]

    assert (known.state, known.partition, known.offset, known.detail) == ("waiting", 0, 4, "untold")
    store.inbox.settle([settlement(lane, next_offset=0, waits=[key("flights")])])
    assert store.inbox.known(0, [key("flights")])[key("flights")].detail == ""


def test_a_member_told_again_is_the_same_member(store):
    lane = own(store)
    for _ in range(2):
        joined = store.waiting.add(lane, member("flights"), both, HOUR)

    assert (joined.state, len(joined.members)) == ("waiting", 1)


def test_sets_of_other_join_keys_and_epochs_are_apart(store):
    lane = own(store)
    store.waiting.add(lane, member("flights", join=b"day 1"), both, HOUR)

    assert store.waiting.add(lane, member("weather", join=b"day 2"), both, HOUR).state == "waiting"


def test_an_old_owner_adds_nothing(store):
    old = own(store, owner="a")
    own(store, owner="b")

    with pytest.raises(Fenced):
        store.waiting.add(old, member("flights"), both, HOUR)

    assert store.waiting.waiting() == []


def test_the_completing_event_read_again_completes_again(store):
    lane = own(store)
    wait(store, lane, member("flights", offset=1))
    first = store.waiting.add(lane, member("weather", offset=2), both, HOUR)

    assert store.waiting.add(lane, member("weather", offset=2), both, HOUR) == first


def test_the_completing_event_read_again_by_the_next_owner_completes_again(store):
    wait(store, own(store, owner="a"), member("flights", offset=1))
    store.waiting.add(own(store, owner="b"), member("weather", offset=2), both, HOUR)
    lane = own(store, owner="c")

    assert store.waiting.add(lane, member("flights", offset=1), both, HOUR).state == "known"
    assert store.waiting.add(lane, member("weather", offset=2), both, HOUR).state == "complete"


def test_a_copy_of_the_completing_event_waits_for_a_live_owner(store):
    first, second = own(store, 0), own(store, 1)
    wait(store, first, member("flights", offset=1))
    store.waiting.add(first, member("weather", offset=2), both, HOUR)

    assert store.waiting.add(second, member("weather", 1, 7), both, HOUR).state == "held"
    assert store.waiting.add(first, member("weather", 0, 3), both, HOUR).state == "held"


def test_a_copy_of_the_completing_event_takes_over_from_an_owner_that_lost_its_partition(store):
    first, second = own(store, 0, "a"), own(store, 1, "b")
    wait(store, first, member("flights", offset=1))
    store.waiting.add(first, member("weather", offset=2), both, HOUR)
    successor, copy = own(store, 0, "c"), replace(member("weather", 1, 7), headers=[("by", b"another way")])

    assert store.waiting.add(second, copy, both, HOUR).state == "complete"
    again = store.waiting.add(second, copy, both, HOUR)
    assert (again.state, again.members[-1]) == ("complete", copy)
    assert store.waiting.add(successor, member("weather", 0, 2), both, HOUR).state == "held"


def test_an_earlier_member_read_again_starts_no_second_run(store):
    first, second = own(store, 0), own(store, 1)
    wait(store, first, member("flights", 0, 1))
    store.waiting.add(second, member("weather", 1, 1), both, HOUR)

    again = store.waiting.add(first, member("flights", 0, 1), both, HOUR)
    assert (again.state, again.known.state) == ("known", "waiting")


def test_a_closed_set_is_gone_and_its_members_are_known(store):
    lane = own(store)
    wait(store, lane, member("flights", offset=1))
    store.waiting.add(lane, member("weather", offset=2), both, HOUR)

    store.inbox.settle([settlement(lane, outcome("flights"), outcome("weather"), closed=[b"2013-01-01"])])

    assert store.waiting.waiting() == []
    again = store.waiting.add(lane, member("flights", offset=9), both, HOUR)
    assert (again.state, again.known.state) == ("known", "done")
    assert store.waiting.waiting() == []


def test_a_set_whose_run_died_is_gone_and_its_members_are_dead(store):
    lane = own(store)
    wait(store, lane, member("flights", offset=1))
    store.waiting.add(lane, member("weather", offset=2), both, HOUR)

    store.inbox.settle([settlement(lane, outcome("flights", "dead"), outcome("weather", "dead"))])

    assert store.waiting.waiting() == []
    assert store.waiting.add(lane, member("flights", offset=9), both, HOUR).known.state == "dead"


def test_a_new_event_for_a_set_that_is_being_run_is_held_and_then_opens_the_next_set(store):
    lane = own(store)
    wait(store, lane, member("flights", offset=1))
    store.waiting.add(lane, member("weather", offset=2), both, HOUR)
    late = member("flights", offset=3, name="flights again")

    assert store.waiting.add(lane, late, both, HOUR).state == "held"
    store.inbox.settle([settlement(lane, outcome("flights"), outcome("weather"), closed=[b"2013-01-01"])])
    joined = store.waiting.add(lane, late, both, HOUR)

    assert (joined.state, joined.members) == ("waiting", [late])


def test_an_old_outcome_read_from_the_ledger_leaves_the_next_set_alone(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome("flights"), outcome("weather"))])
    store.waiting.add(lane, member("flights", offset=3, name="flights again"), both, HOUR)

    store.inbox.settle([settlement(lane, outcome("flights"), outcome("weather"), closed=[b"2013-01-01"])])

    assert [one.signals for one in store.waiting.waiting()] == [("flights",)]


def test_members_that_were_not_part_of_the_run_wait_on(store):
    lane = own(store)
    extra = member("flights", offset=0, name="extra")
    wait(store, lane, extra)
    wait(store, lane, member("flights", offset=1))
    store.waiting.add(lane, member("weather", offset=2), both, HOUR)

    store.inbox.settle([settlement(lane, outcome("flights"), outcome("weather"), closed=[b"2013-01-01"])])
    joined = store.waiting.add(lane, member("weather", offset=5, name="weather again"), both, HOUR)

    assert (joined.state, [one.key for one in joined.members]) == ("complete", [key("extra"), key("weather again")])


def test_the_same_key_with_another_content_or_for_another_set_is_known(store):
    lane = own(store)
    store.waiting.add(lane, member("flights"), both, HOUR)

    for other in (member("flights", content="other"), member("flights", join=b"another day")):
        joined = store.waiting.add(lane, other, both, HOUR)
        assert (joined.state, joined.known.state, joined.known.digest) == ("known", "waiting", member("flights").digest)
    assert len(store.waiting.waiting()) == 1


def test_of_two_last_members_at_once_exactly_one_waits_and_the_other_is_to_complete_the_set(store, another_store):
    other = another_store()
    lanes = own(store, 0, "a"), own(other, 1, "b")
    for day in (b"%d" % n for n in range(25)):
        joined = together(
            lambda day=day: store.waiting.add(lanes[0], member("flights", 0, join=day, name=(day, 0)), both, HOUR),
            lambda day=day: other.waiting.add(lanes[1], member("weather", 1, join=day, name=(day, 1)), both, HOUR),
        )

        assert sorted(one.state for one in joined) == ["held", "waiting"]
        assert len(store.waiting.untold(0, [day])) == 1


def test_a_member_added_while_its_set_is_being_closed_finds_a_new_set(store, another_store):
    other = another_store()
    lanes = own(store, 0, "a"), own(other, 1, "b")
    for n in range(15):
        names = [f"flights {n}", f"weather {n}", f"next {n}"]
        wait(store, lanes[0], member("flights", 0, 1, name=names[0], join=b"%d" % n))
        store.waiting.add(lanes[0], member("weather", 0, 2, name=names[1], join=b"%d" % n), both, HOUR)
        late = member("flights", 1, 1, name=names[2], join=b"%d" % n)

        fenced, joined = together(
            lambda names=names: store.inbox.settle([settlement(lanes[0], outcome(names[0]), outcome(names[1]))]),
            lambda late=late: other.waiting.add(lanes[1], late, both, HOUR),
        )
        if joined.state == "held":
            joined = other.waiting.add(lanes[1], late, both, HOUR)

        assert (fenced, joined.state, joined.members) == ([], "waiting", [late])


def test_a_set_whose_time_is_up_is_given_to_one_lane(store):
    lane, other = own(store, 0), own(store, 1)
    late = member("flights", 0, 1, join=b"late")
    wait(store, lane, late, within=0)
    wait(store, lane, member("flights", 0, 2, join=b"young", name="young"))

    assert store.waiting.expired(other, 10) == [(b"late", [late])]
    assert store.waiting.expired(lane, 10) == []


def test_no_more_sets_expire_at_once_than_asked_for(store):
    lane = own(store)
    for n in range(5):
        wait(store, lane, member("flights", 0, n, join=b"%d" % n, name=n), within=0)

    assert [len(store.waiting.expired(lane, 3)) for _ in range(3)] == [3, 2, 0]


def test_an_expired_set_is_not_completed_any_more_and_its_members_wait_for_their_outcome(store):
    lane = own(store)
    wait(store, lane, member("flights", offset=1), within=0)
    store.waiting.expired(lane, 10)

    assert store.waiting.add(lane, member("weather", offset=2), both, HOUR).state == "held"
    assert store.waiting.add(lane, member("flights", offset=1), both, HOUR).state == "known"
    store.inbox.settle([settlement(lane, outcome("flights", "expired"))])
    assert store.waiting.add(lane, member("weather", offset=2), both, HOUR).state == "waiting"
    assert store.inbox.known(0, [key("flights")])[key("flights")].state == "expired"


def test_an_expired_set_whose_taker_died_is_given_out_again(store):
    wait(store, own(store, 0, "a"), member("flights"), within=0)
    store.waiting.expired(own(store, 1, "b"), 10)
    own(store, 1, "c")

    assert len(store.waiting.expired(own(store, 2, "d"), 10)) == 1


def test_waiting_members_are_restored_to_an_empty_database(store):
    lane = own(store)
    store.inbox.settle([settlement(lane, outcome("done"))])
    flights = member("flights", 0, 1)

    for _ in range(2):
        store.waiting.restore(lane, [flights, member("weather", 0, 2, name="done", join=b"old")], HOUR)

    assert [one.join_key for one in store.waiting.waiting()] == [flights.join_key]
    assert store.waiting.add(lane, member("weather", 0, 9), both, HOUR).members == [flights, member("weather", 0, 9)]


def test_the_listing_shows_who_is_in_and_until_when(store):
    lane = own(store)
    store.waiting.add(lane, member("flights", join=b"b"), both, 2 * HOUR)
    store.waiting.add(lane, member("weather", join=b"a", name="other"), both, HOUR)

    listing = store.waiting.waiting()

    assert [(one.join_key, one.state, one.signals) for one in listing] == [
        (b"a", "open", ("weather",)),
        (b"b", "open", ("flights",)),
    ]
    assert abs(listing[0].until - listing[0].since - timedelta(hours=1)) < timedelta(seconds=5)
    assert len(store.waiting.waiting(limit=1)) == 1


def test_headers_and_values_come_back_byte_for_byte(store):
    lane = own(store)
    wait(store, lane, member("flights"))

    found = store.waiting.add(lane, member("weather", 0, 1), both, HOUR).members[0]

    assert found == member("flights")
    assert found.topic == TOPIC
