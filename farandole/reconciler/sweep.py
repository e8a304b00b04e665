"""One pass over one pipeline: positions, then the ledger, then the records that have no outcome.

No clock decides. A record counts as missed only below a position that the pipeline itself has committed; what is at or
above it is in flight. Positions are read first and the ledger to its end after them, so whatever belongs to a position
is there. Two sweeps at once send the same event twice, and the pipeline takes it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from farandole.declaration import Declaration
from farandole.event import RawRecord
from farandole.kafka.admin import Committed, Topic
from farandole.kafka.reader import TopicReader
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.reconciler.account import Account
from farandole.reconciler.cluster import Cluster, Limits, position_of
from farandole.reconciler.history import History
from farandole.reconciler.missed import Missed, look
from farandole.reconciler.outputs import Outputs
from farandole.reconciler.repairs import Repairs
from farandole.reconciler.report import Found, Swept
from farandole.reconciler.resend import Resend


@dataclass(slots=True)
class Sweep:
    """A pass over one pipeline. `declared` gives the key of an event where the pipeline declares its fields."""

    declaration: Declaration
    cluster: Cluster
    account: Account
    history: History
    outputs: Outputs
    declared: Callable[[RawRecord], bytes | None]
    limits: Limits = field(default_factory=Limits)

    def run(self) -> Swept:
        """Find what was missed, and send it again. Raises Unreachable while a server is away."""
        clock, admin = self.cluster.clock, self.cluster.admin
        swept, began = Swept(self.declaration.name, started_at=clock.millis()), clock.monotonic()
        wanted = [*self.declaration.topics, self.declaration.retry_topic, self.declaration.dead_letter_topic]
        topics = admin.topics([*wanted, LEDGER_TOPIC])
        if missing := [name for name in (*wanted, LEDGER_TOPIC) if name not in topics]:
            swept.note = f"there is no topic {', '.join(missing)}: farandole topology apply"
            return swept
        group, committed = admin.group(self.declaration.name), admin.committed(self.declaration.name)
        self.outputs.begin(self.declaration, self.cluster)
        self._read_ledger(topics[LEDGER_TOPIC])
        self.history.unfinished.look(admin, topics[self.declaration.retry_topic], group, committed)
        found: list[tuple[Found, Missed]] = []
        for name in self.declaration.topics:
            found += self._topic(topics[name], committed)
        if any(missed.total for _, missed in found):
            Resend(self.declaration, self.cluster, self.account, self.declared, self.limits).mend(
                found, topics, committed
            )
        swept.repairs = Repairs(self.declaration, self.cluster, self.outputs, self.limits).ask(
            topics[self.declaration.retry_topic], committed
        )
        swept.found = [one for one, _ in found]
        swept.milliseconds = round((clock.monotonic() - began) * 1000)
        return swept

    # ---- what has an outcome

    def _read_ledger(self, topic: Topic) -> None:
        account, outputs = self.account, self.outputs
        if account.ledger_id != topic.topic_id:
            account.coverage.clear()
            self.history.clear()
            outputs.clear()
            account.ledger_id, account.next_offset = topic.topic_id, 0
        at = ledger_partition(self.declaration.name, topic.partitions)
        with self.cluster.read(LEDGER_TOPIC) as reader:
            end = reader.undecided_ends()[at]
            for entry, raw in self._lines(reader, at, min(account.next_offset, outputs.next_offset), end):
                if raw.offset >= account.next_offset:
                    self.history.take(entry, account)
                    account.take(entry)
                outputs.take(entry, raw)
            account.next_offset = max(account.next_offset, end)
            again = self._lines(reader, at, outputs.next_offset, end)
            outputs.end(self.cluster, again, end, self.limits.of(account.done))

    def _lines(
        self, reader: TopicReader, partition: int, start: int, end: int
    ) -> Iterator[tuple[Mapping[str, Any], RawRecord]]:
        """The lines of the ledger that may be of this pipeline, decoded."""
        name = self.declaration.name.encode()
        for batch in reader.read({partition: start}, until={partition: end}):
            for raw in batch:
                if raw.value is not None and name in raw.value:
                    yield self.cluster.codec.decode(LEDGER_TOPIC, raw.value, raw.headers) or {}, raw

    # ---- what has none

    def _topic(self, topic: Topic, committed: Mapping[tuple[str, int], Committed]) -> list[tuple[Found, Missed]]:
        places = [(topic.name, p) for p in range(topic.partitions)]
        lows, ends = self.cluster.admin.starts(places), self.cluster.admin.ends(places, committed=True)
        found, covered = {}, {p: self.account.of(topic.topic_id, p) for _, p in places}
        for place in places:
            position, note = position_of(committed.get(place))
            one = Found(topic.name, topic.topic_id, place[1], position=position, note=note)
            one.behind = max(0, ends[place] - (position or 0))
            found[place[1]] = one
        stretches = {
            p: ranges
            for p, one in found.items()
            if one.position is not None and (ranges := covered[p].uncovered(lows[topic.name, p], one.position))
        }
        missed: dict[int, Missed] = {}
        if stretches:
            keep = max(self.limits.of(covered[p].outcomes().total()) for p in stretches) + 1
            with self.cluster.read(topic.name) as reader:
                missed = look(reader, covered, stretches, keep)
        for p, one in found.items():
            if one.position is not None:
                covered[p].prove(lows[topic.name, p], one.position)
            one.begins, one.outcomes = covered[p].begins or 0, covered[p].outcomes()
            one.missed = missed[p].total if p in missed else 0
        return [(one, missed.get(p, Missed())) for p, one in found.items()]
