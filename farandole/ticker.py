"""The clock: tells the ticks of declared schedules to their topic, and remembers nothing but what stands there.

Any number of clocks may tell the same schedules. Each tells the ticks of a schedule in order, one at a time, so
whatever stands in the topic has all before it that were to be told: the newest tick is the position from which any
other goes on. A tick that two tell at once is one event by its id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice, zip_longest
from typing import Any

from farandole.clock import Clock, iso
from farandole.errors import Unreachable
from farandole.event import Envelope, RawRecord, Record
from farandole.kafka.reader import TopicReader
from farandole.sources.schedule import EVENT_SOURCE, ON_TIME, Schedule, Tick, due, told
from farandole.topics import TICKS

LOOK = 0.1
"""Seconds between two looks at the time."""
AT_ONCE = 50
"""Ticks of a schedule that are told before the topic is looked at again: another clock may catch up as well."""
BACKOFF = 2.0
_WINDOW = 1_000  # records of a partition, from its end

Encode = Callable[[str, dict[str, Any]], bytes]


class Ticker:
    """Tells the ticks of schedules, each as soon as it is due and does not stand in the topic yet.

    `hold` is how far (seconds) it lets the others go first; `send` returns when all is acknowledged, and raises
    Unreachable otherwise. The reader stays the caller's to close.
    """

    def __init__(
        self,
        schedules: Collection[Schedule],
        reader: TopicReader,
        encode: Encode,
        send: Callable[[Sequence[Record]], object],
        clock: Clock,
        say: Callable[..., None],
        *,
        hold: float = 0.0,
    ) -> None:
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._reader, self._encode, self._send, self._clock, self._say = reader, encode, send, clock, say
        self._hold = hold
        self._last: dict[str, datetime] = {}
        self._next: dict[str, datetime] = {}
        self.turned: Callable[[], None] = lambda: None
        """Told each time the work goes round."""

    def run(self, stop: threading.Event, *, until_drained: bool = False) -> None:
        """Tell ticks until `stop` is set; with `until_drained` until none is due. What is away is waited for."""
        while not stop.is_set():
            try:
                ends = self._reader.ends()
                self._last = last_ticks(self._reader, self._schedules, ends, self._clock.now())
                if until_drained:
                    while self.tell(stop):
                        pass
                    return
                self._follow(ends, stop)
            except Unreachable as away:
                self._say("clock.waits", why=str(away))
                stop.wait(BACKOFF)

    def _follow(self, offsets: Mapping[int, int], stop: threading.Event) -> None:
        for batch in self._reader.read(offsets, wait=LOOK):
            self.heard(batch)
            self.tell(stop)
            self.turned()
            if stop.is_set():
                return

    def heard(self, batch: Iterable[RawRecord]) -> None:
        """Note the ticks that were told, by whomever."""
        for name, nominal in ticks_of(batch, self._clock.now()):
            self._last[name] = max(nominal, self._last.get(name, nominal))

    def tell(self, stop: threading.Event) -> int:
        """Tell the ticks that are due, AT_ONCE of each schedule at most; how many there were."""
        now = self._clock.now() - timedelta(seconds=self._hold)
        waiting = [self._waiting(schedule, now) for schedule in self._schedules.values()]
        count = 0
        # one of each schedule at a time: of two on their way, the first could be lost and the second stand
        for abreast in zip_longest(*waiting):
            if stop.is_set():
                break
            ticks = [tick for tick in abreast if tick is not None]
            self._send([self._record(tick, tick.late(now)) for tick in ticks])
            self._last.update({tick.schedule: tick.nominal for tick in ticks})
            for tick in ticks:
                self._say("clock.ticked", schedule=tick.schedule, nominal=iso(tick.nominal), id=tick.id)
            count += len(ticks)
        return count

    def _waiting(self, schedule: Schedule, now: datetime) -> list[Tick]:
        if now < self._next.get(schedule.name, now):
            return []
        found = list(islice(due(schedule, self._last.get(schedule.name), now), AT_ONCE))
        if not found:
            self._next[schedule.name] = next(schedule.ticks(now)).nominal
        return found

    def _record(self, tick: Tick, caught_up: bool) -> Record:  # noqa: FBT001
        subject = f"{tick.schedule}/{iso(tick.nominal)}"
        envelope = Envelope(tick.id, EVENT_SOURCE, TICKS, iso(tick.nominal), subject, tick.id)
        headers: list[tuple[str, bytes | None]] = [*envelope.headers()]
        if caught_up:
            # a header, not a field: it depends on who tells, and an event that says two things is a dead letter
            headers.append(("ce_catchup", b"true"))
        return Record(TICKS, tick.schedule.encode(), self._encode(TICKS, tick.record()), headers)


def ticks_of(records: Iterable[RawRecord], now: datetime) -> Iterator[tuple[str, datetime]]:
    """Schedule and nominal time of the ticks among records. One that is still to come proves but a wrong clock."""
    for record in records:
        tick = told(record)
        if tick is not None and tick[1] <= now + ON_TIME:
            yield tick


def last_ticks(
    reader: TopicReader, names: Collection[str], ends: Mapping[int, int], now: datetime
) -> dict[str, datetime]:
    """The newest tick of each of these schedules below `ends`; read from there backwards, as far as needed."""
    starts, above, window = reader.starts(), dict(ends), _WINDOW
    found: dict[str, datetime] = {}
    while True:
        below = {partition: max(starts[partition], end - window) for partition, end in ends.items()}
        for batch in reader.read(below, until=above):
            for name, nominal in ticks_of(batch, now):
                found[name] = max(nominal, found.get(name, nominal))
        if found.keys() >= set(names) or all(below[p] <= starts[p] for p in below):
            return {name: nominal for name, nominal in found.items() if name in names}
        above, window = below, window * 8
