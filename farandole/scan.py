"""What stands in a topic about an interval, and which of a subscription's criteria it meets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from farandole.criteria import CriteriaError, criteria
from farandole.errors import Undecodable
from farandole.event import Interval, Position, RawRecord, envelope_of
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import UnknownSchema

MOST = 100_000
"""Records of a topic that are looked at; with more, those that came first count."""
_LAST = 200  # records at the end of a topic among which the newest of a kind is looked for


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it stands: its event id, its value (None: it cannot be read, and `why`), what it is about."""

    id: str
    position: Position
    at: datetime
    value: Mapping[str, Any] | None
    interval: Interval | None
    why: str = ""

    def about(self, interval: Interval) -> bool:
        """Whether it is about a part of the interval; one that says nothing of itself, whether it came in it."""
        if self.interval is None:
            return interval.start <= self.at < interval.end
        return self.interval.start < interval.end and interval.start < self.interval.end


@dataclass(frozen=True, slots=True)
class Scan:
    """A topic from the beginning of an interval on. `there`: it exists. `cut`: it held more than :data:`MOST`."""

    there: bool
    seen: list[Seen] = field(default_factory=list)
    cut: bool = False


@dataclass(slots=True)
class Scanner:
    """Reads topics once each, for one question."""

    admin: Admin
    read: Callable[[str], TopicReader]
    codec: Codec
    _known: dict[tuple[str, Interval], Scan] = field(default_factory=dict)

    def scan(self, topic: str, interval: Interval) -> Scan:
        """What came since the interval began, and the last records of the topic. Raises BrokerUnreachable."""
        if (topic, interval) not in self._known:
            self._known[topic, interval] = self._scan(topic, interval)
        return self._known[topic, interval]

    def forget(self) -> None:
        """Read everything anew when it is asked for next."""
        self._known.clear()

    def _scan(self, topic: str, interval: Interval) -> Scan:
        if topic not in self.admin.topics([topic]):
            return Scan(there=False)
        found: list[Seen] = []
        with self.read(topic) as reader:
            ends = reader.ends()
            start = interval.start - timedelta(minutes=5)  # a producer's clock may be behind
            offsets = reader.offsets_at(max(0, round(start.timestamp() * 1000)))
            for batch in reader.read(offsets, until=ends):
                found += map(self._seen, batch)
                if len(found) >= MOST:
                    return Scan(there=True, seen=found, cut=True)
            before = {p: min(at, ends.get(p, 0)) for p, at in offsets.items()}
            last = [self._seen(raw) for raw in reader.last(_LAST, before)] if any(before.values()) else []
        return Scan(there=True, seen=[*last, *found])

    def _seen(self, raw: RawRecord) -> Seen:
        envelope = envelope_of(raw.headers, raw.topic, raw.position)
        at = datetime.fromtimestamp(max(raw.timestamp, 0) / 1000, UTC)
        try:
            value = self.codec.decode(raw.topic, raw.value, raw.headers)
        except (Undecodable, UnknownSchema) as error:
            return Seen(envelope.id, raw.position, at, None, None, str(error))
        told = (value or {}).get("interval")
        interval = Interval.of(told) if isinstance(told, dict) and {"start", "end"} <= told.keys() else None
        return Seen(envelope.id, raw.position, at, value or {}, interval)


def meets(where: str, value: Mapping[str, Any]) -> bool:
    """Whether a value meets a condition; one that cannot be judged does not."""
    try:
        return criteria(where).test(value)
    except CriteriaError:
        return False


def refusal(where: str, value: Mapping[str, Any]) -> str:
    """The first clause of a condition that a value does not meet, with what it saw."""
    for clause in criteria(where).explain(value):
        if clause.verdict is not True:
            saw = ", ".join(f"{name} = {told!r}" for name, told in clause.values.items())
            return f"not ({clause.text}): {clause.problem or saw}"
    return f"not ({where})"


def narrowed(clauses: Sequence[str], value: Mapping[str, Any]) -> bool:
    """Whether an event further up could be meant: of the clauses, those whose fields it has are met."""
    return all(meets(one, value) for one in clauses if all(name in value for name in criteria(one).fields))


def clauses_of(where: str) -> tuple[str, ...]:
    """The and-clauses of a condition."""
    import ast

    return tuple(ast.unparse(clause) for clause in criteria(where).clauses) if where else ()
