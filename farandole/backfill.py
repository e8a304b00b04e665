"""Which runs of a span of data intervals are missing or have failed, and the order that brings them about.

What one run is about is known from its events: those of one join key, or of one idempotency key. Nothing needs a
schedule: the intervals stand in the events, and the ledger says what became of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

from farandole.errors import FarandoleError
from farandole.event import Interval
from farandole.orders import Order, Range, Stretch, runs_among
from farandole.planning import DONE, MISSING, Planner, Prospect, Seen

FAILED, UNDER_WAY, INCOMPLETE = "failed", "under way", "incomplete"
STATES = (DONE, MISSING, FAILED, UNDER_WAY, INCOMPLETE)
WANTED = {
    "missing": {MISSING},
    "failed": {FAILED},
    "missing,failed": {MISSING, FAILED},
    "all": {DONE, MISSING, FAILED},
}
"""What ``--only`` takes, and the states of runs that each means. What is under way or incomplete never runs again."""
_GAVE_UP = {"dead", "uncertain", "expired"}
_LISTED = 100_000


@dataclass(slots=True)
class Unit:
    """What one run is about: its interval, and what became of its events; `lacks` are signals that have not come."""

    interval: Interval
    stands: set[str] = field(default_factory=set)
    signals: set[str] = field(default_factory=set)
    lacks: bool = False

    @property
    def state(self) -> str:
        """Of the run as a whole: that of its events which went furthest."""
        if DONE in self.stands:
            return DONE
        if self.stands & _GAVE_UP:
            return FAILED
        if self.stands - {MISSING}:
            return UNDER_WAY
        return INCOMPLETE if self.lacks else MISSING


@dataclass(slots=True)
class Backfill:
    """A plan: the order, and per interval how many runs stand how. `absent` are intervals without any event."""

    prospect: Prospect
    intervals: dict[Interval, Counter[str]]
    absent: list[Interval]

    @property
    def id(self) -> str:
        """The same for the same offsets and bounds; another one where something has happened meanwhile."""
        order = self.prospect.order
        return plan_name([order.pipeline, order.cascade, *(str(one.record()) for one in order.stretches)])

    def rows(self, wanted: set[str]) -> Iterator[dict[str, Any]]:
        """The intervals in order, each with its runs by state and how many of them are ordered."""
        for interval, counted in sorted(self.intervals.items()):
            ordered = sum(counted[state] for state in wanted)
            named = {state.replace(" ", "_"): counted[state] for state in STATES}
            yield {"interval": str(interval), **named, "ordered": ordered}


def plan_name(told: Iterable[str]) -> str:
    """What a plan is called: the same for the same plan."""
    return blake2b("\n".join(told).encode(), digest_size=4).hexdigest()


def plan_backfill(planner: Planner, order: Order, start: datetime, end: datetime, only: str) -> Backfill:
    """The runs about intervals that begin in ``[start, end)``, and the order for those that are wanted.

    Raises FarandoleError where no event of the pipeline has a data interval; Unreachable.
    """
    whole = replace(order, stretches=tuple(map(Stretch, planner.ranges())))
    units: dict[bytes, Unit] = {}
    places: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
    prospect = Prospect(order, notes=planner.notes)
    without = 0
    for seen in planner.seen(whole):
        interval = _interval(seen)
        name = b""
        if seen.event is not None and interval is None:
            without += 1
        elif interval is not None and start <= interval.start < end:
            name = planner.unit(seen)
            _add(units.setdefault(name, Unit(interval)), seen, planner)
        places.setdefault((seen.raw.topic, seen.raw.partition), []).append((seen.raw.offset, name))
    if without and not units:
        raise FarandoleError(
            f"the events of {order.pipeline} have no data interval",
            place=order.pipeline,
            hint="process them again by the time at which they came: farandole replay",
        )
    chosen = {name for name, unit in units.items() if unit.state in WANTED[only]}
    stretches = tuple(_stretches(whole.ranges, places, chosen))
    prospect.events = prospect.records = sum(name in chosen for place in places.values() for _, name in place)
    prospect.before = Counter(unit.state for unit in units.values())
    prospect.runs = len(chosen)
    prospect.order = replace(order, stretches=stretches, events=prospect.events)
    intervals: dict[Interval, Counter[str]] = {}
    for unit in units.values():
        intervals.setdefault(unit.interval, Counter())[unit.state] += 1
    return Backfill(prospect, intervals, absent(intervals, start, end))


def _add(unit: Unit, seen: Seen, planner: Planner) -> None:
    unit.stands.add(seen.stands)
    unit.signals.add(seen.signal)
    unit.lacks = planner.declaration.join is not None and len(unit.signals) < len(planner.matcher.needed)


def _interval(seen: Seen) -> Interval | None:
    found = seen.event.value.get("interval") if seen.event is not None else None
    return Interval.of(found) if isinstance(found, Mapping) and {"start", "end"} <= found.keys() else None


def _stretches(
    ranges: Iterable[Range], places: Mapping[tuple[str, int], list[tuple[int, bytes]]], chosen: set[bytes]
) -> Iterator[Stretch]:
    """The ranges, cut to what is chosen of them."""
    for one in ranges:
        runs = runs_among((offset, name in chosen) for offset, name in places.get((one.topic, one.partition), ()))
        if runs:
            yield Stretch(replace(one, start=runs[0][0], end=runs[-1][1] + 1), runs)


def absent(known: Iterable[Interval], start: datetime, end: datetime) -> list[Interval]:
    """Intervals of ``[start, end)`` that nothing is told about, where all that are known have one length."""
    begins = {one.start: one.end - one.start for one in known}
    lengths = set(begins.values())
    if len(lengths) != 1:
        return []
    (length,) = lengths
    if length <= timedelta(0) or (end - start) / length > _LISTED:
        return []
    first = min(begins)
    at = first - ((first - start) // length) * length
    found = []
    while at < end:
        if at not in begins:
            found.append(Interval(at, at + length))
        at += length
    return found
