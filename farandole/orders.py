"""An order: exact offsets that a pipeline is to process again, beside its live work, in an epoch of its own.

It stands on the control topic as one command, and each change of mind (pause, resume, cancel) as the same command with
another state: so whoever hears it later hears all of it. Pure.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from farandole.cascade import ALL
from farandole.control import ORDER, Command, order_id
from farandole.errors import FarandoleError
from farandole.event import RawRecord

RUNNING, PAUSED, CANCELLED, REFUSED, DONE = "running", "paused", "cancelled", "refused", "done"
OTHER_KEY, OUTSIDE, NOT_ASKED = "replay.other-key", "replay.outside", "replay.not-asked"
"""Why an event inside the offsets of an order is filtered: another record key, another time, not among those named."""
MOST = 700_000
"""Bytes of an order: a broker takes a record of a million unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Range:
    """Records ``[start, end)`` of one partition."""

    topic: str
    topic_id: str
    partition: int
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] {self.start}..{self.end}"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A range of an order; `only` are the offsets that are meant, as runs ``[first, last]``. None: all of them."""

    range: Range
    only: tuple[tuple[int, int], ...] | None = None

    def takes(self, offset: int) -> bool:
        """Whether an offset of the range is meant."""
        if self.only is None:
            return True
        at = bisect_right(self.only, (offset, offset))
        near = [run for run in self.only[max(0, at - 1) : at + 1] if run[0] <= offset <= run[1]]
        return bool(near)

    def below(self, position: int) -> int:
        """How many of the offsets that are meant lie below a position."""
        if self.only is None:
            return max(0, min(position, self.range.end) - self.range.start)
        return sum(max(0, min(position, last + 1) - first) for first, last in self.only)

    def record(self) -> dict[str, Any]:
        """As JSON has it; offsets that are meant count from the start of the range, to keep them short."""
        one = self.range
        told: dict[str, Any] = {
            "topic": one.topic,
            "topic_id": one.topic_id,
            "partition": one.partition,
            "start": one.start,
            "end": one.end,
        }
        if self.only is not None:
            told["only"] = ",".join(
                f"{a - one.start}" if a == b else f"{a - one.start}-{b - one.start}" for a, b in self.only
            )
        return told

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Stretch:
        """From JSON."""
        one = Range(told["topic"], told["topic_id"], told["partition"], told["start"], told["end"])
        if "only" not in told:
            return cls(one)
        runs = (part.partition("-") for part in told["only"].split(",") if part)
        return cls(one, tuple((one.start + int(a), one.start + int(b or a)) for a, _, b in runs))


@dataclass(frozen=True)
class Order:
    """What is to be processed again, and how. `since` and `until` are milliseconds since 1970, 0: no bound.

    `rate` is events a second over all instances and `concurrency` slots on each; 0: as the service thinks fit.
    `events` is how many the plan found, `about` says in words what was asked for.
    """

    id: str
    pipeline: str
    stretches: tuple[Stretch, ...]
    kind: str = "replay"
    about: str = ""
    key: str | None = None  # of the record, hex
    since: int = 0
    until: int = 0
    cascade: str = ALL
    rate: float = 0.0
    concurrency: int = 0
    events: int = 0
    state: str = RUNNING
    actor: str = ""
    reason: str = ""
    given_at: int = 0

    @property
    def ranges(self) -> list[Range]:
        """What is read: one range of each partition."""
        return [one.range for one in self.stretches]

    def refuses(self, raw: RawRecord) -> str:
        """Why a record inside the ranges is not asked for, or nothing."""
        stretch = self._places.get((raw.topic, raw.partition))
        if stretch is None or not stretch.takes(raw.offset):
            return NOT_ASKED
        if self.key is not None and (raw.key or b"").hex() != self.key:
            return OTHER_KEY
        early, late = self.since and raw.timestamp < self.since, self.until and raw.timestamp >= self.until
        return OUTSIDE if raw.timestamp >= 0 and (early or late) else ""

    @cached_property
    def _places(self) -> dict[tuple[str, int], Stretch]:
        return {(one.range.topic, one.range.partition): one for one in self.stretches}

    def command(self, at: int) -> Command:
        """As it stands on the control topic. Raises FarandoleError where it is too long for a record."""
        told = json.dumps(self.detail(), separators=(",", ":"))
        if len(told) > MOST:
            raise FarandoleError(
                f"the order names too many offsets one by one: {len(told)} bytes, at most {MOST}",
                place=self.pipeline,
                hint="order a shorter span, or all of it: --only all",
            )
        detail = {"order": told, "state": self.state}
        return Command(order_id(self.id), ORDER, self.pipeline, "", self.actor, self.reason, at, detail=detail)

    def detail(self) -> dict[str, Any]:
        """What does not change while it is carried out."""
        return {
            "id": self.id,
            "kind": self.kind,
            "about": self.about,
            "stretches": [one.record() for one in self.stretches],
            "key": self.key,
            "since": self.since,
            "until": self.until,
            "cascade": self.cascade,
            "rate": self.rate,
            "concurrency": self.concurrency,
            "events": self.events,
            "actor": self.actor,
            "reason": self.reason,
            "given_at": self.given_at,
        }

    @classmethod
    def of(cls, command: Command) -> Order:
        """From the control topic."""
        told = json.loads(command.detail["order"])
        return cls.read(command.pipeline, told, command.detail.get("state", RUNNING))

    @classmethod
    def read(cls, pipeline: str, told: Mapping[str, Any], state: str) -> Order:
        """From its detail; fields that a newer writer added are left out."""
        known = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
        known["stretches"] = tuple(map(Stretch.of, told["stretches"]))
        return cls(**{**known, "pipeline": pipeline, "state": state})


def runs_among(records: Iterable[tuple[int, bool]]) -> tuple[tuple[int, int], ...]:
    """Of the records of a partition, in order, those that are meant, as runs ``[first, last]``.

    Offsets between two records hold none, so a run may pass over them.

    >>> runs_among([(3, True), (5, True), (6, False), (9, True)])
    ((3, 5), (9, 9))
    """
    found: list[tuple[int, int]] = []
    goes_on = False
    for offset, meant in records:
        if meant and goes_on:
            found[-1] = (found[-1][0], offset)
        elif meant:
            found.append((offset, offset))
        goes_on = meant
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an order is. `done` counts offsets that are settled, of `total`; `epoch` None: nobody has heard of it."""

    order: Order
    epoch: int | None = None
    done: int = 0
    total: int = 0
    begun_at: int = 0
    ranges: Mapping[str, int] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """In words."""
        if self.epoch is None:
            return "given" if self.order.state == RUNNING else self.order.state
        return DONE if self.done >= self.total else self.order.state

    def seconds_left(self, now: int) -> float | None:
        """By its speed so far; None where there is nothing to go by."""
        if self.state != RUNNING or self.done <= 0 or now <= self.begun_at:
            return None
        return (self.total - self.done) * (now - self.begun_at) / 1000 / self.done
