"""From one event to the signal it is, or the reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farandole.cascade import restated
from farandole.criteria import Criteria, criteria
from farandole.declaration import Declaration
from farandole.event import EVENT_TYPES, Event, RawRecord
from farandole.ids import event_key, fields_key, position_key


@dataclass(slots=True)
class Signal:
    """An event as a subscription matched it, where it stood first.

    `via` is the record of the retry topic that brought it (topic id/partition/offset), if one did.
    """

    name: str
    event: Event
    raw: RawRecord
    key: bytes
    digest: bytes
    fact: Any
    via: str = ""


@dataclass(slots=True)
class Match:
    """A signal's name and the author's object for the event."""

    signal: str
    fact: Any


class Matcher:
    """The subscriptions of a pipeline, compiled once."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._by_topic: dict[str, list[tuple[str, Criteria | None, Any]]] = {}
        for s in declaration.subscriptions:
            test = criteria(s.where) if s.where else None
            self._by_topic.setdefault(s.event_type, []).append((s.signal, test, EVENT_TYPES[s.event_type]))
        join = declaration.join
        self._between = criteria(join.where) if join and join.where else None
        self.needed = tuple(s.signal for s in declaration.subscriptions)

    def match(self, topic: str, event: Event) -> Match | str:
        """The first subscription that takes the event, or the reason why none does.

        Raises CriteriaError where a condition cannot be told: such an event is dead, never "no".
        """
        reason = "no subscription"
        for signal, test, cls in self._by_topic.get(topic, ()):
            if test is None or test.test(event.value):
                return Match(signal, cls.of(event.value))
            reason = f"not ({test.text})"
        return reason

    def key(self, event: Event) -> bytes:
        """The idempotency key of an event for this pipeline.

        Raises TypeError or KeyError where a declared field has no canonical form or is absent.
        """
        envelope, at = event.envelope, event.position
        if self.declaration.once:
            key = fields_key([_field(event.value, name) for name in self.declaration.once])
            return restated(key, envelope.restatement) if envelope.restatement else key
        if envelope.derived:
            return position_key(at.topic_id, at.partition, at.offset)
        return event_key(envelope.source, envelope.id)

    def join_key(self, event: Event) -> bytes:
        """The key under which this event meets the others of its set."""
        join = self.declaration.join
        assert join is not None  # noqa: S101 - called for joins only
        return fields_key([_field(event.value, name) for name in join.fields])

    def holds(self, values: dict[str, dict[str, Any]]) -> bool:
        """Whether the condition between the signals of a set is met."""
        return self._between is None or self._between.test(values)


def _field(value: dict[str, Any], path: str) -> Any:
    found: Any = value
    for name in path.split("."):
        found = found[name]
    return found
