"""One line of the ledger: where a run stands, or what became of a range of records, or a fact about a pipeline.

Written once per run on the hot path, so the parts of an entry are plain dicts in the shape of the Avro
schema (typed below) and :meth:`Entry.record` only names them. Imports neither Kafka nor SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, TypedDict

from farandole import topics
from farandole.event import Interval
from farandole.ids import spread

LEDGER_TOPIC = topics.LEDGER
"""The compacted topic of all entries; its key is the entry's `id`, its partition follows the group."""

RANKS: dict[str, int] = {
    "landed": 0,
    "claimed": 1,
    "waiting": 2,
    "parked": 3,
    "uncertain": 4,
    "dead": 4,
    "resolved": 5,
    "expired": 6,
    "filtered": 6,
    "duplicate": 6,
    "skipped": 6,
    "joined": 6,
    "caught": 6,
    "done": 6,
}
"""The order of the states within one life of a run."""

FINAL = 5
"""From this rank on a state is left by nothing of a lower rank, whatever life that claims to be."""


GAP, GAP_CLOSED = "data.gap", "gap.closed"
"""The fact that a pipeline has lost the records ``[from, to)`` of a partition, and the one that a person knows it."""

BOOKS_CLOSED = "books.closed"
"""The fact that a person has closed the books of an interval, with the signed statement."""

BEGAN = "partition.began"
"""The fact that a pipeline begins to read a partition at this offset: what stands below was never meant for it."""

ACCEPTED = "topic.accepted"
"""The fact that it goes on with a topic that was created anew, from its first offset."""

Moment = datetime | int | None
"""A time as Avro takes it: a datetime, or milliseconds since 1970. Read back it is a datetime."""


class Origin(TypedDict):
    """An event that made the run start: which signal it was, where it stands, and what it said."""

    signal: str
    topic: str
    topic_id: str
    partition: int
    offset: int
    event_id: str
    event_source: str
    event_type: str
    digest: bytes
    derived: bool


class StepTaken(TypedDict):
    """One step of the run. `reused` says that its result came from a checkpoint of an earlier attempt.

    `version` is that of the code that gave the result, or failed to.
    """

    name: str
    state: str
    attempts: int
    started_at: Moment
    ended_at: Moment
    error: str | None
    reused: bool
    version: str


class Emitted(TypedDict):
    """An event that the run put on a topic, in the same transaction as this entry."""

    topic: str
    id: str
    type: str
    digest: bytes


class Header(TypedDict):
    """A header of the event that waits in a join, as it was read."""

    name: str
    value: bytes | None


class Span(TypedDict):
    """What became of the records ``[start, end)`` of one partition that came to no run: by reason, their offsets."""

    topic: str
    topic_id: str
    partition: int
    start: int
    end: int
    filtered: dict[str, list[int]]
    duplicates: list[int]


def reason(class_name: str, message: str, fingerprint: str, stage: str, step: str) -> dict[str, str]:
    """The `error` of an entry."""
    return {"class": class_name, "message": message, "fingerprint": fingerprint, "stage": stage, "step": step}


def ledger_schema() -> dict[str, Any]:
    """The Avro schema of an entry, as this version writes and reads it."""
    return topics.own_schemas()[LEDGER_TOPIC]


@dataclass(slots=True)
class Entry:
    """One line of the ledger, kind ``run``, ``range`` or ``fact``; the topic keeps the newest per `id`."""

    kind: Literal["run", "range", "fact"]
    pipeline: str
    id: str
    epoch: int = 0
    state: str = ""
    life: int = 0
    keys: list[bytes] = field(default_factory=list)
    triggers: list[Origin] = field(default_factory=list)
    okey: bytes | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    interval: Interval | None = None
    steps: list[StepTaken] = field(default_factory=list)
    outputs: list[Emitted] = field(default_factory=list)
    error: dict[str, str] | None = None  # see `reason`
    version: str = ""
    instance: str = ""
    fence: int = 0
    started_at: Moment = None
    ended_at: Moment = None
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""
    join_key: str | None = None
    payload: bytes | None = None  # of an event that waits: what a taking-over instance needs to go on
    payload_key: bytes | None = None
    headers: list[Header] = field(default_factory=list)
    via: list[str] = field(default_factory=list)
    """The retry records (topic id/partition/offset) that brought it: one for each event of a run that was parked, or
    the one of a member that was missed, where it waits, is joined, or completes its set."""
    attempt: int = 0  # of a parked run: the next one
    due: Moment = None  # of a parked run: not before
    span: Span | None = None
    fact: str | None = None
    detail: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The Avro record of this entry. Its parts are shared, not copied."""
        return {
            "kind": self.kind,
            "pipeline": self.pipeline,
            "epoch": self.epoch,
            "id": self.id,
            "state": self.state,
            "life": self.life,
            "keys": self.keys,
            "triggers": self.triggers,
            "okey": self.okey,
            "parameters": self.parameters,
            "interval": None if self.interval is None else {"start": self.interval.start, "end": self.interval.end},
            "steps": self.steps,
            "outputs": self.outputs,
            "error": self.error,
            "version": self.version,
            "instance": self.instance,
            "fence": self.fence,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
            "traceparent": self.traceparent,
            "join_key": self.join_key,
            "payload": self.payload,
            "payload_key": self.payload_key,
            "headers": self.headers,
            "via": self.via,
            "attempt": self.attempt,
            "due": self.due,
            "span": self.span,
            "fact": self.fact,
            "detail": self.detail,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Entry:
        """From a decoded Avro record; fields that a newer writer added are left out."""
        known = {name: record[name] for name in cls.__slots__ if name in record}
        if known.get("interval") is not None:
            known["interval"] = Interval.of(known["interval"])
        return cls(**known)

    @property
    def key(self) -> bytes:
        """The record key on the topic."""
        return self.id.encode()


def place_of(via: str) -> tuple[str, int, int]:
    """Topic UUID, partition and offset of a record that an entry names in `via`.

    >>> place_of("gT0b7/1/42")
    ('gT0b7', 1, 42)
    """
    topic_id, partition, offset = via.rsplit("/", 2)
    return topic_id, int(partition), int(offset)


def rank(state: str) -> int:
    """How far a state is within one life; a state that a newer writer invented counts as landed."""
    return RANKS.get(state, 0)


def newer(later: Entry, standing: Entry) -> bool:
    """Whether an entry that was read after `standing` takes its place.

    The higher (life, rank) stands, then the later one; what is final is left only for the same or higher rank.
    """
    return outranks((later.life, later.state), (standing.life, standing.state))


def outranks(later: tuple[int, str], standing: tuple[int, str]) -> bool:
    """:func:`newer` for life and state alone."""
    high, low = rank(later[1]), rank(standing[1])
    if low >= FINAL and high < low:
        return False
    return (later[0], high) >= (standing[0], low)


@lru_cache(maxsize=1024)
def ledger_partition(group: str, partitions: int) -> int:
    """The ledger partition of a pipeline: all its entries stand in one, as Java's default partitioner would put them.

    >>> ledger_partition("mart-delays", 1)
    0
    """
    return spread(group.encode(), partitions)
