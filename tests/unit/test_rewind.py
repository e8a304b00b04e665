"""Where a partition starts: the table, row by row, and what holds for all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.rewind import Former, Found, Mark, accepted_cut, mark_of, where_to_start
from farandole.topics import SEED_MARK

OURS = str(Mark(0, 1, 1))


@pytest.mark.parametrize(
    ("committed", "metadata", "position", "log", "on_rewind", "offset", "fact", "stop", "prove"),
    [
        (10, OURS, 10, (0, 20), "replay", 10, "", False, False),
        (10, "", 10, (0, 20), "replay", 10, "", False, False),
        (15, OURS, 10, (0, 20), "replay", 15, "", False, True),
        (15, str(Mark(11, 1, 1)), 10, (0, 20), "replay", 10, "offset.fast_forward.refused", False, False),
        (15, "", 10, (0, 20), "replay", 10, "offset.fast_forward.refused", False, False),
        (5, "", 10, (0, 20), "replay", 10, "", False, False),
        (5, "somebody else's", 10, (0, 20), "replay", 10, "", False, False),
        (5, "", 10, (0, 20), "ignore", 10, "rewind.ignored", False, False),
        (5, OURS, 10, (0, 20), "replay", 10, "offset.regressed", False, False),
        (None, "", 10, (0, 20), "replay", 10, "offset.expired", False, False),
        (None, "", None, (0, 20), "replay", 7, "", False, False),  # 7: where `since` points
        (12, "", None, (0, 20), "replay", 12, "", False, False),
        (10, OURS, 10, (14, 20), "replay", 14, "data.gap", False, False),
        (10, OURS, 10, (0, 9), "replay", 10, "data.truncated", True, False),
        (None, "", None, (8, 20), "replay", 8, "data.gap", False, False),
    ],
)
def test_each_row_of_the_table(committed, metadata, position, log, on_rewind, offset, fact, stop, prove):
    start = where_to_start(Found(committed, metadata, position, *log), 7, on_rewind)
    assert (start.offset, start.fact, start.stop, start.prove) == (offset, fact, stop, prove)


def test_a_log_that_was_too_short_stays_so_when_it_grows_until_a_person_accepts_it():
    """What came meanwhile below the position would be passed over."""
    grown = Found(10, OURS, 10, 2, 20, cut=7)
    start = where_to_start(grown, 0, "replay")
    assert (start.offset, start.fact, start.stop, start.detail["offset"]) == (10, "data.truncated", True, "10")
    accepted = accepted_cut(grown, {"actor": "ann"})
    assert (accepted.offset, accepted.fact, accepted.stop, accepted.detail["actor"]) == (
        2,
        "topic.accepted",
        False,
        "ann",
    )


def test_what_a_person_asks_for_is_processed_again_as_far_as_the_log_still_has_it():
    assert where_to_start(Found(5, "", 10, 0, 20), 0, "replay").replay == 5
    assert where_to_start(Found(0, "", 10, 3, 20), 0, "replay").replay == 3
    assert where_to_start(Found(5, OURS, 10, 0, 20), 0, "replay").replay is None
    assert where_to_start(Found(5, "", 10, 0, 20), 0, "ignore").replay is None


NEVER, NOW = Former("T0", 30), Former("T0", 30, accepted=True, by={"actor": "ann"})


@pytest.mark.parametrize(
    ("found", "offset", "fact", "stop"),
    [
        (Found(None, "", None, 0, 20, added=True), 0, "", False),
        (Found(15, SEED_MARK, None, 0, 20, added=True), 0, "", False),  # seeded by `since`, which is not for it
        (Found(15, OURS, None, 0, 20, added=True), 15, "", False),
        (Found(None, "", None, 4, 20, added=True), 4, "data.gap", False),
        (Found(10, OURS, 10, 0, 20, added=True), 10, "", False),
        (Found(None, "", None, 0, 20, former=NEVER), 0, "topic.recreated", True),
        (Found(30, OURS, None, 0, 50, former=NEVER), 0, "topic.recreated", True),  # committed for the former one
        (Found(None, "", None, 0, 20, added=True, former=NOW), 0, "topic.accepted", False),
        (Found(30, OURS, None, 0, 50, added=True, former=NOW), 0, "topic.accepted", False),
        (Found(None, "", None, 3, 20, added=True, former=NOW), 3, "data.gap", False),
        (Found(12, OURS, 12, 0, 20, added=True, former=NOW), 12, "", False),  # it went on long ago
    ],
)
def test_a_topic_that_grew_or_was_created_anew_begins_at_its_beginning(found, offset, fact, stop):
    start = where_to_start(found, 20, "replay")
    assert (start.offset, start.fact, start.stop, start.prove) == (offset, fact, stop, False)


def test_who_accepted_a_topic_and_what_was_known_before_it_stand_in_the_fact():
    told = where_to_start(Found(None, "", None, 0, 20, former=NOW), 0, "replay").detail
    assert {"actor": "ann", "former": "T0", "position": "30"}.items() <= told.items()


def test_a_seed_below_the_position_is_no_request_of_a_person():
    assert where_to_start(Found(5, SEED_MARK, 10, 0, 20), 0, "replay").stop is False


def test_a_gap_names_what_is_lost():
    assert {"from": "10", "to": "14"}.items() <= where_to_start(Found(10, OURS, 10, 14, 20), 0, "replay").detail.items()


def test_a_fact_tells_all_that_was_found():
    told = where_to_start(Found(5, "", 10, 0, 20), 0, "replay").detail
    assert (told["committed"], told["position"], told["log"]) == ("5", "10", "0..20")


@given(
    st.none() | st.integers(0, 50), st.sampled_from(["", OURS, str(Mark(40, 2, 9)), SEED_MARK, "x y z"]),
    st.none() | st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.sampled_from(["replay", "ignore"]),
)  # fmt: skip
def test_nothing_is_ever_skipped_in_silence_and_nothing_settled_begins_again(
    committed, metadata, position, low, more, on_rewind
):
    start = where_to_start(Found(committed, metadata, position, low, low + more), low, on_rewind)
    if position is None or start.stop:
        return
    assert start.offset >= position
    if start.offset > position:
        assert start.prove or start.fact == "data.gap"


@given(st.integers(0), st.integers(0), st.integers(0))
def test_a_mark_is_read_back(start, fence, number):
    assert mark_of(str(Mark(start, fence, number))) == Mark(start, fence, number)


@given(st.text())
def test_any_other_text_is_no_mark(text):
    assert mark_of(text) is None or str(mark_of(text)).split() == text.split()


@pytest.mark.parametrize(
    "text", ["", "farandole/1", "farandole/1 1 2", "farandole/1 1 2 -3", "farandole/1 1 2 ³", "farandole/2 1 2 3"]
)
def test_what_only_looks_like_a_mark_is_none(text):
    assert mark_of(text) is None
