"""How one expectation stands: written ahead, closed by what comes, judged at its deadline and grace. Pure.

A row has a state and, apart from it, how far the telling of its absence is. Whoever reads rows in the order of the
topic and folds them with :func:`merged` comes to the same rows, however many sentinels wrote them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from farandole.event import Interval

State = Literal["pending", "missed", "met", "met_late", "waived"]
RANKS: dict[str, int] = {"pending": 0, "missed": 1, "met": 2, "met_late": 2, "waived": 2}
CLOSED = 2
"""The rank from which on a state is left for no other."""
TELLING = ("", "alerting", "alerted", "resolving", "resolved")
"""How far telling is. Who is about to tell says so first (``alerting``), so that others let it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something came: a run was done, an event landed. `at` is the broker's time, `proof` the id of run or event."""

    at: datetime
    interval: Interval | None
    proof: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """One deadline of an expectation, as the topic keeps it. `id` is its record key."""

    id: str
    expectation: str
    name: str
    deadline: datetime
    window: Interval
    day: str = ""
    grace: timedelta = timedelta()
    interval: Interval | None = None
    pipeline: str = ""
    event_type: str = ""
    where: str = ""
    state: State = "pending"
    arrived_at: datetime | None = None
    proof: tuple[str, ...] = ()
    actor: str = ""
    reason: str = ""
    telling: str = ""
    teller: str = ""
    attempt: int = 0

    @property
    def key(self) -> bytes:
        """The record key on the topic."""
        return self.id.encode()

    @property
    def closed(self) -> bool:
        """Whether nothing is waited for any more."""
        return RANKS[self.state] >= CLOSED

    @property
    def alarm_at(self) -> datetime:
        """When it counts as missed, if nothing has come."""
        return self.deadline + self.grace

    def record(self) -> dict[str, Any]:
        """The Avro record."""
        return {
            "id": self.id,
            "expectation": self.expectation,
            "name": self.name,
            "pipeline": self.pipeline,
            "event_type": self.event_type,
            "where": self.where,
            "day": self.day,
            "deadline": self.deadline,
            "grace_seconds": self.grace.total_seconds(),
            "interval": None if self.interval is None else self.interval.record(),
            "window": self.window.record(),
            "state": self.state,
            "arrived_at": self.arrived_at,
            "proof": list(self.proof),
            "actor": self.actor,
            "reason": self.reason,
            "telling": self.telling,
            "teller": self.teller,
            "attempt": self.attempt,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Expectation:
        """From a decoded Avro record; a state that a newer writer invented counts as pending."""
        known = {name: record[name] for name in cls.__slots__ if name in record}
        known["grace"] = timedelta(seconds=record["grace_seconds"])
        known["window"] = Interval.of(record["window"])
        known["interval"] = None if record["interval"] is None else Interval.of(record["interval"])
        known["proof"] = tuple(record["proof"])
        known["state"] = record["state"] if record["state"] in RANKS else "pending"
        return cls(**known)


def merged(standing: Expectation | None, later: Expectation) -> Expectation:
    """What stands after `later` was read: state and telling each go forward only, and of equals the first stays."""
    if standing is None:
        return later
    both = later if RANKS[later.state] > RANKS[standing.state] else standing
    if both.state == "pending":
        both = later  # grace or window may have been declared anew
    tells = later if _told(later) > _told(standing) else standing
    return replace(both, telling=tells.telling, teller=tells.teller, attempt=tells.attempt)


def _told(row: Expectation) -> tuple[int, int]:
    return TELLING.index(row.telling) if row.telling in TELLING else 0, row.attempt


def answers(row: Expectation, arrival: Arrival) -> bool:
    """Whether this is a part, or all, of what the row waits for."""
    if row.interval is not None and arrival.interval is not None:
        return arrival.interval.start < row.interval.end and row.interval.start < arrival.interval.end
    return row.window.start < arrival.at <= row.window.end


def arrived(row: Expectation, came: Sequence[Arrival]) -> Expectation:
    """The row after all that came for it, in order: closed as soon as its interval is covered, otherwise as it was."""
    if row.closed:
        return row
    pieces: list[Interval] = []
    proof: list[str] = []
    for arrival in came:
        proof.append(arrival.proof)
        if row.interval is not None and arrival.interval is not None:
            pieces.append(arrival.interval)
            if not covered(row.interval, pieces):
                continue
        # what was missed once comes late, whatever the clocks say
        late = row.state == "missed" or arrival.at > row.deadline
        kept = tuple(proof[-_PROOFS:])
        return replace(row, state="met_late" if late else "met", arrived_at=arrival.at, proof=kept)
    return row


_PROOFS = 48  # ids that a row names at most: the hours of a long day, twice


def covered(whole: Interval, pieces: Collection[Interval]) -> bool:
    """Whether the pieces leave nothing of the whole out."""
    reached = whole.start
    for piece in sorted(pieces):
        if piece.start > reached:
            break
        reached = max(reached, piece.end)
    return reached >= whole.end


def judged(row: Expectation, now: datetime) -> Expectation:
    """The row at that time: what is still pending at deadline and grace is missed."""
    if row.state == "pending" and now >= row.alarm_at:
        return replace(row, state="missed")
    return row


def waived(row: Expectation, actor: str, reason: str) -> Expectation:
    """The row that a person has taken off the books. What came stays what it is."""
    return row if row.closed else replace(row, state="waived", actor=actor, reason=reason)


def due_telling(rows: Sequence[Expectation]) -> list[tuple[Expectation, Literal["missed", "resolved"]]]:
    """What is to be told of the rows of one expectation, in the order of their deadlines.

    One absence is one cause: of rows that are missed in a row, the first is told. It is resolved when it is closed,
    or, where any arrival will do, when something came for a later one.
    """
    tells: list[tuple[Expectation, Literal["missed", "resolved"]]] = []
    silent = False  # whether the row before is missed
    last = max((at for at, row in enumerate(rows) if row.state in ("met", "met_late")), default=-1)
    for at, row in enumerate(rows):
        gone = row.state == "missed"
        if gone and not silent and row.telling in ("", "alerting"):
            tells.append((row, "missed"))
        over = row.closed or (row.interval is None and last > at)
        if over and row.telling in ("alerted", "resolving"):
            tells.append((row, "resolved"))
        if row.state != "waived":
            silent = gone
    return tells
