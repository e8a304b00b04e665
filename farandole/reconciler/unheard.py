"""Events that nobody takes: of topics to which no pipeline listens, and those that all who listen have refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farandole.declaration import Declaration
from farandole.ids import digest
from farandole.kafka.admin import Admin, Topic
from farandole.reconciler.account import Place
from farandole.reconciler.findings import Finding
from farandole.reconciler.history import History
from farandole.reconciler.refused import Refused, refused_by_all


@dataclass(slots=True)
class Judged:
    """One pipeline that was swept: what it refused, and the range of each partition that it has judged."""

    history: History
    ranges: Mapping[Place, tuple[int, int]]


@dataclass(slots=True)
class Topical:
    """What is known of one topic: up to where it was counted, how many events all refused, and where the last stands.

    `listeners` names the subscriptions by which was counted; with others the count begins anew.
    """

    listeners: str = ""
    upto: dict[int, int] = field(default_factory=dict)
    count: int = 0
    last: str = ""

    def record(self) -> tuple[Any, ...]:
        """As it is kept between two sweeps."""
        return self.listeners, self.upto, self.count, self.last


@dataclass(slots=True)
class Unheard:
    """All topics that the pipelines and sources here read or write. `known` is by topic id."""

    declarations: Sequence[Declaration]
    sources: Mapping[str, str]
    """Event types that sources tell, each with the source's name."""
    known: dict[str, Topical] = field(default_factory=dict)

    def forget(self, history: History) -> None:
        """Drop what was counted of a pipeline's refusals."""
        for (topic_id, partition), refused in history.refused.items():
            if topic_id in self.known:
                refused.forget(self.known[topic_id].upto.get(partition, 0))

    def findings(self, admin: Admin, judged: Mapping[str, Judged]) -> Iterator[Finding]:
        """What nobody takes, of the topics whose listeners were all swept. Raises Unreachable."""
        makers = {**self.sources, **{topic: d.name for d in self.declarations for topic in d.emits}}
        listeners = {
            topic: [d for d in self.declarations if topic in d.topics] for d in self.declarations for topic in d.topics
        }
        topics = admin.topics([*dict.fromkeys((*makers, *listeners))])
        yield from self._alone(
            admin, [topics[name] for name in makers if name in topics and name not in listeners], makers
        )
        for name, many in listeners.items():
            if name in topics and all(d.name in judged for d in many):
                yield from self._refused(topics[name], many, [judged[d.name] for d in many])
        self.known = {
            topic.topic_id: self.known[topic.topic_id] for topic in topics.values() if topic.topic_id in self.known
        }

    def _alone(self, admin: Admin, topics: Sequence[Topic], makers: Mapping[str, str]) -> Iterator[Finding]:
        places = [(topic.name, p) for topic in topics for p in range(topic.partitions)]
        starts, ends = admin.starts(places), admin.ends(places, committed=True)
        for topic in topics:
            if any(ends[topic.name, p] > starts[topic.name, p] for p in range(topic.partitions)):
                says = f"{makers[topic.name]} writes to {topic.name}, and no pipeline here listens to it"
                yield Finding("nobody-listens", "", topic.name, says)

    def _refused(self, topic: Topic, many: Sequence[Declaration], judged: Sequence[Judged]) -> Iterator[Finding]:
        stands = _listeners(topic.name, many)
        known = self.known.get(topic.topic_id, Topical())
        if known.listeners != stands:
            known = Topical(stands, known.upto)
        self.known[topic.topic_id] = known
        for partition in range(topic.partitions):
            place = topic.topic_id, partition
            if all(place in one.ranges for one in judged):
                low = max(known.upto.get(partition, 0), *(one.ranges[place][0] for one in judged))
                high = min(one.ranges[place][1] for one in judged)
                bits = [one.history.refused.get(place, Refused()) for one in judged]
                count, last = refused_by_all(bits, low, high)
                known.count += count
                known.last = f"{partition}:{last}" if count else known.last
                known.upto[partition] = max(high, known.upto.get(partition, 0))
        if known.count:
            says = (
                f"{known.count:,} events of {topic.name} were taken by nobody: {', '.join(d.name for d in many)} "
                f"refused them; the last one {known.last}"
            )
            yield Finding(
                "nobody-takes", "", topic.name, says, following=f"farandole events show {topic.name} {known.last}"
            )


def _listeners(topic: str, many: Iterable[Declaration]) -> str:
    written = sorted((d.name, s.signal, s.where) for d in many for s in d.subscriptions if s.event_type == topic)
    return digest(repr(written).encode()).hex()
