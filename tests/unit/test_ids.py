"""Derived ids: the same for whoever computes them, and different for what is different."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.ids import (
    attempt_key,
    canonical,
    dead_letter_id,
    digest,
    event_key,
    fields_key,
    output_id,
    position_key,
    run_id,
    waiting_id,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
)
values = scalars | st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), scalars, max_size=3)


def same(a, b):
    """Whether two values are one as a key: by value, and by kind (text is not bytes, True is not 1)."""
    import unicodedata

    kind = {str: "text", bytes: "bytes", bool: "bool", int: "int", Decimal: "decimal", dict: "record"}
    if kind.get(type(a), type(a)) != kind.get(type(b), type(b)):
        return False
    if isinstance(a, str):
        return unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b)
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


@given(values, values)
def test_two_values_have_one_canonical_form_exactly_if_they_are_the_same(a, b):
    assert (canonical(a) == canonical(b)) == same(a, b)


@given(st.lists(values, min_size=2, max_size=2), st.lists(values, min_size=2, max_size=2))
def test_two_pairs_of_fields_have_one_key_exactly_if_they_are_the_same(a, b):
    assert (fields_key(a) == fields_key(b)) == all(map(same, a, b))


def test_a_zero_byte_in_a_text_does_not_move_the_border_between_two_fields():
    assert fields_key(["a\x00sb", "c"]) != fields_key(["a", "b\x00sc"])
    assert canonical({"x": "1\x01y=s2"}) != canonical({"x": "1", "y": "2"})


def test_a_moment_is_the_same_in_every_zone_and_kept_to_the_microsecond_for_ever():
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    assert canonical(noon) == canonical(noon.astimezone(timezone(timedelta(hours=5))))
    last = datetime(9999, 12, 31, 23, 59, 59, 999_998, tzinfo=UTC)
    assert canonical(last) != canonical(last + timedelta(microseconds=1))


def test_an_int_is_the_same_whatever_avro_calls_it_and_a_uuid_is_its_text():
    assert canonical(7) == b"i7"
    some = uuid.uuid4()
    assert canonical(some) == canonical(str(some))
    assert canonical(date(2013, 1, 1)) == b"D2013-01-01"


@pytest.mark.parametrize("value", [1.5, [1], {1}, object()])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(TypeError, match="cannot be part of an idempotency key"):
        fields_key([value])


def test_keys_of_different_kinds_never_meet():
    keys = {event_key("a", "b"), position_key("a", 0, 1), fields_key(["a", "b"]), fields_key(["b", "a"])}
    assert len(keys) == 4
    assert all(len(key) == 16 for key in keys)


def test_a_position_key_changes_with_topic_id_partition_and_offset():
    assert (
        len({position_key("t", 0, 0), position_key("u", 0, 0), position_key("t", 1, 0), position_key("t", 0, 1)}) == 4
    )


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=4))
def test_a_run_id_does_not_depend_on_the_order_in_which_its_events_came(keys):
    assert run_id("merge", 0, keys) == run_id("merge", 0, keys[::-1])


def test_a_run_id_depends_on_pipeline_epoch_and_keys():
    ids = {run_id("a", 0, [b"k"]), run_id("b", 0, [b"k"]), run_id("a", 1, [b"k"]), run_id("a", 0, [b"l"])}
    assert len(ids) == 4


def test_ids_do_not_change_from_one_version_to_the_next():
    key = event_key("/source", "id")
    assert key.hex() == "3aec4758e1c75d9fdbda4aeaaab89e41"
    run = run_id("merge", 0, [key])
    assert run == "ff9ca30f-6f88-57b8-b52e-f6e2e4dd1600"
    assert output_id(run, "lake.table.merged.v1", 0) == "5571bd8f-30df-503b-8d7f-21930295607e"
    assert attempt_key(run, "merge") == "5y5w4duaoinxxwzqf4tdkgi2dm"
    assert dead_letter_id(run, 0) == "ce8bc56f-17a9-5d98-9e04-96dd71ed733c"
    assert waiting_id("merge", 0, key) == "01004439-a1ed-5596-9ba6-51f042770e6f"
    assert fields_key(["flights", datetime(2013, 1, 1, tzinfo=UTC), 7]).hex() == "e468045f801e2b3d4755c9a16ec6bc10"
    assert position_key("topic-id", 3, 14).hex() == "87ec774283d55e5b8e025770ca8d1439"


def test_outputs_differ_by_type_and_ordinal_and_an_attempt_key_by_step_and_branch():
    assert len({output_id("r", "a", 0), output_id("r", "a", 1), output_id("r", "b", 0)}) == 3
    assert len({attempt_key("r", "s"), attempt_key("r", "t"), attempt_key("r", "s", "b"), attempt_key("q", "s")}) == 4


def test_a_digest_is_eight_bytes_and_tells_values_apart():
    assert digest(b"a") != digest(b"b")
    assert digest(None) == digest(b"")
    assert len(digest(b"a")) == 8
