"""A partition that this instance owns: its session, its window of records, and what waits for the next commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from farandole.errors import ATTENTION, FarandoleError
from farandole.event import Record
from farandole.guard import Guard
from farandole.store.inbox import Lane, Outcome

TAKING, RUNNING, STOPPED, GONE = "taking", "running", "stopped", "gone"
GUARDED = "guard.stopped"
OPEN, ENDED, WRITTEN = 0, 1, 2


@dataclass(slots=True)
class Slot:
    """One record of the window. `reason` is set where it came to no run: why it was filtered, or ``duplicate``."""

    owned: Owned
    offset: int
    state: int = OPEN
    reason: str = ""
    noted: int = 0  # a ledger offset at or below that of its outcome, once it is written


@dataclass(slots=True)
class Ended:
    """What one ended run (or a quarantined record) puts into the next transaction, and what SQL is told after it."""

    slots: Sequence[Slot]
    records: list[Record]
    outcomes: list[Outcome] = field(default_factory=list)
    published: Sequence[str] = ()
    finished: Sequence[str] = ()
    closed_joins: Sequence[bytes] = ()
    waits: Sequence[bytes] = ()  # keys of members that it says are waiting
    cause: str | None = None  # for the guard: a dead one's fingerprint, "" for a good end, None for what is no end
    run: Any = None
    """The run it came from: where the broker refuses a record, that run is dead and its neighbours are not."""


@dataclass(slots=True, eq=False)
class Owned:
    """An assigned partition. `number` counts assignments: results of an older number are dropped."""

    topic: str
    partition: int
    number: int
    phase: str = TAKING
    lane: Lane | None = None
    session: Any = None
    window: deque[Slot] = field(default_factory=deque)
    ended: list[Ended] = field(default_factory=list)
    next_offset: int = 0  # committed
    seen: int = 0  # the next record to come
    commits: int = 0
    ledger_before: int = 0  # no entry of the transaction under way stands below this offset
    open: int = 0
    due: float = 0.0  # a moment on the monotonic clock: when to try again
    tries: int = 0
    last_commit: float = 0.0
    why: str = ""
    usurped: bool = False  # fenced by somebody who was not its owner: to be taken back at once
    leaving: bool = False  # what has not begun does not begin any more
    back: bool = False  # set back: nothing of it is read before it was placed again
    room: int = 2000  # records that may be under way; at the bound it is paused, at half of it resumed
    guard: Guard = field(default_factory=Guard)
    careful_until: int = 0  # below it one record at a time: processes died here twice in a row
    killer: int = -1  # the offset of the record that they died of

    @property
    def careful(self) -> bool:
        """Whether the next record is to be handled alone."""
        return self.phase == RUNNING and self.seen < self.careful_until

    @property
    def key(self) -> tuple[str, int]:
        """Topic and partition."""
        return (self.topic, self.partition)

    def admit(self, offset: int) -> Slot:
        """A record enters the window."""
        slot = Slot(self, offset)
        self.window.append(slot)
        self.open += 1
        self.seen = offset + 1
        return slot

    def end(self, slot: Slot, reason: str = "") -> None:
        """A record has its outcome; it is written with the next commit."""
        if slot.state == OPEN:
            slot.state, slot.reason = ENDED, reason
            self.open -= 1

    def add(self, ended: Ended) -> None:
        """A run has ended."""
        for slot in ended.slots:
            self.end(slot)
        if ended.cause is not None:
            self.guard.last.append(ended.cause)
            if ended.cause:
                self.guard.died()
        self.ended.append(ended)

    def is_due(self, now: float, records: int, interval: float) -> bool:
        """Whether to commit: by count, by interval (seconds), or at once when nothing of it is under way."""
        if self.phase != RUNNING or now < self.due or (not self.ended and self.prefix() == self.next_offset):
            return False
        ready = len(self.window) - self.open
        return self.open == 0 or ready >= records or now - self.last_commit >= interval

    def prefix(self) -> int:
        """Up to where every record has an outcome: what may be committed."""
        return next((slot.offset for slot in self.window if slot.state == OPEN), self.seen)

    def written(self) -> None:
        """The transaction with all ended records was committed: the window moves on."""
        for slot in self.window:
            if slot.state == ENDED:
                slot.state, slot.noted = WRITTEN, self.ledger_before
        while self.window and self.window[0].state == WRITTEN:
            self.window.popleft()

    def ledger_offset(self) -> int:
        """From where a successor reads the ledger: the outcomes of all records from `next_offset` on stand there."""
        ahead = (slot.noted for slot in self.window if slot.state == WRITTEN)
        return min(ahead, default=self.session.ledger_offset + 1)

    def unwritten(self) -> list[Slot]:
        """Records whose outcome waits for the next commit."""
        return [slot for slot in self.window if slot.state == ENDED]

    def fenced(self) -> None:
        """SQL says that another instance has taken it over: whatever is under way here counts for nothing."""
        self.phase, self.why = GONE, "fenced in SQL: another instance took the partition over"

    def wait(self, now: float, why: str, longest: float = 5.0) -> None:
        """Try again later: 0.2 s, doubling up to `longest`."""
        self.due = now + min(longest, 0.2 * 2.0 ** min(self.tries, 10))
        self.tries += 1
        self.why = why


class LineStopped(FarandoleError):
    """A dead-letter guard has stopped partitions: a person is needed."""

    exit_code = ATTENTION


def stopped(partitions: Sequence[Owned]) -> FarandoleError | None:
    """The error of a service that is drained but for partitions that were stopped."""
    whys = sorted(f"{o.topic}[{o.partition}] {o.why}" for o in partitions if o.phase == STOPPED)
    if not whys:
        return None
    kind = LineStopped if any(o.why.startswith(GUARDED) for o in partitions) else FarandoleError
    return kind(
        "not everything is settled, partitions are stopped:\n" + "\n".join(whys),
        hint="the facts stand in the ledger: farandole events tail farandole.ledger.v1",
    )
