"""A value that a person mends: what was not touched stays exactly what it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest

from farandole.errors import FarandoleError
from farandole.mend import assigned, difference, encoded, parsed, shown
from farandole.testing.log import StageCodec

SCHEMA = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "raw", "type": ["null", "bytes", "string"]},
        {"name": "inner", "type": {"type": "record", "name": "I", "fields": [{"name": "n", "type": "long"}]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
WAS = {
    "at": datetime(2013, 1, 1, 6, 0, 0, 123457, tzinfo=UTC),
    "price": Decimal("12.50"),
    "raw": b"\x01\x02",
    "inner": {"n": 7},
    "tags": ["a"],
}


@pytest.fixture
def back(monkeypatch):
    """From what a person made, through the registry's newest schema, to the value that a reader sees."""
    codec = StageCodec({"t": SCHEMA})
    monkeypatch.setattr("farandole.mend.Codec", lambda *_: codec)

    def through(made):
        registry = SimpleNamespace(latest=lambda _subject: (1, json.dumps(SCHEMA)))
        return codec.decode("t", encoded(registry, "t", WAS, made, "--set"))

    return through


def test_what_was_not_touched_stays_what_it_was(back):
    made = assigned(shown(WAS), ["inner.n=8"])

    assert back(made) == WAS | {"inner": {"n": 8}}


def test_times_and_decimals_are_written_as_they_are_shown(back):
    made = assigned(shown(WAS), ["at=2014-02-03T04:05:06.000001Z", "price=3.25"])

    assert back(made)["at"] == datetime(2014, 2, 3, 4, 5, 6, 1, tzinfo=UTC)


def test_a_value_that_does_not_fit_is_refused_and_the_field_is_named(back):
    with pytest.raises(FarandoleError, match="inner"):
        back(assigned(shown(WAS), ["inner.n=seven"]))
    made = shown(WAS)
    del made["price"]
    with pytest.raises(FarandoleError, match="price"):
        back(made)


def test_fields_are_set_as_json_or_else_as_text():
    was = {"a": 1, "o": {"b": 2}, "code": "12", "other": "x"}

    assert assigned(was, ["a=x y", "o.b=[1, null]", "new=true", "code=13", "other=null"]) == {
        "a": "x y",
        "o": {"b": [1, None]},
        "code": "13",
        "other": None,
        "new": True,
    }


@pytest.mark.parametrize("setting", ["a", "a.b=1", "none.b=1"])
def test_a_setting_that_sets_nothing_is_refused(setting):
    with pytest.raises(FarandoleError, match="field=value"):
        assigned({"a": 1}, [setting])


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(FarandoleError, match="nothing was sent"):
        parsed(text, "$EDITOR")


def test_the_difference_is_told_line_by_line():
    assert list(difference({"a": 1, "b": 2}, {"a": 1, "b": 3}))[-3:] == ['-  "b": 2', '+  "b": 3', " }"]


def test_the_value_shown_is_plain_json_and_loses_no_microsecond():
    assert json.loads(json.dumps(shown(WAS)))["at"] == "2013-01-01T06:00:00.123457Z"
