"""The loop: one instance of a pipeline, from the log to the books.

Polling never waits for work. All Kafka calls of a partition happen on the polling thread, or on threads it
waits for, between two polls; so no revoke can slip between an ownership check and a commit.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from farandole.clock import Clock
from farandole.commanded import Commanded
from farandole.detached import Detached
from farandole.errors import DatabaseUnreachable, Unreachable
from farandole.event import RawRecord
from farandole.intake import Intake
from farandole.kafka.source import Key, Source
from farandole.lanes import Lanes
from farandole.outage import Outage
from farandole.outcome import Books
from farandole.owned import GONE, RUNNING, STOPPED, TAKING, Ended, Owned
from farandole.parking import ROOM
from farandole.points import point
from farandole.replaying import Replays
from farandole.run import Run, RunState
from farandole.settle import Settler
from farandole.standstill import Standstill
from farandole.steering import Heard, Steering
from farandole.store import Store
from farandole.takeover import Takeover
from farandole.upkeep import Rest, Upkeep, drained

BATCH = 500
WINDOW = 2000
"""Records of one partition that may be under way; at the bound it is paused, at half of it resumed. Of a partition
of the retry topic it is `parking.ROOM`."""
REVOKE_GRACE = 10.0
FENCED_PAUSE = 60.0
"""Longer than a session: a zombie learns by then that it owns nothing, and must not fence its successor."""
BLOCKED_PAUSE = 0.2


class Worker:
    """Owns partitions, and turns until it is told to stop. Put together by :mod:`farandole.service`."""

    def __init__(
        self,
        source: Source,
        takeover: Takeover,
        intake: Intake,
        lanes: Lanes,
        settler: Settler,
        heard: Heard,
        clock: Clock,
        limits: tuple[float, int, float],
    ) -> None:
        self.source, self.takeover, self.intake, self.lanes, self.settler = source, takeover, intake, lanes, settler
        self.clock = clock
        self.commit_interval, self.commit_records, self.grace = limits
        self.owned: dict[Key, Owned] = intake.owners  # type: ignore[assignment]
        self.store: Store = intake.store
        self.books: Books = intake.books
        self.protection = intake.protection
        self.say: Callable[..., None] = intake.say
        self.assignments = 0
        self.done = 0
        self.stopping = threading.Event()
        self._database = Outage(clock, self.say, self.owned, self._set_back)
        self._pause_until: dict[Key, float] = {}
        self._blocked_due = 0.0
        self.backlog: deque[RawRecord] = deque()
        self.leaving: list[Run] = []
        self._settling: Future[list[Ended]] | None = None
        self.closing: list[Callable[[], None]] = []
        self.upkeep = Upkeep(source, self.store, self.books, clock, self.say, takeover.identity)
        self.steering = Steering(heard, lanes, self.books, self.say, self.protection.guard.reset)
        self.replays: Replays | None = None
        self.detached = Detached(self.store, intake.parking, clock, self.say, f"{takeover.owner}-{takeover.epoch}")
        self.commanded = Commanded(intake, clock, self.say, self.steering)

    # ---- the story of a batch

    def turn(self) -> None:
        """One batch, from the log to the books."""
        self.steering.look(self.owned.values())
        self._take_over()
        self._let_flow()
        records = self._poll()
        if not records and self.lanes.running:
            self.lanes.wait(0.02)
        if self._settling is not None and self._settling.done():
            self._settled()
        with self._database():
            self.protection.look(self.owned.values(), self.done, active=bool(records or self.lanes.running))
            runs = self.intake.take(records) if records else []
            if (self.intake.blocked or self.intake.unstarted) and self.clock.monotonic() >= self._blocked_due:
                self._blocked_due = self.clock.monotonic() + BLOCKED_PAUSE
                runs += self.intake.retry_blocked()
            self.lanes.admit(self.commanded.admitted(runs))
            self.commanded.obey()
            self.detached.look()
            self.lanes.admit([] if self.steering.held else self.intake.resume())
        self._collect()
        self._commit()

    def _poll(self) -> list[RawRecord]:
        """The next batch; where processes have died, one record at a time, and the next when that one is settled."""
        if not self.backlog and not any(o.careful for o in self.owned.values()):
            return self.source.poll(BATCH, self._patience())
        self.backlog += self.source.poll(BATCH, 0.0 if self.backlog else 0.1)
        under_way = self.lanes.running or self.settler.unsettled or any(o.ended for o in self.owned.values())
        if not self.backlog or under_way:
            if self._settling is not None:
                wait([self._settling], 0.02)
            return []
        if free := [r for r in self.backlog if not self._is_careful(r)]:
            self.backlog = deque(r for r in self.backlog if self._is_careful(r))
            return free
        record = self.backlog.popleft()
        owned = self.owned[record.topic, record.partition]
        with self._database():
            if owned.lane is not None and record.offset != owned.killer:
                self.store.inbox.suspect(owned.lane, record.offset)
            return [record]
        self.backlog.appendleft(record)
        return []

    def _is_careful(self, record: RawRecord) -> bool:
        owned = self.owned.get((record.topic, record.partition))
        return owned is not None and owned.careful

    def _patience(self) -> float:
        """How long a poll may wait: not at all while runs are under way or something is to be written."""
        busy = self.lanes.running or any(o.ended or o.phase == TAKING for o in self.owned.values())
        return 0.0 if busy else 0.1

    def _collect(self) -> None:
        """Runs that ended become what is written of them."""
        for run in self.lanes.ended():
            owned: Owned = run.home
            if run.state is RunState.DEAD and owned.guard.stop is not None:
                run.skipped = True  # the line has stopped: it is read again when it goes on
            if run.skipped or owned.phase == GONE or self.owned.get(owned.key) is not owned:
                continue  # of an older assignment: dropped, whatever it gave
            run.over = True
            if run.known is not None:
                self.intake.known_meanwhile(run)
            elif run.holds:
                self.leaving.append(run)
            else:
                owned.add(self.books.ended(run))
                if run.via:
                    self.intake.parking.over(run.id)
                self.done += 1
            for copy in run.copies:
                copy.owned.end(copy.slot, "duplicate")
        if self.leaving and self.clock.monotonic() >= self._database.due:
            with self._database():
                self.intake.holding.leave(self.leaving)
                self.leaving = []

    def _commit(self) -> None:
        """Partitions whose time has come: by count, by interval, or at once when nothing of them is under way."""
        now, limits = self.clock.monotonic(), (self.commit_records, self.commit_interval)
        due = [o for o in self.owned.values() if o.is_due(now, *limits)]
        if due:
            self._settled()
        if due and not self.settler.unsettled:
            self.settler.commit(due)
        if self.settler.unsettled and self._settling is None and self.clock.monotonic() >= self._database.due:
            self._settling = self.takeover.threads.submit(self.settler.settle)  # meanwhile the next batch is taken
        elif self._settling is None:
            with self._database():
                idle = not self.lanes.running and not self.backlog  # the client counts the backlog as read
                unread = self.steering.held or self.protection.unread(self.owned.values())
                self.upkeep.look(self.owned.values(), idle=idle, held=unread)
                if self.replays is not None:
                    self.replays.look(list(self.owned.values()))
        self._bury()

    def _settled(self) -> None:
        """SQL was told of the last transactions, or could not be; until then no partition commits again."""
        settling, self._settling = self._settling, None
        if settling is not None:
            with self._database():
                settled = settling.result()
                self.intake.forget(settled)
                if self.intake.blocked and any(ended.waits for ended in settled):
                    self._blocked_due = 0.0  # what was to complete a set of theirs may do so now

    def _set_back(self, why: str) -> None:
        """What entered no window while the database was away is read again, later."""
        for owned in self.owned.values():
            if owned.phase == RUNNING:
                self.place_back(owned, owned.seen, why)

    # ---- flow

    def place_back(self, owned: Owned, offset: int, why: str) -> None:
        """Read again from `offset`, after a pause that grows: a server that is needed is away."""
        owned.wait(self.clock.monotonic(), why)
        if owned.tries == 1:
            self.say("partition.waits", at=f"{owned.topic}[{owned.partition}]@{offset}", why=why)
        self._pause_until[owned.key] = owned.due
        owned.back = True
        self._forget_backlog(owned)
        self.source.hold([owned.key])

    def _let_flow(self) -> None:
        """Pause what is full, or waits; place what is neither where it goes on."""
        now = self.clock.monotonic()
        held = self.steering.held or self.protection.holds
        stalled = len(self.backlog) >= WINDOW or now < self._database.due or held
        for key, owned in self.owned.items():
            waits = self._pause_until.get(key, 0.0)
            full = len(owned.window) >= owned.room
            if owned.phase != RUNNING or stalled or now < waits or full:
                self.source.hold([key])
            elif self.source.held(key) and len(owned.window) <= owned.room // 2 and self.source.place(key, owned.seen):
                self._pause_until.pop(key, None)
                owned.back = False

    # ---- ownership

    def assigned(self, keys: list[Key]) -> None:
        """The group gives us partitions: they stay paused until they are taken over."""
        for topic, partition in keys:
            self.assignments += 1
            room = ROOM if topic == self.books.declaration.retry_topic else WINDOW
            guard = self.protection.guard.of(topic)
            self.owned[(topic, partition)] = Owned(topic, partition, self.assignments, room=room, guard=guard)

    def _take_over(self) -> None:
        now = self.clock.monotonic()
        new = [o for o in self.owned.values() if o.phase == TAKING and now >= o.due]
        if not new:
            return
        self._settled()
        if self.settler.unsettled:
            return
        try:
            new = self.takeover.take(new, self.protection.guard.free)
        except Unreachable as away:
            for owned in new:
                owned.phase = TAKING
                owned.wait(now, str(away))
            self.say("takeover.waits", error=str(away), partitions=len(new))
            return
        for owned in (o for o in new if o.phase == STOPPED):
            self.say("partition.stopped", at=f"{owned.topic}[{owned.partition}]", why=owned.why)
        self._pause_until.update({o.key: o.due for o in new if o.due > now})
        if new:
            self.say("partitions.taken", partitions=[f"{o.topic}[{o.partition}]@{o.seen}" for o in new])

    def revoked(self, keys: list[Key]) -> None:
        """An orderly farewell: what runs may end, what ended is committed, the rest is somebody else's."""
        point("revoke.draining")
        leaving = [self.owned[k] for k in keys if k in self.owned]
        deadline = self.clock.monotonic() + (self.grace if self.stopping.is_set() else REVOKE_GRACE)
        for owned in leaving:
            owned.leaving = True
        while self._begun(leaving) and self.clock.monotonic() < deadline:
            self.lanes.wait(0.05)
            self._collect()
        self._settled()
        if not self.settler.unsettled or self._database.lost:
            self.settler.commit([o for o in leaving if o.phase == RUNNING and (o.ended or o.prefix() > o.next_offset)])
        with self._database():
            self.intake.forget(self.settler.settle())
            self.store.inbox.release([o.lane for o in leaving if o.lane is not None and o.phase != GONE])
        for owned in leaving:
            self._drop(owned)

    def under_way(self, leaving: Sequence[Owned]) -> bool:
        """Whether runs of these partitions have begun and not ended; one that waits for its next attempt may wait."""
        runs = self.intake.in_flight.values()
        begun = (r for r in runs if r.home in leaving and r.started_at and r.state is not RunState.AGAIN)
        return any(not (r.over or r.skipped) for r in begun)

    def _begun(self, leaving: Sequence[Owned]) -> bool:
        return self.under_way(leaving) or (self.stopping.is_set() and self.detached.busy)

    def lost(self, keys: list[Key]) -> None:
        """Somebody else owns these already: drop at once, commit nothing. Nobody died of a record."""
        gone = [self.owned[key] for key in keys if key in self.owned]
        with contextlib.suppress(DatabaseUnreachable):
            self.store.inbox.release([o.lane for o in gone if o.lane is not None])
        for owned in gone:
            self.say("partition.lost", at=f"{owned.topic}[{owned.partition}]")
            self._drop(owned)

    def _bury(self) -> None:
        """Partitions that were fenced while they were ours, and those that have to be looked at anew."""
        if self._database.lost:
            self._database.forsake(self)
        for owned in list(self.owned.values()):
            if owned.phase == GONE:
                self.say("partition.fenced", at=f"{owned.topic}[{owned.partition}]", why=owned.why)
                # the group will say that it is lost; if not, take it again
                self._anew(owned, 0.0 if owned.usurped else FENCED_PAUSE)
            elif why := self.upkeep.astray(owned):
                self.say(why, at=f"{owned.topic}[{owned.partition}]@{owned.seen}")
                self._anew(owned, 0.0)
            elif self.protection.guard.stopping(owned) and self._at_rest(owned):
                self._anew(owned, 0.0)

    def _at_rest(self, owned: Owned) -> bool:
        """Whether all that was begun of a partition is written, to Kafka and to SQL."""
        written = not owned.ended and owned.prefix() == owned.next_offset and not self.leaving
        return written and not self.settler.unsettled and not self._settling and not self.under_way([owned])

    def _anew(self, owned: Owned, pause: float) -> None:
        """Take a partition over once more, as if it had just been assigned."""
        self._drop(owned)
        self.source.hold([owned.key])
        self.source.lost_offsets.discard(owned.key)
        self.assigned([owned.key])
        self.owned[owned.key].due = self.clock.monotonic() + pause

    def _drop(self, owned: Owned) -> None:
        self._settled()
        owned.phase = GONE
        self.owned.pop(owned.key, None)
        self._pause_until.pop(owned.key, None)
        self.intake.drop(owned)
        self._forget_backlog(owned)
        self.leaving = [run for run in self.leaving if run.home is not owned]
        self.settler.unsettled = [u for u in self.settler.unsettled if u[0] is not owned]
        if owned.session is not None:
            owned.session.drop()

    def _forget_backlog(self, owned: Owned) -> None:
        """Records of the partition that were read and not yet looked at: they are read again."""
        self.backlog = deque(r for r in self.backlog if (r.topic, r.partition) != owned.key)

    # ---- from start to end

    def serve(self, *, until_drained: bool = False) -> None:
        """Turn until told to stop, or until drained. Raises what cannot be mended by waiting."""
        self.source.subscribe(self.assigned, self.revoked, self.lost)
        rest, standstill = Rest(self.clock), Standstill(self)
        while not self.stopping.is_set():
            self.turn()
            standstill.look()
            if until_drained and rest.reached(lambda: drained(self), owner=self.assignments > 0):
                break
        error = None if self.stopping.is_set() else self.steering.left_over(list(self.owned.values()))
        self.close()
        if error is not None:
            raise error

    def close(self) -> None:
        """SIGTERM: as a revoke of everything, with the longer grace."""
        self.stopping.set()
        self.source.hold(list(self.owned))
        # not inside the client's own `close`: there it answers nobody, and a commit waits for ever
        self.revoked(list(self.owned))
        self.source.close()
        self.lanes.close()
        for close in self.closing:
            close()
