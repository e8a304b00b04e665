"""What is done once in a while, between two batches: positions, the ledger's end, and joins whose time is up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from farandole.clock import Clock
from farandole.deadletter import failure_of
from farandole.declaration import Declaration
from farandole.errors import BrokerUnreachable, FarandoleError, Fenced
from farandole.event import Event, envelope_of
from farandole.identity import Identity
from farandole.kafka.source import Source
from farandole.outcome import Books
from farandole.owned import GONE, RUNNING, TAKING, Ended, Owned
from farandole.store import Store
from farandole.store.waiting import Member
from farandole.stranded import Stranded

if TYPE_CHECKING:
    from farandole.worker import Worker

LOOK, LEDGER, EXPIRY = 1.0, 10.0, 2.0
"""Seconds between two looks at positions, at the ledger's end, and for joins whose time is up."""
GLANCE, QUIET = 0.25, 1.0
"""Seconds between two looks whether all is settled (each costs a round trip), and how long it must stay so."""
NOBODY_ELSE = 15.0
"""After so long without a partition somebody else has them all, and draining is theirs."""
SETS = 100
"""Joins that are given up at once; the next look takes the next ones."""


class JoinExpired(FarandoleError):
    """The events that a join waits for did not come in time."""

    reason = "join.expired"


class Upkeep:
    """Runs on the polling thread, between two batches. Raises DatabaseUnreachable."""

    def __init__(
        self,
        source: Source,
        store: Store,
        books: Books,
        clock: Clock,
        say: Callable[..., None],
        identity: Identity,
    ) -> None:
        self._source, self._store, self._books, self._clock, self._say = source, store, books, clock, say
        self._identity = identity
        self._stranded = Stranded(source, (books.declaration.retry_topic, 0), clock, say)
        self._looked = self._swept = self._expired = self._served = 0.0
        self._goals: dict[tuple[str, int], int] | None = None

    def look(self, partitions: Collection[Owned], *, idle: bool, held: bool) -> None:
        """Do what is due; `idle` says that no run is under way and nothing stands in the worker's hand.

        Where the pipeline is `held`, what would complete a join may stand unread: none is given up then, nor
        before all is read that stood there when it went on.
        """
        self._stranded.look()
        now = self._clock.monotonic()
        if held:
            self._goals = None
            self._serve(partitions, now)
        still = [o for o in partitions if o.phase == RUNNING and not o.window and not o.ended]
        if idle and now - self._looked >= LOOK:
            self._looked = now
            # where a partition is held the client may stand elsewhere until it is placed
            self._touch([o for o in still if not self._source.held(o.key)], now)
        owned = next((o for o in partitions if o.phase == RUNNING and not o.ended), None)
        if self._books.declaration.join is not None and owned is not None and now - self._expired >= EXPIRY:
            self._expired = now
            if not held and self._caught_up(partitions):
                self._expire(owned, self._books.declaration)

    def _serve(self, partitions: Collection[Owned], now: float) -> None:
        """What producers have to say, which otherwise piles up in them for as long as nothing is written."""
        if now - self._served >= LOOK:
            self._served = now
            for owned in partitions:
                if owned.session is not None:
                    owned.session.quiet()

    def _caught_up(self, partitions: Collection[Owned]) -> bool:
        """Whether all was read here that stood in the log when the pipeline began or went on."""
        here = [o for o in partitions if o.phase == RUNNING]
        if self._goals is None:
            with contextlib.suppress(BrokerUnreachable):
                self._goals = {o.key: self._source.watermarks(o.key)[1] for o in here}
        return self._goals is not None and all(o.seen >= self._goals.get(o.key, 0) for o in here)

    def astray(self, owned: Owned) -> str:
        """Why a partition has to be taken over anew: its next record is not there, or its topic is another one."""
        if owned.key in self._source.lost_offsets and not owned.window and not owned.ended:
            return "offset.lost"
        return self._identity.astray(owned)

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


class Rest:
    """Whether a service that is to be drained has had nothing left to do for a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = self._quiet = self._looked = clock.monotonic()

    def reached(self, drained: Callable[[], bool], *, owner: bool) -> bool:
        """Ask again; `owner` says whether it ever had a partition."""
        now = self._clock.monotonic()
        if now - self._looked < GLANCE:
            return False
        self._looked = now
        if not (owner or now - self._started > NOBODY_ELSE) or not drained():
            self._quiet = now
        return now - self._quiet > QUIET


def drained(worker: Worker) -> bool:
    """Whether all that was there is settled: nothing under way, and committed equals the end.

    Of a paused pipeline: whether all that had begun is; what waits is not.
    """
    if worker.steering.held:
        begun = worker.under_way(list(worker.owned.values())) or any(o.ended for o in worker.owned.values())
        return worker.steering.paused is not None and not (begun or worker.settler.unsettled or worker.leaving)
    if worker.lanes.running or worker.settler.unsettled or worker.intake.blocked or worker.backlog or worker.leaving:
        return False
    if any(o.phase == TAKING or o.window or o.ended for o in worker.owned.values()):
        return False
    if worker.replays is not None and not worker.replays.idle:
        return False
    running = [o for o in worker.owned.values() if o.phase == RUNNING]
    return all(o.next_offset >= worker.source.end_seen(o.key) for o in running)
