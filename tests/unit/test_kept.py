"""What a step gave comes back as what it was, also in another process with newer code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.errors import Unfillable, Unreadable
from farandole.event import EVENT_TYPES, Interval, event_type_of, fact
from farandole.kept import pack, unpack


@dataclass(frozen=True)
class Staged:
    uri: str
    rows: int
    day: date
    parts: tuple[str, ...] = ()
    price: Decimal | None = None


class Checked(msgspec.Struct, frozen=True):
    good: int
    bad: list[int]


class Judged(pydantic.BaseModel):
    rows: int
    at: datetime


@fact("unit.kept.made.v1")
@dataclass(frozen=True)
class Made:
    table: str
    interval: Interval

    @classmethod
    def of(cls, record: Any) -> Made:
        return cls(record["table"], Interval.of(record["interval"]))

    def record(self) -> dict[str, Any]:
        return {"table": self.table, "interval": self.interval.record()}


DAY = Interval(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("result", "returns"),
    [
        (Staged("a", 3, date(2013, 1, 1), ("x", "y"), Decimal("1.50")), Staged),
        (Checked(1, [2, 3]), Checked),
        (Judged(rows=3, at=datetime(2013, 1, 1, tzinfo=UTC)), Judged),
        (Made("flights", DAY), Made),
        ([Made("flights", DAY), Made("weather", DAY)], list[Made]),
        (None, None),
        (None, Any),
        (7, int),
        ({"a": [1, 2]}, dict[str, list[int]]),
        ((1, "a"), tuple[int, str]),
        (UUID(int=7), UUID),
        ([], list[Made]),
        (Staged("a", 3, date(2013, 1, 1)), Staged | None),
        (DAY, Interval),
    ],
)
def test_a_result_comes_back_as_the_type_that_the_step_declares(result, returns):
    assert unpack(pack(result, "stage", "1.2"), returns) == (result, "1.2")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(allow_nan=False),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=10,
    )
)
def test_plain_values_come_back_without_an_annotation(value):
    assert unpack(pack(value, "stage"), Any) == (value, "")


@pytest.mark.parametrize("result", [object(), lambda: 1, {"a": object()}, open])
def test_a_result_that_has_no_plain_form_is_refused_with_the_step_and_the_remedy(result):
    with pytest.raises(Unfillable, match="the result of stage cannot be kept") as told:
        pack(result, "stage")
    assert "return an event, a dataclass" in told.value.hint


@pytest.mark.parametrize(
    ("result", "returns", "kept"),
    [
        (Staged("a", 3, date(2013, 1, 1)), Checked, "Staged"),
        ({"rows": "many"}, Judged, "dict"),
        ("seven", int, "str"),
        (Made("flights", DAY), Staged, "unit.kept.made.v1"),
    ],
)
def test_a_result_that_todays_code_cannot_read_is_said_with_step_type_and_remedy(result, returns, kept):
    with pytest.raises(Unreadable, match=rf"what stage gave is kept as {kept}, by version 1\.2, and cannot") as told:
        unpack(pack(result, "stage", "1.2"), returns, "stage")
    assert told.value.reason == "checkpoint.unreadable"
    assert told.value.place == "stage"
    assert "give the step another name" in told.value.hint


def test_an_event_whose_class_is_gone_cannot_be_read(monkeypatch):
    kept = pack(Made("flights", DAY), "stage")
    monkeypatch.delitem(EVENT_TYPES, event_type_of(Made))
    with pytest.raises(Unreadable, match="by an earlier version"):
        unpack(kept, Any, "stage")


def test_what_was_kept_before_versions_were_noted_is_read():
    assert unpack(msgspec.msgpack.encode({"value": 7}), int) == (7, "")
