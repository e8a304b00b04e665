"""What is done once in a while, between two batches: positions, the ledger's end, and joins whose time is up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from farandole.clock import Clock
from farandole.deadletter import failure_of
from farandole.declaration import Declaration
from farandole.errors import FarandoleError, Fenced
from farandole.event import Event, envelope_of
from farandole.kafka.source import Source
from farandole.outcome import Books
from farandole.owned import GONE, RUNNING, Ended, Owned
from farandole.store import Store
from farandole.store.waiting import Member

LOOK, LEDGER, EXPIRY = 1.0, 10.0, 2.0
"""Seconds between two looks at positions, at the ledger's end, and for joins whose time is up."""
SETS = 100
"""Joins that are given up at once; the next look takes the next ones."""


class JoinExpired(FarandoleError):
    """The events that a join waits for did not come in time."""

    reason = "join.expired"


class Upkeep:
    """Runs on the polling thread, between two batches. Raises DatabaseUnreachable."""

    def __init__(self, source: Source, store: Store, books: Books, clock: Clock, say: Callable[..., None]) -> None:
        self._source, self._store, self._books, self._clock, self._say = source, store, books, clock, say
        self._looked = self._swept = self._expired = 0.0

    def look(self, partitions: Collection[Owned], *, idle: bool) -> None:
        """Do what is due; `idle` says that no run is under way and nothing stands in the worker's hand."""
        now = self._clock.monotonic()
        still = [o for o in partitions if o.phase == RUNNING and not o.window and not o.ended]
        if idle and now - self._looked >= LOOK:
            self._looked = now
            # where a partition is held the client may stand elsewhere until it is placed
            self._touch([o for o in still if not self._source.held(o.key)], now)
        owned = next((o for o in partitions if o.phase == RUNNING and not o.ended), None)
        if self._books.declaration.join is not None and owned is not None and now - self._expired >= EXPIRY:
            self._expired = now
            self._expire(owned, self._books.declaration)

    def _touch(self, quiet: Sequence[Owned], now: float) -> None:
        """Positions behind transaction markers, and how far the ledger is known."""
        at = self._source.positions([o.key for o in quiet])
        for owned in quiet:
            owned.seen = max(owned.seen, at.get(owned.key, -1))
            owned.session.quiet()
        if now - self._swept >= LEDGER and quiet:
            self._swept = now
            known = max(o.session.ledger_offset for o in quiet) + 1
            self._store.inbox.touch_ledger_offset([o.lane for o in quiet if o.lane is not None], known)

    def _expire(self, owned: Owned, declaration: Declaration) -> None:
        """Each event of a join that did not become whole in time is a dead letter, in the next transaction here.

        Only where nothing waits for that transaction already: what was given out before is not given out twice.
        """
        assert owned.lane is not None  # noqa: S101 - it is running
        try:
            late = self._store.waiting.expired(owned.lane, SETS)
        except Fenced as fenced:
            owned.phase, owned.why = GONE, str(fenced)
            return
        for join_key, members in late:
            ended = [self._letter(owned, member, members, declaration) for member in members]
            records = [record for one in ended for record in one.records]
            outcomes = [outcome for one in ended for outcome in one.outcomes]
            owned.add(Ended([], records, outcomes, closed_joins=[join_key]))
        if late:
            self._say("joins.expired", joins=len(late), events=sum(len(members) for _, members in late))

    def _letter(self, owned: Owned, member: Member, members: Sequence[Member], declaration: Declaration) -> Ended:
        raw = member.raw
        there = {m.signal for m in members}
        missing = ", ".join(s.signal for s in declaration.subscriptions if s.signal not in there)
        within = declaration.join.within if declaration.join else 0.0
        error = JoinExpired(
            f"{missing or 'what completes the join'} did not come within {within:g} s", place=str(raw.position)
        )
        failure = failure_of(error, "join", "", declaration.name, first_failed_at=self._clock.now())
        event = Event(envelope_of(raw.headers, raw.topic, raw.position), raw.position, {}, raw.key, raw.value)
        return self._books.given_up(owned, [], raw, event, member.key, failure, member)
