"""What is done about outputs that are gone: their runs are computed once more, by the pipeline itself.

The events of the run go to the pipeline's retry topic, as they stand in their own; what the run gives is published only
where it is what is missing, byte for byte. A run with effects is never computed again: a person is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

from farandole.deadletter import size_of
from farandole.declaration import Declaration
from farandole.delivery import REEMITTED_HEADER, REPAIR, Delivery, retry_record
from farandole.errors import FarandoleError, Unreachable
from farandole.event import Record
from farandole.fill import declared_class, plan
from farandole.find import find_resources
from farandole.kafka.admin import Committed, Topic
from farandole.kafka.reader import TopicReader
from farandole.reconciler.cluster import Cluster, Limits, position_of
from farandole.reconciler.outputs import Lost, Outputs
from farandole.reconciler.resend import LARGEST, TIMES
from farandole.repair import asked


@dataclass(slots=True)
class Repairs:
    """The runs of one pipeline whose outputs are gone."""

    declaration: Declaration
    cluster: Cluster
    outputs: Outputs
    limits: Limits

    def ask(self, retry: Topic, committed: Mapping[tuple[str, int], Committed]) -> int:
        """Ask for what is not under way, at most so many times; how many runs. Raises Unreachable."""
        if not self.outputs.open:
            return 0
        standing = {p: position_of(committed.get((retry.name, p)))[0] for p in range(retry.partitions)}
        pure, asks = self._pure(), list[tuple[Lost, list[Record]]]()
        with ExitStack() as opened:  # one reader a topic, whatever number of events is read
            read = cache(lambda topic: opened.enter_context(self.cluster.read(topic)))
            for lost in self.outputs.open.values():
                if records := self._asked(lost, retry, standing, read, pure=pure):
                    asks.append((lost, records))
        placed = iter(self.cluster.send([record for _, records in asks for record in records]) if asks else ())
        for lost, records in asks:
            lost.sent = [(one.partition, one.offset) for one in islice(placed, len(records))]
            lost.times, lost.why = lost.times + 1, "asked for"
        return len(asks)

    def _asked(
        self,
        lost: Lost,
        retry: Topic,
        standing: Mapping[int, int | None],
        read: Callable[[str], TopicReader],
        *,
        pure: bool,
    ) -> list[Record]:
        """The records that ask for a run; none, with the reason in `lost`, where it is under way or hopeless."""
        if any((at := standing.get(p)) is None or at <= offset for p, offset in lost.sent):
            lost.why = "asked for"
            return []
        lost.why = self._hopeless(lost, pure=pure)
        if lost.why or self.limits.plan:
            return []
        try:
            records = list(self._records(lost, retry, read))
        except Unreachable:
            raise
        except FarandoleError as gone:
            lost.why = f"its event cannot be read: {gone}"
            return []
        if any(size_of(record) > LARGEST for record in records):
            lost.why = "its event is too large to be sent again"
            return []
        return records

    def _pure(self) -> bool:
        try:
            return (
                declared_class(self.declaration, plan(self.declaration, find_resources(self.declaration))) == "events"
            )
        except FarandoleError:
            return False  # its code cannot be read here

    def _hopeless(self, lost: Lost, *, pure: bool) -> str:
        if not pure:
            return "its effects stand and must not be repeated"
        return f"asked for {TIMES} times, and they did not come" if lost.times >= TIMES else ""

    def _records(self, lost: Lost, retry: Topic, read: Callable[[str], TopicReader]) -> Iterator[Record]:
        gone = asked({identity: said for identity, (_, said) in lost.outputs.items()})
        for part, (topic, partition, offset, key) in enumerate(lost.triggers, 1):
            raw = read(topic).at(partition, offset)
            at = (raw.topic, raw.topic_id, raw.partition, raw.offset, raw.timestamp)
            delivery = Delivery(REPAIR, lost.run, key, *at, outputs=gone)
            delivery = replace(delivery, part=part, parts=len(lost.triggers), join_key=lost.join_key)
            record = retry_record(retry.name, retry.partitions, raw, delivery)
            record.headers.append((REEMITTED_HEADER, str(lost.times + 1).encode()))
            yield record
