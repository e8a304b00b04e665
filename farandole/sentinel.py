"""The sentinel: writes expectations ahead, closes them by what comes, and has it told what did not come.

A sweep reads the topics to their ends before it judges, with the time from before it read; so what came in time is
never missed, and where Kafka is away nothing is judged. All that it knows stands in the topic: several sentinels,
or one that is started again, come to the same rows, and who takes an absence on first tells it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Literal

from farandole.clock import Clock, iso
from farandole.errors import FarandoleError, Unreachable
from farandole.expectation import Arrival, Expectation, answers, arrived, due_telling, judged
from farandole.kafka.expectations import Expectations
from farandole.sources.deadlines import Deadline, Expected, deadlines

LOOK = 1.0
"""Seconds between two sweeps."""
BACKOFF = 2.0
AHEAD = timedelta(days=2)
"""How far ahead expectations are written, and the next two of each in any case."""
WATCHED = timedelta(days=35)
"""How long something that is missed is still waited for; later only a person closes it."""
LEASE = 60.0
"""Seconds after which another one tells what the first has taken on, and what failed is tried again."""

Kind = Literal["missed", "resolved"]
Tell = Callable[[Expectation, Kind], None]
"""Tells people. Raises FarandoleError where that did not work."""
_CLAIMED: dict[Kind, str] = {"missed": "alerting", "resolved": "resolving"}
_TOLD: dict[Kind, str] = {"missed": "alerted", "resolved": "resolved"}


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Where things arrive: `fresh` gives whose (pipeline, event type and value) came, `rewind` goes back to a time."""

    fresh: Callable[[], Iterable[tuple[Callable[[Expectation], bool], Arrival]]]
    rewind: Callable[[int], None]


class Sentinel:
    """Keeps the rows of what is `expected`. `name` tells this sentinel from others."""

    def __init__(
        self,
        expected: Collection[Expected],
        book: Expectations,
        sources: Sequence[Arrivals],
        tell: Tell,
        clock: Clock,
        say: Callable[..., None],
        *,
        name: str,
    ) -> None:
        self._expected = {one.id: one for one in expected}
        self._book, self._sources, self._tell, self._clock, self._say = book, sources, tell, clock, say
        self._name = name
        self._came: defaultdict[str, dict[str, Arrival]] = defaultdict(dict)
        self._begun = False
        self._tried: set[tuple[str, str, int]] = set()
        self._seen: dict[tuple[str, str, int], float] = {}
        self.turned: Callable[[], None] = lambda: None
        """Told each time the work goes round."""

    def run(self, stop: threading.Event, *, until_drained: bool = False) -> None:
        """Sweep until `stop` is set; with `until_drained` until nothing is left to do. What is away is waited for."""
        while not stop.is_set():
            try:
                busy = self.sweep()
                self.turned()
                if until_drained and not busy:
                    return
                stop.wait(0 if busy else LOOK)
            except Unreachable as away:
                self._say("sentinel.waits", why=str(away))
                stop.wait(BACKOFF)

    def sweep(self) -> bool:
        """Look once; whether anything was written. Raises Unreachable."""
        now = self._clock.now()
        self._book.read()
        if not self._begun:
            self._begin(now)
        new = list(self._ahead(now))
        self._go_back(new, now)
        self._hear([*self._waiting(now), *new])
        changed = {row.id: row for row in new}
        for row in [*self._waiting(now), *new]:
            moved = judged(arrived(row, self._in_order(row)), now)
            if moved != row:
                changed[row.id] = moved
                if moved.state != row.state:
                    self._say(f"expectation.{moved.state}", name=row.name, deadline=iso(row.deadline), id=row.id)
        for one in self._book.crooked - changed.keys():
            changed[one] = self._book.rows[one]
        if changed:
            self._book.write(changed.values())
        for one in [one for one in self._came if one in self._book.rows and self._book.rows[one].closed]:
            del self._came[one]
        return self._telling() or bool(changed)

    def _begin(self, now: datetime) -> None:
        """What is not expected any more, and was not due yet, ends here. Only now: an older sentinel may still run."""
        gone = [
            row.id
            for row in self._book.rows.values()
            if row.state == "pending" and row.deadline > now and row.expectation not in self._expected
        ]
        if gone:
            self._book.forget(gone)
            self._book.read()
        self._go_back(self._waiting(now), now)
        self._begun = True

    def _ahead(self, now: datetime) -> Iterator[Expectation]:
        """The rows that are not written yet, from the last one that is, or from now on."""
        last: dict[str, datetime] = {}
        for row in self._book.rows.values():
            last[row.expectation] = max(row.deadline, last.get(row.expectation, row.deadline))
        for one in self._expected.values():
            after = max(last.get(one.id, now), now - WATCHED)
            least = len(list(islice(self._later(one.id, now), 2)))
            for deadline in deadlines(one.expect, after):
                if least >= 2 and deadline.at > now + AHEAD:  # noqa: PLR2004 - the next two
                    break
                least += deadline.at > now
                yield row_of(one, deadline)
        yield from self._renewed(now)

    def _later(self, expectation: str, now: datetime) -> Iterator[Expectation]:
        return (r for r in self._book.rows.values() if r.expectation == expectation and r.deadline > now)

    def _renewed(self, now: datetime) -> Iterator[Expectation]:
        """Rows that wait, and whose grace was declared anew."""
        for row in self._waiting(now):
            expected = self._expected.get(row.expectation)
            if expected is not None and row.state == "pending" and row.grace != expected.grace:
                yield replace(row, grace=expected.grace)

    def _waiting(self, now: datetime) -> list[Expectation]:
        return [row for row in self._book.rows.values() if not row.closed and row.deadline > now - WATCHED]

    def _go_back(self, rows: Collection[Expectation], now: datetime) -> None:
        """What these rows wait for may have come already: read from where that could begin."""
        begins = [min(row.window.start, *([row.interval.start] if row.interval else [])) for row in rows]
        if begins and min(begins) < now:
            for source in self._sources:
                source.rewind(round(min(begins).timestamp() * 1000))

    def _hear(self, rows: Collection[Expectation]) -> None:
        for source in self._sources:
            for is_of, arrival in source.fresh():
                for row in rows:
                    if is_of(row) and answers(row, arrival):
                        self._came[row.id][arrival.proof] = arrival

    def _in_order(self, row: Expectation) -> list[Arrival]:
        return sorted(self._came[row.id].values(), key=lambda one: (one.at, one.proof)) if row.id in self._came else []

    def _telling(self) -> bool:
        """Tell what is missed or has come after all: take it on, and tell it when it is known that nobody else did."""
        by_cause: defaultdict[str, list[Expectation]] = defaultdict(list)
        for row in self._book.rows.values():
            by_cause[row.expectation].append(row)
        claims = [
            claim
            for rows in by_cause.values()
            for row, kind in due_telling(sorted(rows, key=lambda one: one.deadline))
            if (claim := self._tell_one(row, kind)) is not None
        ]
        if claims:
            self._book.write(claims)
        return bool(claims)

    def _tell_one(self, row: Expectation, kind: Kind) -> Expectation | None:
        if row.telling != _CLAIMED[kind]:
            return replace(row, telling=_CLAIMED[kind], teller=self._name, attempt=1)
        claim = row.id, row.telling, row.attempt
        if row.teller == self._name and claim not in self._tried:
            self._tried.add(claim)
            try:
                self._tell(row, kind)
            except FarandoleError as error:
                self._say("alert.failed", name=row.name, id=row.id, kind=kind, why=str(error))
            else:
                self._say("alert.sent", name=row.name, id=row.id, kind=kind)
                return replace(row, telling=_TOLD[kind])
        if self._clock.monotonic() - self._seen.setdefault(claim, self._clock.monotonic()) < LEASE:
            return None
        return replace(row, teller=self._name, attempt=row.attempt + 1)


def row_of(expected: Expected, deadline: Deadline) -> Expectation:
    """The row of one deadline, before anything has come."""
    return Expectation(
        id=f"{expected.id} {iso(deadline.at)}",
        expectation=expected.id,
        name=expected.name,
        deadline=deadline.at,
        window=deadline.window,
        day=deadline.day.isoformat(),
        grace=expected.grace,
        interval=deadline.interval,
        pipeline=expected.pipeline,
        event_type=expected.event_type,
        where=expected.where,
    )
