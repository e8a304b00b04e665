"""Records without an outcome: found where the ledger says nothing, and told from offsets that hold no record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from farandole.delivery import REEMITTED, REEMITTED_HEADER, Delivery, delivered
from farandole.errors import Undecodable
from farandole.event import RawRecord
from farandole.kafka.reader import TopicReader
from farandole.reconciler.coverage import Coverage, Ranges

NEAR = 10_000
"""Stretches that are nearer to each other are read as one: a seek costs more than so many records."""


@dataclass(slots=True)
class Missed:
    """Of one partition: how many records have no outcome, and the first of them, whole."""

    total: int = 0
    records: list[RawRecord] = field(default_factory=list)


def look(
    reader: TopicReader, coverage: Mapping[int, Coverage], stretches: Mapping[int, Ranges], keep: int
) -> dict[int, Missed]:
    """What stands in the stretches of each partition, all partitions side by side; at most `keep` of each are kept.

    Offsets that hold no record are told to the coverage: nobody reads them again.
    """
    found = {partition: Missed() for partition in stretches}
    for together in zip_longest(*(_merged(ranges) for ranges in stretches.values())):
        spans = {p: span for p, span in zip(stretches, together, strict=True) if span is not None}
        at = {p: start for p, (start, _) in spans.items()}
        ends = {p: end for p, (_, end) in spans.items()}
        for batch in reader.read(dict(at), until=ends):
            for raw in batch:
                covered = coverage[raw.partition]
                covered.empty(range(at[raw.partition], raw.offset))
                at[raw.partition] = raw.offset + 1
                if not covered.covers(raw.offset):
                    mine = found[raw.partition]
                    mine.total += 1
                    if len(mine.records) < keep:
                        mine.records.append(raw)
        for p, end in ends.items():
            coverage[p].empty(range(at[p], end))
    return found


def _merged(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for start, end in ranges:
        if merged and start - merged[-1][1] < NEAR:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that a reconciler has sent before: where its delivery stands, and the how manieth it was."""

    partition: int
    offset: int
    number: int


Place = tuple[str, int, int]
"""A topic's UUID, a partition and an offset: where an event stands."""


def sent_before(read: Callable[[str], TopicReader], topic: str) -> dict[Place, list[Sent]]:
    """Every delivery of a missed event that the retry topic still holds, by the place of the event.

    The topic itself is the memory of all reconcilers: they need no other, and see each other's work.
    """
    found: dict[Place, list[Sent]] = {}
    with read(topic) as reader:
        for batch in reader.read(reader.starts(), until=reader.undecided_ends()):
            for raw, delivery, number in _reemitted(batch):
                place = (delivery.topic_id, delivery.partition, delivery.offset)
                found.setdefault(place, []).append(Sent(raw.partition, raw.offset, number))
    return found


def _reemitted(batch: Sequence[RawRecord]) -> Iterator[tuple[RawRecord, Delivery, int]]:
    for raw in batch:
        number = dict(raw.headers).get(REEMITTED_HEADER)
        if number is None or not number.isdigit():
            continue
        try:
            delivery, _ = delivered(raw)
        except Undecodable:
            continue  # nothing of ours: the pipeline makes a letter of it
        if delivery.kind == REEMITTED:
            yield raw, delivery, int(number)
