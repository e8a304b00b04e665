"""The store's place on a stage: dicts, one owner, and the same answers as `farandole/store` gives.

Pipelines that write to our own database are not played on it: they get a real SQLite file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from farandole.breaker import Breaker
from farandole.clock import Clock
from farandole.store.breakers import Change
from farandole.store.checkpoints import Checkpoint
from farandole.store.rows import FINAL, HOLDING, RANK, UNTOLD, Claim, Known, Lane, OutboxRow, Outcome, Settlement, Taken
from farandole.store.topics import KnownTopic
from farandole.store.waiting import Joined, Member

Place = tuple[str, int, int]
"""Topic id, partition, offset."""


class MemoryStore:
    """What a pipeline remembers. It outlives the worker, so that a stage can start one again."""

    def __init__(self, clock: Clock) -> None:
        self.inbox = MemoryInbox(clock)
        self.checkpoints = self.inbox.checkpoints
        self.waiting = self.inbox.waiting
        self.breakers = MemoryBreakers(clock)
        self.guards = MemoryGuards(clock)
        self.topics = MemoryTopics()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nothing to commit."""
        yield None

    def close(self) -> None:
        """Nothing to give back."""


class MemoryInbox:
    """Settled and open keys, positions, and the outbox."""

    def __init__(self, clock: Clock) -> None:
        self.checkpoints = MemoryCheckpoints()
        self.waiting = MemoryWaiting(self, clock)
        self._rows: dict[bytes, Known] = {}
        self._positions: dict[tuple[str, int], Taken] = {}
        self._okeys: dict[bytes, bytes] = {}
        self._outbox: dict[str, list[OutboxRow]] = {}

    def take_over(self, _topic: str, topic_id: str, partition: int, owner: str, _epoch: int = 0) -> Taken:
        """The next fence."""
        was = self._positions.get((topic_id, partition), Taken(None, 0, 0, None))
        now = Taken(was.next_offset, was.ledger_offset, was.fence + 1, owner)
        self._positions[(topic_id, partition)] = now
        return Taken(now.next_offset, now.ledger_offset, now.fence, was.previous_owner)

    def release(self, _lanes: Sequence[Lane]) -> None:
        """Nobody waits for it."""

    def check(self, _lane: Lane) -> None:
        """A stage has one owner."""

    def suspect(self, _lane: Lane, _offset: int) -> None:
        """A stage's process does not die."""

    def known(self, _epoch: int, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What is known of these keys, those that wait in a join among them."""
        waiting = self.waiting.known
        found = {key: row for key in keys if (row := self._rows.get(key) or waiting.get(key)) is not None}
        for key, row in found.items():
            if row.unpublished and row.run_id not in self._outbox:
                found[key] = replace(row, unpublished=False)
        return found

    def claim(self, lane: Lane, claims: Sequence[Claim]) -> dict[bytes, Known]:
        """The keys that were not won."""
        lost = {}
        for claim in claims:
            there = self._rows.get(claim.key)
            here = (lane.topic_id, lane.partition, claim.offset)
            left = there is not None and there.state == "claimed" and there.fence < lane.fence
            if there is None or left or (there.topic_id, there.partition, there.offset) == here:
                self._rows[claim.key] = _known(claim.key, "claimed", claim.run_id, claim.digest, lane.fence, here)
            else:
                lost[claim.key] = there
        return lost

    def park(self, parked: Sequence[tuple[Lane, Outcome]]) -> list[Lane]:
        """Held before Kafka is told."""
        for lane, one in parked:
            self._write(lane, [replace(one, state="parked", detail=HOLDING)])
        return []

    def held(self, _epoch: int, okeys: Collection[bytes], state: str = "") -> set[bytes]:
        """The record keys of which an event is parked, or dead and holds them."""
        states = (state,) if state else ("parked", "dead-hold")
        return {okey for key, okey in self._okeys.items() if okey in okeys and self._rows[key].state in states}

    def record_decision(self, _conn: None, lane: Lane, outcomes: Sequence[Outcome], rows: Sequence[OutboxRow]) -> None:
        """What is decided before it is published."""
        for row in rows:
            self._outbox.setdefault(row.run_id, []).append(row)
        self._write(lane, outcomes)

    def settle(self, settlements: Sequence[Settlement]) -> list[Lane]:
        """What became of a batch."""
        for one in settlements:
            at = (one.lane.topic_id, one.lane.partition)
            self._positions[at] = Taken(one.next_offset, one.ledger_offset, one.lane.fence, None)
            self._write(one.lane, one.outcomes)
            for run in one.published:
                self._outbox.pop(run, None)
            for run in one.finished:
                self.checkpoints.kept.pop(run, None)
            self.waiting.close([o.key for o in one.outcomes], one.closed_joins)
            self.waiting.told(one.waits)
        return []

    def _write(self, lane: Lane, outcomes: Sequence[Outcome]) -> None:
        for o in outcomes:
            there = self._rows.get(o.key)
            if there is None or (there.state not in FINAL and _weight(o) >= _weight(there)):
                at = (lane.fence, lane.topic_id, lane.partition, o.offset, o.attempt, o.due, o.detail)
                self._rows[o.key] = Known(o.key, o.state, o.run_id, o.life, o.digest, o.run_id in self._outbox, *at)
                self._okeys[o.key] = o.okey

    def unpublished(self, runs: Sequence[str]) -> dict[str, list[OutboxRow]]:
        """What is decided and not published."""
        return {run: self._outbox[run] for run in runs if run in self._outbox}

    def touch_ledger_offset(self, _lanes: Sequence[Lane], _offset: int) -> None:
        """A stage's ledger is short."""


def _weight(row: Known | Outcome) -> tuple[bool, int, int, int]:
    return row.state in FINAL, row.life, RANK.get(row.state, 0), row.attempt if row.state == "parked" else 0


def _known(key: bytes, state: str, run: str, digest: bytes, fence: int, at: Place) -> Known:
    return Known(
        key, state, run, 0, digest, unpublished=False, fence=fence, topic_id=at[0], partition=at[1], offset=at[2]
    )


def _at(member: Member) -> Place:
    return member.topic_id, member.partition, member.offset


class MemoryCheckpoints:
    """What steps gave."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Checkpoint]] = {}

    def load(self, runs: Sequence[str]) -> dict[str, list[Checkpoint]]:
        """By run."""
        return {run: list(self.kept[run].values()) for run in runs if run in self.kept}

    def started(self, lane: Lane, run: str, step: str, attempt: int) -> None:
        """An effect may happen from now on."""
        self.kept.setdefault(run, {})[step] = Checkpoint(step, "", "started", None, lane.fence, attempt)

    def done(self, lane: Lane, run: str, step: str, result: bytes) -> None:
        """An effect has happened, and this is its result."""
        self.keep(lane, run, step, result)

    def keep(self, lane: Lane, run: str, step: str, result: bytes) -> None:
        """The result of a step."""
        self.kept.setdefault(run, {})[step] = Checkpoint(step, "", "done", result, lane.fence, 1)


class MemoryWaiting:
    """Open joins."""

    def __init__(self, inbox: MemoryInbox, clock: Clock) -> None:
        self._inbox, self._clock = inbox, clock
        self._due: dict[bytes, float] = {}
        self._sets: dict[bytes, dict[bytes, Member]] = {}
        self._run_by: dict[bytes, tuple[Place, int]] = {}
        self.known: dict[bytes, Known] = {}

    def told(self, keys: Sequence[bytes]) -> None:
        """The ledger says that they wait."""
        self.known |= {key: replace(self.known[key], detail="") for key in keys if key in self.known}

    def untold(self, _epoch: int, join_keys: Sequence[bytes]) -> set[bytes]:
        """Open sets of which a member was not told yet."""
        return {key for key in join_keys if key not in self._run_by and self._untold(key)}

    def _untold(self, join_key: bytes, but: bytes = b"") -> bool:
        return any(self.known[key].detail == UNTOLD for key in self._sets.get(join_key, {}) if key != but)

    def add(self, lane: Lane, member: Member, complete: Callable[[list[Member]], bool], within: float) -> Joined:
        """A member comes to its set; a set that is whole is run for its sake."""
        self._due.setdefault(member.join_key, self._clock.monotonic() + within)
        members = self._sets.setdefault(member.join_key, {})
        there = members.get(member.key)
        known = self._inbox.known(0, [member.key]).get(member.key)
        here = (lane.topic_id, lane.partition, member.offset)
        if member.join_key in self._run_by and (there is not None or known is None):
            state = self._met(there, here, lane.fence, *self._run_by[member.join_key])
        elif known is not None and (there is None or _at(there) != here):
            state = "known"
        else:
            state = "waiting"
            if complete(list({**members, member.key: member}.values())):
                state = "held" if self._untold(member.join_key, member.key) else "complete"
            if there is None and state != "held":
                members[member.key] = member
                waits = _known(member.key, "waiting", "", member.digest, lane.fence, here)
                self.known[member.key] = replace(waits, detail=UNTOLD)
        if state == "complete":
            self._run_by[member.join_key] = (here, lane.fence)
        if state == "known":
            return Joined(state, [], known)
        return Joined(state, [] if state == "held" else list(members.values()))

    def _met(self, there: Member | None, here: Place, fence: int, runs_at: Place, its_fence: int) -> str:
        """What a member finds whose set is under way, or was when its worker died."""
        if there is None:
            return "held"  # an event of the next set with this join key
        if _at(there) != runs_at:
            return "known"
        return "complete" if here == runs_at or fence > its_fence else "held"

    def expired(self, lane: Lane, limit: int) -> list[tuple[bytes, list[Member]]]:
        """Open sets whose time is up; whoever asks has them to settle."""
        now = self._clock.monotonic()
        late = [
            key
            for key, due in self._due.items()
            if due <= now and self._sets.get(key) and key not in self._run_by and not self._untold(key)
        ]
        for key in late[:limit]:
            self._run_by[key] = ((lane.topic_id, lane.partition, -1), lane.fence)
        return [(key, list(self._sets[key].values())) for key in late[:limit]]

    def restore(self, _lane: Lane, members: Sequence[Member], _within: float) -> None:
        """Nothing was lost; but the ledger may have been told and the store not."""
        self.told([member.key for member in members])

    def close(self, keys: Sequence[bytes], joins: Sequence[bytes]) -> None:
        """Members with an outcome go; a set with some left over is open again."""
        gone = {key for key in keys if self.known.pop(key, None) is not None}
        for join_key in joins:
            self._run_by.pop(join_key, None)
            self._due.pop(join_key, None)
            left = {key: m for key, m in self._sets.pop(join_key, {}).items() if key not in gone}
            if left:
                self._sets[join_key] = left


class MemoryBreakers:
    """What the pipeline depends on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def load(self) -> tuple[dict[str, Breaker], int]:
        """All of them, and the clock."""
        return dict(self._breakers), self._clock.millis()

    def change(self, name: str, act: Callable[[Breaker, int], Breaker]) -> Change:
        """What `act` makes of one."""
        before, now = self._breakers.get(name, Breaker(name)), self._clock.millis()
        self._breakers[name] = act(before, now)
        return Change(before, self._breakers[name], now)


class MemoryGuards:
    """Partitions that were stopped. A stage has one epoch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, int], tuple[str, str, int]] = {}

    def stop(self, lane: Lane, version: str, why: str) -> bool:
        """One more, if it was not stopped already."""
        row = (version, why, self._clock.millis())
        return self._rows.setdefault((lane.topic_id, lane.partition), row) is row

    def standing(self, _epoch: int) -> dict[tuple[str, int], tuple[str, str]]:
        """All of them, with version and reason."""
        return {place: (version, why) for place, (version, why, _) in self._rows.items()}

    def reset(
        self, _epoch: int, places: Collection[tuple[str, int]], before: int | None = None
    ) -> list[tuple[str, int]]:
        """Let them go on."""
        freed = [p for p in places if p in self._rows and (before is None or self._rows[p][2] < before)]
        for place in freed:
            del self._rows[place]
        return freed


class MemoryTopics:
    """The topics that were known."""

    def __init__(self) -> None:
        self._known: dict[str, list[KnownTopic]] = {}

    def of(self, topic: str) -> list[KnownTopic]:
        """The oldest first."""
        return self._known.get(topic, [])

    def learn(self, topic: str, known: KnownTopic) -> None:
        """One more."""
        self._known.setdefault(topic, []).append(known)
