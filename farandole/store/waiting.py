"""Open joins: events that wait for others, and the one moment in which a set becomes complete.

The row of the set is the lock: whoever holds it sees every member that came before, so of two last
members, on two partitions and in two instances, exactly one completes the set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from farandole.store.claims import Claims
from farandole.store.engine import Database
from farandole.store.fence import hold
from farandole.store.rows import Known, Lane

_ROUNDS = 5  # a set that is gone when looked at was closed just now: open it again
_HEADERS = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])


@dataclass(frozen=True, slots=True)
class Member:
    """An event that is part of a join, whole, so that it can be run when its offset is long committed."""

    key: bytes
    signal: str
    join_key: bytes
    topic: str
    topic_id: str
    partition: int
    offset: int
    timestamp: int  # milliseconds, as the record has it
    record_key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes | None
    digest: bytes


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of a member.

    ``waiting``: its set is not complete, or somebody else's to run; its offset may move. ``complete``:
    this lane runs the set, with `members` in order of arrival. ``held``: the set of this join key is being
    run; ask again later. ``known``: the key is settled, or another event has it, see `known`.
    """

    state: str
    members: list[Member]
    known: Known | None = None


@dataclass(frozen=True, slots=True)
class WaitingSet:
    """A join under way, for the eyes: who is in, since when."""

    join_key: bytes
    state: str
    signals: tuple[str, ...]
    since: datetime
    until: datetime
    epoch: int


class WaitingRoom:
    """The open joins of one pipeline."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database, self._pipeline = database, pipeline
        self._claims = Claims(database, pipeline)

    def add(self, lane: Lane, member: Member, complete: Callable[[list[Member]], bool], within: float) -> Joined:
        """Add a member to its set; a set that `complete` says is whole belongs to this lane from then on.

        `within` is in seconds from the first member. The same member again finds what was decided. Raises Fenced.
        """
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            its_set = self._lock_set(conn, lane.epoch, member.join_key, within)
            if known := self._claims.settled(conn, lane.epoch, [member.key]).get(member.key):
                self._drop_if_empty(conn, lane.epoch, member.join_key)
                return Joined("known", [], known)
            members = self._members(conn, lane.epoch, [member.join_key])[member.join_key]
            there = next((one for one in members if one.key == member.key), None)
            if its_set.state != "open":
                return self._meet_decided(conn, lane, member, there, its_set, members)
            if there is None:
                if known := self._elsewhere(conn, lane.epoch, member):
                    self._drop_if_empty(conn, lane.epoch, member.join_key)
                    return Joined("known", [], known)
                self._insert(conn, lane.epoch, [member])
                members.append(member)
            elif there.digest != member.digest:
                return Joined("known", [], self._elsewhere(conn, lane.epoch, member))
            if not complete(members):
                return Joined("waiting", members)
            self._decide(conn, lane, member.join_key, "complete", members, member.offset)
            return Joined("complete", members)

    def _meet_decided(
        self,
        conn: Connection,
        lane: Lane,
        member: Member,
        there: Member | None,
        its_set: Row[Any],
        members: list[Member],
    ) -> Joined:
        """A member meets a set that somebody runs, or ran when he died."""
        if there is None:
            return Joined("held", [])  # an event of the next set with this join key
        completing = (there.topic_id, there.partition, there.offset) == (
            its_set.topic_id,
            its_set.partition,
            its_set.off,
        )
        if not completing or its_set.state == "expired":
            return Joined("waiting", members)
        mine = (its_set.topic_id, its_set.partition) == (lane.topic_id, lane.partition)
        if its_set.stale or (mine and member.offset == its_set.off):
            self._decide(conn, lane, member.join_key, "complete", members, member.offset)
            return Joined("complete", members)
        return Joined("held", [])
