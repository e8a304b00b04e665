"""From an event to the signal it is, or the reason why not; and its keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from farandole.criteria import CriteriaError
from farandole.declaration import Declaration, Join, Subscription
from farandole.event import Event, Position, envelope_of, fact
from farandole.ids import event_key, fields_key, position_key
from farandole.match import Match, Matcher

TOPIC, OTHER = "unit.match.made.v1", "unit.match.lost.v1"


@fact(TOPIC)
@fact(OTHER)
@dataclass(frozen=True)
class Made:
    record: dict[str, Any]

    @classmethod
    def of(cls, record):
        return cls(dict(record))


def event(value, *, identity=None, topic=TOPIC):
    at = Position(topic, "topic-id", 2, 7)
    headers = [("ce_id", identity), ("ce_source", b"/s")] if identity else []
    return Event(envelope_of(headers, topic, at), at, value)


def matcher(*subscriptions, **words):
    return Matcher(Declaration("unit", "", "now", subscriptions, (), **words))


def test_the_first_subscription_that_takes_an_event_names_its_signal():
    one = matcher(
        Subscription("large", TOPIC, "rows > 10"),
        Subscription("small", TOPIC, "rows <= 10"),
        Subscription("any", TOPIC),
    )
    assert one.match(TOPIC, event({"rows": 3})) == Match("small", Made({"rows": 3}))
    assert one.match(TOPIC, event({"rows": 11})) == Match("large", Made({"rows": 11}))


def test_an_event_that_nobody_takes_gets_the_reason_as_it_was_written():
    one = matcher(Subscription("large", TOPIC, "rows > 10"))
    assert one.match(TOPIC, event({"rows": 3})) == "not (rows > 10)"
    assert one.match(OTHER, event({"rows": 3}, topic=OTHER)) == "no subscription"


@pytest.mark.parametrize("value", [{"rows": "three"}, {"rows": None}, {}])
def test_a_condition_that_cannot_be_told_is_an_error_and_never_no(value):
    with pytest.raises(CriteriaError):
        matcher(Subscription("large", TOPIC, "rows > 10")).match(TOPIC, event(value))


def test_the_key_is_the_id_else_the_position_else_the_declared_fields():
    plain = matcher(Subscription("made", TOPIC))
    assert plain.key(event({}, identity=b"e1")) == event_key("/s", "e1")
    assert plain.key(event({})) == position_key("topic-id", 2, 7)
    declared = matcher(Subscription("made", TOPIC), once=("table", "interval.start"))
    day = datetime(2013, 1, 1, tzinfo=UTC)
    value = {"table": "flights", "interval": {"start": day}}
    assert declared.key(event(value, identity=b"e1")) == fields_key(["flights", day])


@pytest.mark.parametrize("value", [{}, {"table": 1.5}, {"table": [1]}])
def test_a_key_field_that_is_absent_or_has_no_canonical_form_is_an_error(value):
    with pytest.raises((KeyError, TypeError)):
        matcher(Subscription("made", TOPIC), once=("table",)).key(event(value))


def test_events_of_a_join_meet_under_their_common_fields_and_its_condition():
    both = (Subscription("left", TOPIC), Subscription("right", OTHER))
    one = matcher(*both, join=Join(("day",), 60.0, "left.rows == right.rows"))
    assert one.needed == ("left", "right")
    assert one.join_key(event({"day": 1})) == one.join_key(event({"day": 1, "rows": 2}, topic=OTHER))
    assert one.holds({"left": {"rows": 1}, "right": {"rows": 1}})
    assert not one.holds({"left": {"rows": 1}, "right": {"rows": 2}})
