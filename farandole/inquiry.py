"""The evidence on why a pipeline did or did not run: from the projection, the broker's offsets, topics and commands.

Offsets are read before the projection is asked: what lies below them has an outcome in the ledger, and the answer says
so where the projection does not know it yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from farandole.clock import Clock
from farandole.declaration import Declaration, Subscription
from farandole.event import Interval, Position
from farandole.kafka.permissions import Denied, reads_of
from farandole.ledger import evidence as ask
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.ledger.gaps import gaps
from farandole.ledger.projection import positions
from farandole.ledger.queries import Answer
from farandole.ledger.status import stopped
from farandole.scan import Scanner, Seen, clauses_of, meets, narrowed, refusal
from farandole.sources.deadlines import deadlines
from farandole.sources.schedule import Schedule
from farandole.topics import TICKS
from farandole.why import Evidence, Input, Landed, Verdict, decide

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from farandole.kafka.admin import Committed

_DAY = timedelta(days=1)
_WEEK = 10 * _DAY  # the next deadline after a long weekend lies within it


@dataclass(slots=True)
class Inquiry:
    """One question, asked of the servers. `paused` gives the command that holds a pipeline, `projection` connects.

    `denied` says what a pipeline needs and may not do.
    """

    scanner: Scanner
    projection: Callable[[], AbstractContextManager[Connection]]
    declared: Mapping[str, Declaration]
    schedules: Sequence[Schedule]
    paused: Callable[[str], Mapping[str, Any] | None]
    clock: Clock
    denied: Callable[[Declaration], Sequence[Denied]] = lambda _: ()

    def verdict(
        self, pipeline: str, interval: Interval, clauses: Sequence[str] = (), asked: frozenset[str] = frozenset()
    ) -> Verdict:
        """Why. `clauses` narrow the question to events that meet them, where it comes from a pipeline further down."""
        declaration = self.declared[pipeline]
        found = self.evidence(declaration, interval, clauses)
        if part := _left(found):
            interval, found = part, self.evidence(declaration, part, clauses)

        def upstream(who: str, one: Input) -> Verdict:
            where = next(s.where for s in declaration.subscriptions if s.signal == one.signal)
            return self.verdict(who, interval, (*clauses, *clauses_of(where)), asked | {pipeline})

        without = asked | {pipeline}
        inputs = tuple(replace(i, producers=tuple(p for p in i.producers if p not in without)) for i in found.inputs)
        return decide(replace(found, inputs=inputs), upstream)

    def evidence(self, declaration: Declaration, interval: Interval, clauses: Sequence[str] = ()) -> Evidence:
        """What is known of a pipeline and an interval. Raises Unreachable."""
        name, now = declaration.name, self.clock.now()
        lacking = [one for one in self.denied(declaration) if not one.own or one.right in reads_of(declaration)]
        denied = tuple(map(str, lacking))
        if any(one.own for one in lacking):  # who asks may not look, nor may a pipeline that connects as he does
            return Evidence(name, interval, now, denied=denied)
        admin = self.scanner.admin
        committed = admin.committed(name)
        instances = admin.group(name).members
        lag, told = self._lag(declaration, committed), self._told(name)
        seen = {s.signal: self._seen(s, interval, clauses) for s in declaration.subscriptions}
        with self.projection() as conn:
            read = positions(conn)
            known = _Known(conn, declaration, interval, committed)
            inputs = tuple(self._input(known, s, seen) for s in declaration.subscriptions)
            runs = _distinct([*self._runs(known, inputs, clauses), *known.taken()])
            lost = [
                g for g in gaps(conn, name, closed=True) if datetime.fromisoformat(g["recorded_at"]) > interval.start
            ]
            return Evidence(
                name,
                interval,
                now,
                tuple(runs),
                inputs,
                instances=instances,
                lag=lag,
                current=told[0] in read and read[told[0]][0] >= told[1],
                paused=self.paused(name),
                stopped=tuple(stopped(conn, name)),
                breakers=tuple(ask.breakers(conn, name)),
                gaps=tuple(lost),
                ignored=tuple(ask.ignored(conn, name)),
                denied=denied,
                expected=next(iter(ask.expected_about(conn, interval, pipeline=name)), None),
                nothing_due=_nothing_due(declaration, interval),
            )

    def _told(self, pipeline: str) -> tuple[int, int]:
        """The pipeline's partition of the ledger and its end: every outcome below the offsets just read is below it."""
        partition = ledger_partition(pipeline, self.scanner.admin.partitions([LEDGER_TOPIC])[LEDGER_TOPIC])
        at = (LEDGER_TOPIC, partition)
        return partition, self.scanner.admin.ends([at], committed=False)[at]

    def _lag(self, declaration: Declaration, committed: Mapping[tuple[str, int], Committed]) -> int:
        counts = self.scanner.admin.partitions(declaration.topics)
        ends = self.scanner.admin.ends([(t, p) for t, count in counts.items() for p in range(count)], committed=True)
        return sum(end - committed[at].offset if at in committed else end for at, end in ends.items())

    def _seen(self, one: Subscription, interval: Interval, clauses: Sequence[str]) -> list[Seen] | None:
        """What stands in the topic of a subscription; None where there is no topic."""
        scan = self.scanner.scan(one.event_type, interval)
        if not scan.there:
            return None
        return [s for s in scan.seen if s.value is None or narrowed(clauses, s.value)]

    def _input(self, known: _Known, one: Subscription, seen: Mapping[str, list[Seen] | None]) -> Input:
        name, every = known.declaration.name, seen[one.signal]
        about = [
            s for s in every or () if s.about(known.interval) or (s.value is None and s.at >= known.interval.start)
        ]
        takes = [s for s in every or () if s.value is not None and meets(one.where, s.value)]
        newest = max(takes, key=lambda s: s.at, default=None)
        expected = ask.expected_about(known.conn, known.interval, event_type=one.event_type)
        known.look(about)
        return Input(
            one.signal,
            one.event_type,
            there=every is not None,
            landed=tuple(known.landed(s, one) for s in about),
            newest=None if newest is None else known.landed(newest, one),
            taken=ask.has_taken(known.conn, name, one.signal),
            producers=tuple(sorted(self._makers(known.conn, one.event_type) - {name})),
            expected=next(iter(expected), None),
            tick=self._tick(one, known.interval),
            cut=self.scanner.scan(one.event_type, known.interval).cut,
        )

    def _makers(self, conn: Connection, event_type: str) -> set[str]:
        declared = {name for name, one in self.declared.items() if event_type in one.emits}
        return declared | (ask.makers(conn, event_type) & self.declared.keys())

    def _tick(self, one: Subscription, interval: Interval) -> tuple[str, datetime] | None:
        """The tick about the interval that a subscription to the clock waits for."""
        if one.event_type != TICKS:
            return None
        for schedule in self.schedules:
            for tick in schedule.ticks(max(interval.start, schedule.since), interval.end + _WEEK):
                overlaps = tick.interval.start < interval.end and interval.start < tick.interval.end
                if overlaps and meets(one.where, tick.record()):
                    return schedule.name, tick.nominal
        return None

    def _runs(self, known: _Known, inputs: Sequence[Input], clauses: Sequence[str]) -> Iterator[Answer]:
        """The runs about the interval; of a narrowed question not those that took other events that still stand."""
        told = ask.runs_about(known.conn, known.declaration.name, known.interval)
        meant = {event.id for one in inputs for event in one.landed}
        topics = known.declaration.topics if clauses else ()
        others = {s.id for topic in topics for s in self.scanner.scan(topic, known.interval).seen} - meant
        return (run for run in told if not run["events"] or not others.issuperset(run["events"]))


@dataclass(slots=True)
class _Known:
    """What the projection knows of the records that one pipeline could have taken."""

    conn: Connection
    declaration: Declaration
    interval: Interval
    committed: Mapping[tuple[str, int], Committed]
    _begins: dict[tuple[str, int], int] = field(init=False)
    _ignored: list[dict[str, Any]] = field(init=False)
    _runs: dict[ask.Place, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.declaration.name
        self._begins = ask.beginnings(self.conn, name)
        self._ignored = ask.ignored(self.conn, name)

    def look(self, seen: Sequence[Seen]) -> None:
        """Ask for the runs of these records at once."""
        self._runs.update(ask.runs_at(self.conn, self.declaration.name, [s.position for s in seen]))

    def taken(self) -> list[Answer]:
        """The runs that were found by the records that they took, of what can be read."""
        return ask.standing([run for run in self._runs.values() if run["stage"] != "decode"])

    def landed(self, seen: Seen, one: Subscription) -> Landed:
        """A record, and what became of it."""
        at = seen.position
        run = self._runs.get((at.topic_id, at.partition, at.offset))
        outcome, why = ("run", "") if run is not None else self._without_run(seen)
        if seen.value is None:
            outcome, why = "unreadable" if outcome in ("run", "unsettled") else outcome, seen.why
        return Landed(seen.id, one.event_type, str(at), seen.at, outcome, run, why)

    def _without_run(self, seen: Seen) -> tuple[str, str]:
        at = seen.position
        refusals = self._refusals(seen)
        begins = self._begins.get((at.topic_id, at.partition))
        committed = self.committed.get((at.topic, at.partition))
        if refusals:
            return "refused", refusals[0]
        if begins is not None and at.offset < begins:
            return ("ignored" if self._was_ignored(at) else "before"), ""
        if committed is None or at.offset >= committed.offset:
            return "ahead", ""
        told = ask.outcomes_at(self.conn, self.declaration.name, at)
        if "duplicate" in told:
            return "duplicate", ""
        return ("refused", f"{told['filtered']}, by the criteria of then") if "filtered" in told else ("unsettled", "")

    def _refusals(self, seen: Seen) -> list[str]:
        """Why no subscription of its type takes it; nothing where one does."""
        mine = [s for s in self.declaration.subscriptions if s.event_type == seen.position.topic]
        if seen.value is None or any(meets(s.where, seen.value) for s in mine):
            return []
        return [refusal(s.where, seen.value) for s in mine]

    def _was_ignored(self, at: Position) -> bool:
        return any(
            one["topic_id"] == at.topic_id
            and int(one["partition"]) == at.partition
            and one["from"] <= at.offset < one["to"]
            for one in self._ignored
        )


def _distinct(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({run["id"]: run for run in runs}.values())


def _left(found: Evidence) -> Interval | None:
    """The first part of the interval that no run is about, where runs are done and more is expected of it."""
    if found.expected is None or found.expected["state"] not in ("pending", "missed"):
        return None
    about = sorted((r["interval"] for r in found.runs if r["state"] == "done" and r["interval"]), key=lambda i: i.start)
    if not about:
        return None
    reached = found.interval.start
    for one in about:
        if one.start > reached:
            return Interval(reached, min(one.start, found.interval.end))
        reached = max(reached, one.end)
    return Interval(reached, found.interval.end) if reached < found.interval.end else None


def _nothing_due(declaration: Declaration, interval: Interval) -> bool:
    """Whether it has deadlines, and none of them is about the interval."""
    if not declaration.expect:
        return False
    for expect in declaration.expect:
        for deadline in deadlines(expect, interval.start - _DAY, interval.end + _WEEK):
            about = deadline.interval or deadline.window
            if about.start < interval.end and interval.start < about.end:
                return False
    return True
