"""Criteria: a closed language that is compiled once, typed, explained, and never guesses."""

from __future__ import annotations

import contextlib
import timeit
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.criteria import NODES, CriteriaError, criteria
from farandole.errors import DeclarationError

DAY = datetime(2013, 1, 1, tzinfo=UTC)
SCHEMA = {
    "type": "record",
    "name": "TableMerged",
    "namespace": "lake",
    "fields": [
        {"name": "table", "type": "string"},
        {"name": "rows", "type": "long"},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["open", "closed"]}},
        {"name": "region", "type": ["null", "string"]},
        {"name": "ok", "type": "boolean"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {
            "name": "interval",
            "type": {
                "type": "record",
                "name": "farandole.Interval",
                "fields": [
                    {"name": "start", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                    {"name": "end", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                ],
            },
        },
        {"name": "again", "type": "farandole.Interval"},
    ],
}


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("", {}, True),
        ("table == 'flights'", {"table": "flights"}, True),
        ("table != 'flights'", {"table": "flights"}, False),
        ("table == '{x}'", {"table": "{x}"}, True),
        ("table == 'flights' and rows > 0", {"table": "flights", "rows": 0}, False),
        ("table == 'a' or rows > 0", {"table": "b", "rows": 1}, True),
        ("not rows < 3", {"rows": 3}, True),
        ("1 < rows <= 3", {"rows": 3}, True),
        ("rows > -1", {"rows": 0}, True),
        ("rows >= 10_000", {"rows": 9_999}, False),
        ("rows > 0.5", {"rows": 1}, True),
        ("rows == 2", {"rows": 2.0}, True),
        ("price < 1.5", {"price": Decimal("1.49")}, True),
        ("price == 0.1", {"price": Decimal("0.1")}, True),
        ("table in ['a', 'b']", {"table": "b"}, True),
        ("table not in ('a', 'b')", {"table": "b"}, False),
        ("rows in {1, 2.5}", {"rows": 1}, True),
        ("'eu' in tags", {"tags": ["eu", "us"]}, True),
        ("ok", {"ok": True}, True),
        ("not ok and rows == 1", {"ok": False, "rows": 1}, True),
        ("ok == True", {"ok": True}, True),
        ("region == None", {"region": None}, True),
        ("region != None and region == 'eu'", {"region": None}, False),
        ("interval.start >= '2013-01-01'", {"interval": {"start": DAY}}, True),
        ("interval.start < '2013-01-01T00:00Z'", {"interval": {"start": DAY}}, False),
        ("day == '2013-01-01'", {"day": date(2013, 1, 1)}, True),
        ("weather.region == flights.region", {"weather": {"region": "e"}, "flights": {"region": "e"}}, True),
        ("a.interval == b.interval", {"a": {"interval": {"start": DAY}}, "b": {"interval": {"start": DAY}}}, True),
        ("a < b", {"a": 1, "b": 2.5}, True),
    ],
)
def test_a_condition_is_judged_on_the_decoded_value(text, value, verdict):
    assert criteria(text).test(value) is verdict


@pytest.mark.parametrize(
    ("text", "value", "word"),
    [
        ("table == 'x'", {}, "no `table`"),
        ("table == 'x'", {"table": None}, "empty"),
        ("table != 'x'", {"table": None}, "empty"),
        ("table in ['x']", {"table": None}, "empty"),
        ("a.b == 1", {"a": None}, "no `a.b`"),
        ("rows > 1", {"rows": "3"}, "different types"),
        ("rows == 1", {"rows": True}, "different types"),
        ("table in ['x']", {"table": 3}, "different types"),
        ("'x' in table", {"table": "xyz"}, "no list"),
        ("ok", {"ok": 1}, "neither true nor false"),
        ("ok", {"ok": None}, "neither true nor false"),
        ("a == b", {"a": 1, "b": "1"}, "different types"),
        ("a == b", {"a": None, "b": None}, "empty"),
        ("a < b", {"a": {}, "b": {}}, "no order"),
        ("interval.start > 'soon'", {"interval": {"start": DAY}}, "no time"),
    ],
)
def test_what_cannot_be_judged_is_an_error_and_never_no(text, value, word):
    with pytest.raises(CriteriaError, match=word):
        criteria(text).test(value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("f(x)", "a call"),
        ("table.lower() == 'a'", "a call"),
        ("rows + 1 == 2", "arithmetic"),
        ("[a for a in b]", "a comprehension"),
        ("lambda: rows", "a lambda"),
        ("f'{rows}' == 'a'", "an f-string"),
        ("a[0] == 1", "an index"),
        ("a is None", "write =="),
        ("(a := 1) == 1", "an assignment"),
        ("a if b else c", "an if"),
        ("1 == 1", "looks at no field"),
        ("'a'", "no condition"),
        ("a == [1]", "cannot stand after =="),
        ("a in 'abc'", "cannot stand after in"),
        ("a in [b]", "neither a field nor a literal"),
        ("a = 1", "invalid syntax"),
        ("table ==", "invalid syntax"),
        ("__import__('os').system('x')", "a call"),
        ("a == 1" + " and a == 1" * 400, "characters"),
        ("a == b'x'", "neither a field nor a literal"),
    ],
)
def test_the_language_is_closed(text, word):
    with pytest.raises(DeclarationError, match=word) as caught:
        criteria(text)
    assert caught.value.hint


def test_the_list_of_syntax_nodes_does_not_grow():
    assert set(NODES) == {
        *("And", "Attribute", "BoolOp", "Compare", "Constant", "Eq", "Expression", "Gt", "GtE", "In", "List"),
        *("Load", "Lt", "LtE", "Name", "Not", "NotEq", "NotIn", "Or", "Set", "Tuple", "UnaryOp", "USub"),
    }


@given(st.text(max_size=60))
def test_any_text_is_compiled_or_refused(text):
    try:
        compiled = criteria(text)
    except DeclarationError:
        return
    with contextlib.suppress(CriteriaError):
        assert compiled.test({}) in (True, False)


@given(st.integers() | st.text(max_size=5) | st.booleans() | st.none() | st.floats(allow_nan=False), st.integers())
def test_a_comparison_with_a_number_answers_as_python_does_or_not_at_all(value, number):
    text = f"value < {number}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert criteria(text).test({"value": value}) is (value < number)
    else:
        with pytest.raises(CriteriaError):
            criteria(text).test({"value": value})


def test_explain_tells_each_clause_with_the_values_it_saw():
    told = criteria("table == 'flights' and rows > 10 and ok").explain({"table": "flights", "rows": 3})
    assert [(c.text, c.verdict, c.values) for c in told] == [
        ("table == 'flights'", True, {"table": "flights"}),
        ("rows > 10", False, {"rows": 3}),
        ("ok", None, {"ok": None}),
    ]
    assert "no `ok`" in told[2].problem


def test_the_fields_are_named_once_each():
    assert criteria("a.b == 1 and (c > 2 or a.b == 3) and 'x' in tags").fields == ("a.b", "c", "tags")


def test_equal_texts_are_equal_conditions():
    assert criteria("a == 1") == criteria(" a == 1 ")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("tabel == 'x'", "did you mean `table`"),
        ("interval.begin > '2013-01-01'", "has no field `begin`"),
        ("table.x == 1", "has no `x`"),
        ("table == 1", "compares a text with 1"),
        ("rows > '3'", "compares a number with '3'"),
        ("rows in [1, 'a']", "compares a number with 'a'"),
        ("state == 'opn'", "did you mean `open`"),
        ("state < 'open'", "no order"),
        ("ok == 1", "true or false"),
        ("table", "true or false is needed"),
        ("interval.start > 'soon'", "no time"),
        ("day > 'soon'", "no date"),
        ("rows == None", "never empty"),
        ("'x' in table", "no list"),
        ("table == rows", "compares a text with a number"),
        ("not (ok or tabel == 'x')", "did you mean `table`"),
    ],
)
def test_a_condition_is_typed_against_the_schema(text, word):
    (problem,) = criteria(text).typed(SCHEMA)
    assert word in problem


@pytest.mark.parametrize(
    "text",
    [
        "table == 'x' and rows > 0.5 and ok and not ok == False",
        "region == None or region == 'eu'",
        "state in ['open', 'closed']",
        "interval.start >= '2013-01-01' and interval == again and again.end > interval.start",
        "'x' in tags and labels.env == 'prod' and day > '2013-01-01'",
    ],
)
def test_a_sound_condition_has_no_problems(text):
    assert criteria(text).typed(SCHEMA) == []


def test_a_simple_condition_costs_at_most_a_third_of_a_microsecond():
    test, value = criteria("table == 'flights' and rows > 0").test, {"table": "flights", "rows": 5}
    best = min(timeit.repeat(lambda: test(value), number=20_000, repeat=15)) / 20_000
    assert best < 0.3e-6, f"{best * 1e6:.2f} µs"
