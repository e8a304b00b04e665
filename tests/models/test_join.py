"""A join whose two members stand on two partitions with two owners: one run per complete set.

The order that holds: the member goes into the join set in SQL *before* its offset moves; the insertion
holds the set's lock row, so exactly one insertion sees the set become complete; the run then belongs to the
*partition* of the completing member, whose offset cannot pass before the run is published. Whoever owns that
partition later reads the member again, finds the set complete and its own, and runs it with the same ids.

The first member says in the ledger that it waits, in a transaction of its own partition, which may end long after
the one that runs the set. So the last member is held: it goes in once SQL was told that the entries of the others
are committed, by who committed them or, after a crash, by a successor who has read the ledger.

Each partition has an owner and may have a zombie; every copy is told twice, one of them on the other
partition. Kills and takeovers strike between any two moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.models.explorer import Found, explore

NEVER_RUN, RUN_TWICE = "complete set never run", "run published twice (same id)"
TOO_LATE = "an event waits, by the ledger, after it was joined"

LOGS = (("flights", "flights"), ("weather", "weather", "flights"))
COPY_FIRST = (("flights",), ("flights", "weather"))
SIGNALS = frozenset({"flights", "weather"})


@dataclass(frozen=True)
class JoinProtocol:
    """The recommended order, and the ways to weaken it."""

    locks_set: bool = True  # insertion and the look at the set under the set's lock row
    run_has_owner: str = "partition"  # partition | nobody, all run | nobody, inserter runs | process
    inserts_first: bool = True  # before the member's offset moves
    catches_up: bool = True  # a successor applies the ledger's outcomes to SQL
    holds_last: bool = True  # until the others of its set are told
    tells_of_tail: bool = True  # a successor marks as told what waits in the ledger
    copies_wait: bool = False  # a copy of a member says that it waits, as the member does


class Lane(NamedTuple):
    """One process' work on one partition. `sees` is what its open SQL transaction has read."""

    partition: int
    epoch: int
    offset: int
    move: str = "read"
    sees: frozenset[str] = frozenset()


class World(NamedTuple):
    """Lanes (owners and zombies), Kafka's and SQL's state."""

    lanes: tuple[Lane, ...]
    epochs: tuple[int, int] = (0, 0)  # of each partition's transactional id
    committed: tuple[int, int] = (0, 0)
    published: int = 0  # runs visible to read_committed
    in_ledger: bool = False
    members: frozenset[tuple[str, int, int]] = frozenset()  # with the place of the record
    said: frozenset[str] = frozenset()  # by the ledger they wait
    told: frozenset[str] = frozenset()  # and SQL knows that
    too_late: bool = False
    owner: tuple[int, int] | None = None  # of the run: partition, and the epoch it was claimed in
    done: bool = False
    kills: int = 0
    takeovers: int = 1


class JoinModel:
    """All moves of one protocol."""

    def __init__(self, protocol: JoinProtocol, logs: tuple[tuple[str, ...], ...] = LOGS) -> None:
        self.protocol, self.logs = protocol, logs

    def explore(self, kills: int) -> Found:
        both_read = World((Lane(0, 0, 0), Lane(1, 0, 0)), kills=kills)
        return explore(both_read, self._successors, self._anomalies)

    def _successors(self, world: World) -> tuple[list[World], list[World]]:
        work, faults = [], []
        for lane in world.lanes:
            owns = lane.epoch == world.epochs[lane.partition]
            if world.kills:
                hurt = world._replace(kills=world.kills - 1)
                faults.append(self._take_over(hurt, lane, replaces=True) if owns else self._gone(hurt, lane))
            if world.takeovers and owns:
                faults.append(self._take_over(world._replace(takeovers=world.takeovers - 1), lane, replaces=False))
            if lane.offset < len(self.logs[lane.partition]) and not self._held(world, lane):
                work.append(self._work(world, lane))
        return work, faults

    def _held(self, world: World, lane: Lane) -> bool:
        """Whether the next member would complete its set before the others of it are told."""
        member, there = self.logs[lane.partition][lane.offset], {name for name, *_ in world.members}
        completes = lane.move == "read" and member not in there and there | {member} == SIGNALS
        return self.protocol.holds_last and completes and not there <= world.told

    def _work(self, world: World, lane: Lane) -> World:
        member = self.logs[lane.partition][lane.offset]
        match lane.move:
            case "read" if not self.protocol.inserts_first:
                after = self._commit(world, lane, "insert late", run=False)
            case "read" if not self.protocol.locks_set:  # not committed yet: it sees only what others have committed
                after = self._put(world, lane, lane._replace(move="insert", sees=_names(world)))
            case "insert":
                after = self._insert_and_look(world, lane, member, lane.sees)
            case "read" | "insert late":
                after = self._insert_and_look(world, lane, member, _names(world))
            case "skip":
                after = self._commit(world, lane, "read", run=False)
            case "wait":
                after = self._commit(world, lane, "tell", run=False, waits=member)
            case "tell":
                told = world.told | {member} if member in _names(world) else world.told
                after = self._put(world._replace(told=told), lane, lane._replace(move="read", offset=lane.offset + 1))
            case "run":
                after = self._commit(world, lane, "settle", run=True)
            case "settle":
                after = self._put(world._replace(done=True), lane, lane._replace(move="read", offset=lane.offset + 1))
        return after

    def _insert_and_look(self, world: World, lane: Lane, member: str, sees: frozenset[str]) -> World:
        inserted, here = member not in _names(world), (member, lane.partition, lane.offset)
        complete = sees | {member} == SIGNALS
        if inserted:
            world = world._replace(members=world.members | {here})
        if complete and world.owner is None and inserted:
            world = world._replace(owner=(lane.partition, lane.epoch))
        runs = complete and not world.done and self._is_mine(world, lane, inserted=inserted)
        if not self.protocol.inserts_first and not runs:  # its offset has moved already
            return self._put(world, lane, lane._replace(move="read", offset=lane.offset + 1))
        waits = member not in world.told and (here in world.members or self.protocol.copies_wait) and not world.done
        return self._put(
            world, lane, lane._replace(move="run" if runs else "wait" if waits else "skip", sees=frozenset())
        )

    def _is_mine(self, world: World, lane: Lane, *, inserted: bool) -> bool:
        match self.protocol.run_has_owner:
            case "partition":
                return world.owner is not None and world.owner[0] == lane.partition
            case "process":
                return world.owner == (lane.partition, lane.epoch)
            case "nobody, inserter runs":
                return inserted
        return True

    def _commit(self, world: World, lane: Lane, then: str, *, run: bool, waits: str = "") -> World:
        """One transaction of the partition's session: the run's outputs, ledger entries, and the offset."""
        if lane.epoch != world.epochs[lane.partition]:
            return self._gone(world, lane)
        first, second = world.committed
        after = max(world.committed[lane.partition], lane.offset + 1)
        world = world._replace(committed=(after, second) if lane.partition == 0 else (first, after))
        if run:
            world = world._replace(published=world.published + 1, in_ledger=True)
        if waits:
            world = world._replace(said=world.said | {waits}, too_late=world.too_late or world.in_ledger)
        offset = lane.offset + 1 if then == "read" else lane.offset
        return self._put(world, lane, lane._replace(move=then, offset=offset))

    def _take_over(self, world: World, lane: Lane, *, replaces: bool) -> World:
        first, second = world.epochs
        world = world._replace(epochs=(first + 1, second) if lane.partition == 0 else (first, second + 1))
        if self.protocol.catches_up and world.in_ledger:
            world = world._replace(done=True)
        if self.protocol.tells_of_tail:
            world = world._replace(told=world.told | (world.said & _names(world)))
        heir = Lane(lane.partition, world.epochs[lane.partition], world.committed[lane.partition])
        others = tuple(one for one in world.lanes if one != lane or not replaces)
        return world._replace(lanes=tuple(sorted((*others, heir))))

    @staticmethod
    def _put(world: World, old: Lane, new: Lane) -> World:
        return world._replace(lanes=tuple(sorted(new if lane == old else lane for lane in world.lanes)))

    @staticmethod
    def _gone(world: World, lane: Lane) -> World:
        return world._replace(lanes=tuple(one for one in world.lanes if one != lane))

    @staticmethod
    def _anomalies(world: World) -> Iterator[str]:
        if world.published == 0:
            yield NEVER_RUN
        if world.published > 1:
            yield RUN_TWICE
        if world.too_late:
            yield TOO_LATE


def _names(world: World) -> frozenset[str]:
    return frozenset(name for name, *_ in world.members)


def anomalies(protocol: JoinProtocol, kills: int = 1, logs: tuple[tuple[str, ...], ...] = LOGS) -> frozenset[str]:
    return JoinModel(protocol, logs).explore(kills).anomalies


def test_a_complete_set_runs_exactly_once_across_two_owners():
    assert anomalies(JoinProtocol(), kills=2) == set()


def test_a_copy_that_comes_before_its_original_does_no_harm():
    assert anomalies(JoinProtocol(), kills=2, logs=COPY_FIRST) == set()


def test_without_the_hold_a_set_can_be_run_before_the_ledger_says_of_its_first_member_that_it_waits():
    assert anomalies(JoinProtocol(holds_last=False), kills=0) == {TOO_LATE}


def test_if_no_successor_tells_of_what_waits_in_the_ledger_the_last_member_is_held_for_ever():
    assert anomalies(JoinProtocol(tells_of_tail=False)) == {NEVER_RUN}


def test_a_copy_that_says_it_waits_tells_too_early_of_its_original():
    assert anomalies(JoinProtocol(copies_wait=True), kills=0, logs=COPY_FIRST) == {TOO_LATE}


def test_without_the_lock_row_both_members_wait_for_each_other():
    assert anomalies(JoinProtocol(locks_set=False)) == {NEVER_RUN}


def test_a_run_that_everyone_who_sees_the_set_may_take_is_published_twice():
    assert anomalies(JoinProtocol(run_has_owner="nobody, all run")) == {RUN_TWICE}


def test_a_run_that_only_the_completing_insertion_may_take_is_lost_in_a_crash():
    assert anomalies(JoinProtocol(run_has_owner="nobody, inserter runs")) == {NEVER_RUN}


def test_a_run_owned_by_a_process_is_lost_with_the_process():
    assert anomalies(JoinProtocol(run_has_owner="process")) == {NEVER_RUN}


def test_a_member_whose_offset_moved_before_its_insertion_is_lost_in_a_crash():
    assert anomalies(JoinProtocol(inserts_first=False)) == {NEVER_RUN}


def test_without_the_ledger_tail_at_takeover_a_later_copy_runs_the_set_again():
    assert anomalies(JoinProtocol(catches_up=False)) == {RUN_TWICE}
