"""What is added to an event for its way through ``retry.<group>``, and taken off again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farandole.delivery import BEHIND, DROP, PARKED, REDRIVE, REPAIR, RUN, Delivery, admit, delivered, retry_record
from farandole.errors import Undecodable
from farandole.event import RawRecord
from farandole.ids import spread

EVENT = RawRecord("in.v1", "tid", 3, 17, 1000, b"k", b"\x00value", [("ce_id", b"7"), ("other", None)])
PARK = Delivery(PARKED, "run-1", b"\x01\x02", "in.v1", "tid", 3, 17, 1000, life=1, attempt=4, not_before=60_000)


def back(record):
    return delivered(
        RawRecord(record.topic, "retry-tid", record.partition, 5, 2000, record.key, record.value, record.headers)
    )


def test_the_event_comes_back_byte_for_byte_from_where_it_stood():
    assert back(retry_record("retry.merge", 6, EVENT, PARK)) == (PARK, EVENT)


def test_a_second_delivery_takes_the_place_of_the_first():
    first = retry_record("retry.merge", 6, EVENT, PARK)
    redrive = Delivery(REDRIVE, "run-1", b"\x01\x02", "in.v1", "tid", 3, 17, 1000, life=2, redrive_id="r-1")
    raw = RawRecord("retry.merge", "", 0, 0, 0, first.key, first.value, first.headers)
    assert back(retry_record("retry.merge", 6, raw, redrive)) == (redrive, EVENT)


def test_all_that_happens_to_one_record_key_stands_in_one_partition():
    behind = Delivery(BEHIND, "run-2", b"\x03", "in.v1", "tid", 3, 18)
    assert {retry_record("retry.merge", 6, EVENT, d).partition for d in (PARK, behind)} == {spread(b"k", 6)}


@pytest.mark.parametrize(("kind", "outputs"), [(REPAIR, ""), (REPAIR, " "), (REDRIVE, "o1=01")])
def test_a_repair_and_nothing_else_names_outputs(kind, outputs):
    record = retry_record("retry.merge", 6, EVENT, replace(PARK, kind=kind, outputs=outputs))
    with pytest.raises(Undecodable, match="a repair, and nothing else, names outputs"):
        back(record)


@pytest.mark.parametrize(
    ("known", "verdict"),
    [(("done", 0), RUN), (("caught", 1), RUN), (None, RUN), (("parked", 0), DROP), (("dead", 0), DROP)],
)
def test_only_a_run_that_is_done_is_computed_again(known, verdict):
    assert admit(REPAIR, 0, known) == verdict


def test_the_parts_of_a_joined_run_stand_in_one_partition_whatever_their_keys():
    other = RawRecord("b.v1", "tid", 0, 1, 0, b"another", b"", [])
    parts = [
        retry_record("retry.m", 6, event, Delivery(PARKED, "run-1", b"", event.topic, "t", 0, 1, part=n, parts=2))
        for n, event in enumerate((EVENT, other), 1)
    ]
    assert parts[0].partition == parts[1].partition == spread(b"run-1", 6)


@pytest.mark.parametrize("headers", [[], [("farandole-retry-kind", b"?")], [("farandole-retry-partition", b"x")]])
def test_a_record_that_is_no_delivery_is_told_from_one(headers):
    with pytest.raises(Undecodable, match="not a record of ours"):
        delivered(RawRecord("retry.merge", "", 0, 0, 0, None, b"", headers))
