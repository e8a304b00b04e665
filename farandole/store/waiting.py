"""Open joins: events that wait for others, and the one moment in which a set becomes complete.

The row of the set is the lock: whoever holds it sees every member that came before, so of two last
members, on two partitions and in two instances, exactly one completes the set. It does so once the ledger says of
every other member that it waits: an entry of theirs that was still to come would stand behind those of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, or_, select, update

from farandole.declaration import RETRY
from farandole.delivery import delivered
from farandole.errors import DatabaseUnreachable
from farandole.event import RawRecord
from farandole.ids import run_id
from farandole.store.claims import Claims
from farandole.store.engine import Database, chunks
from farandole.store.fence import LEASE, hold
from farandole.store.outcomes import note_told
from farandole.store.rows import Known, Lane
from farandole.store.tables import join_member, join_set, now_ms, position

_ROUNDS = 5  # a set that is gone when looked at was closed just now: open it again
_HEADERS = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])


@dataclass(frozen=True, slots=True)
class Member:
    """An event that is part of a join, whole, so that it can be run when its offset is long committed.

    Place, headers and value are those of the record that brought it: of one that was missed, in the retry topic.
    """

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

    @property
    def raw(self) -> RawRecord:
        """The event as it stood on its own topic."""
        record = RawRecord(
            self.topic,
            self.topic_id,
            self.partition,
            self.offset,
            self.timestamp,
            self.record_key,
            self.value,
            self.headers,
        )
        return delivered(record)[1] if self.via else record

    @property
    def via(self) -> str:
        """The record of the retry topic that brought it (topic id/partition/offset), if one did."""
        return f"{self.topic_id}/{self.partition}/{self.offset}" if self.topic.startswith(RETRY) else ""


Complete = Callable[[list[Member]], bool]
"""Whether these members are a whole set."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of a member.

    ``waiting``: its set is not complete; its offset may move with the entry that says so. ``complete``:
    this lane runs the set, with `members` in order of arrival. ``held``: the set of this join key is being
    run, or others of it were not told yet; ask again later. ``known``: the key is settled, or another record has
    it, see `known`.
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

    def add(self, lane: Lane, member: Member, complete: Complete, within: float) -> Joined:
        """Add a member to its set; a set that `complete` says is whole belongs to this lane from then on.

        `within` is in seconds from the first member. The same member again finds what was decided. Raises Fenced.
        """
        key, join_key = member.key, member.join_key
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            its_set = self._lock_set(conn, lane.epoch, join_key, within)
            known = self._claims.known(conn, lane.epoch, [key]).get(key)
            members = self._members(conn, lane.epoch, [join_key]).get(join_key, [])
            there = next((one for one in members if one.key == key), None)
            if known and (there is None or known.state != "waiting" or known.digest != member.digest):
                self._drop_if_empty(conn, lane.epoch, join_key)
                return Joined("known", [], known)
            if its_set.state != "open":
                state = _met(lane, member, there, its_set)
            elif there is not None and not _same_place(there, lane, member):
                state = "known"  # a copy: the record that came first says that it waits
            else:
                state, members = self._come(conn, lane, member, members, complete)
            if state == "complete":
                self._decide(conn, lane, member, members)
            return Joined(state, [], known) if state == "known" else Joined(state, [] if state == "held" else members)

    def _come(
        self, conn: Connection, lane: Lane, member: Member, members: list[Member], complete: Complete
    ) -> tuple[str, list[Member]]:
        """A member in an open set; what would complete the set before the others were told has to come again."""
        new = all(one.key != member.key for one in members)
        together = [*members, member] if new else members
        whole = complete(together)
        if whole and self._untold(conn, lane.epoch, [member.join_key], but=member.key):
            return "held", members
        if new:
            self._insert(conn, lane.epoch, [(len(members), member)])
        return "complete" if whole else "waiting", together

    def untold(self, epoch: int, join_keys: Sequence[bytes]) -> set[bytes]:
        """Those of these open sets of which a member's `waiting` entry is not known to be committed."""
        with self._database.reading() as conn:
            return {join_key for some in chunks(join_keys) for join_key in self._untold(conn, epoch, some)}

    def expired(self, lane: Lane, limit: int) -> list[tuple[bytes, list[Member]]]:
        """At most `limit` sets whose time is up by the database's clock, with their members; they are this lane's now.

        A set with a member that was not told is left until it is.
        A set that its taker has not settled a minute later, or whose taker lost its partition, is given out
        again. Raises Fenced.
        """
        mine = and_(join_set.c.topic_id == lane.topic_id, join_set.c.partition == lane.partition)
        late = join_set.c.due <= now_ms()
        its_time = and_(join_set.c.state == "open", late)
        given_out = and_(join_set.c.state == "expired", or_(_STALE, and_(mine, late)))
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            asked = (
                select(join_set.c.join_key)
                .outerjoin_from(join_set, position, _OWNER)
                .where(self._of(join_set, lane.epoch), or_(and_(its_time, ~_untold_but(b"")), given_out))
                .order_by(join_set.c.due)
                .limit(limit)
                .with_for_update(of=join_set, skip_locked=True)
            )
            join_keys = list(conn.scalars(asked))
            if not join_keys:
                return []
            these = and_(self._of(join_set, lane.epoch), self._database.among(join_set.c.join_key, join_keys))
            values = {"state": "expired", "off": -1, "due": now_ms() + LEASE} | _owned(lane)
            conn.execute(update(join_set).where(these).values(values))
            members = self._members(conn, lane.epoch, join_keys)
        return [(join_key, members.get(join_key, [])) for join_key in join_keys]

    def give_back(self, lane: Lane, offset: int) -> None:
        """The lane's record at `offset` will not be run: its member goes, and the set it was to complete is open again.

        Raises Fenced.
        """
        there = {"topic_id": lane.topic_id, "partition": lane.partition, "off": offset}
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            its_set = and_(
                self._of(join_set, lane.epoch), *(join_set.c[name] == value for name, value in there.items())
            )
            conn.execute(update(join_set).where(its_set).values(state="open", run_id="", partition=-1, off=-1))
            member = and_(self._of(join_member, lane.epoch), *(join_member.c[n] == value for n, value in there.items()))
            for join_key in list(conn.scalars(delete(join_member).where(member).returning(join_member.c.join_key))):
                self._drop_if_empty(conn, lane.epoch, join_key)

    def restore(self, lane: Lane, members: Sequence[Member], within: float) -> None:
        """What the ledger says of waiting members: those that a lost database lacks are put back, all are told.

        Raises Fenced.
        """
        with self._database.writing() as conn:
            hold(conn, self._pipeline, lane)
            self.put_back(conn, lane, members, within)

    def put_back(self, conn: Connection, lane: Lane, members: Sequence[Member], within: float) -> None:
        """:meth:`restore` inside somebody's transaction."""
        for some in chunks(sorted(members, key=lambda member: member.join_key)):  # sets are locked in one order
            for join_key in sorted({member.join_key for member in some}):
                self._lock_set(conn, lane.epoch, join_key, within)
            known = self._claims.known(conn, lane.epoch, [member.key for member in some])
            missing = [(seq, member) for seq, member in enumerate(some) if member.key not in known]
            if missing:
                self._insert(conn, lane.epoch, missing)
            note_told(conn, self._database, self._pipeline, lane, [member.key for member in some])
            for join_key in {member.join_key for member in some if member.key in known}:
                self._drop_if_empty(conn, lane.epoch, join_key)

    def waiting(self, limit: int = 100) -> list[WaitingSet]:
        """Joins under way in all epochs, those that end first before the others."""
        asked = select(join_set).where(join_set.c.pipeline == self._pipeline).order_by(join_set.c.due).limit(limit)
        listing = []
        with self._database.reading() as conn:
            for row in conn.execute(asked).all():
                its = and_(self._of(join_member, row.epoch), join_member.c.join_key == row.join_key)
                asked_members = select(join_member.c.signal, join_member.c.arrived_at).where(its)
                members = conn.execute(asked_members.order_by(join_member.c.seq)).all()
                since = min((member.arrived_at for member in members), default=row.due)
                listing.append(
                    WaitingSet(
                        row.join_key,
                        row.state,
                        tuple(member.signal for member in members),
                        datetime.fromtimestamp(since / 1000, UTC),
                        datetime.fromtimestamp(row.due / 1000, UTC),
                        row.epoch,
                    )
                )
        return listing

    def _untold(self, conn: Connection, epoch: int, join_keys: Sequence[bytes], but: bytes = b"") -> set[bytes]:
        asked = select(join_set.c.join_key).where(
            self._of(join_set, epoch),
            join_set.c.state == "open",
            self._database.among(join_set.c.join_key, join_keys),
            _untold_but(but),
        )
        return set(conn.scalars(asked))

    def _lock_set(self, conn: Connection, epoch: int, join_key: bytes, within: float) -> Row[Any]:
        opened = self._database.fresh(join_set).values(
            pipeline=self._pipeline, epoch=epoch, join_key=join_key, state="open", due=now_ms() + round(within * 1000)
        )
        locked = (
            select(join_set, _STALE.label("stale"))
            .outerjoin_from(join_set, position, _OWNER)
            .where(self._of(join_set, epoch), join_set.c.join_key == join_key)
            .with_for_update(of=join_set)
        )
        for _ in range(_ROUNDS):
            conn.execute(opened)
            if row := conn.execute(locked).one_or_none():
                return row
        raise DatabaseUnreachable(
            "a join is opened and closed faster than it can be looked at",
            place=self._database.place,
            hint="it is tried again",
        )

    def _members(self, conn: Connection, epoch: int, join_keys: Sequence[bytes]) -> dict[bytes, list[Member]]:
        row = join_member.c
        asked = select(
            row.key,
            row.signal,
            row.join_key,
            row.topic,
            row.topic_id,
            row.partition,
            row.off,
            row.timestamp,
            row.record_key,
            row.headers,
            row.value,
            row.digest,
        )
        these = and_(self._of(join_member, epoch), self._database.among(row.join_key, join_keys))
        found: dict[bytes, list[Member]] = {}
        for one in conn.execute(asked.where(these).order_by(row.seq, row.arrived_at)):
            member = Member(*one[:9], headers=_HEADERS.decode(one.headers), value=one.value, digest=one.digest)
            found.setdefault(member.join_key, []).append(member)
        return found

    def _insert(self, conn: Connection, epoch: int, members: Sequence[tuple[int, Member]]) -> None:
        row = self._database.fresh(join_member).values(pipeline=self._pipeline, epoch=epoch, arrived_at=now_ms())
        conn.execute(row, [_member_row(seq, member) for seq, member in members])

    def _decide(self, conn: Connection, lane: Lane, member: Member, members: list[Member]) -> None:
        """The set is complete, and this lane runs it for the sake of `member`."""
        run = run_id(self._pipeline, lane.epoch, [one.key for one in members])
        this = and_(self._of(join_set, lane.epoch), join_set.c.join_key == member.join_key)
        values = {"state": "complete", "run_id": run, "off": member.offset} | _owned(lane)
        conn.execute(update(join_set).where(this).values(values))
        # a copy of the member may be the one that is run: its redelivery must be known again
        moved = update(join_member).where(self._of(join_member, lane.epoch), join_member.c.key == member.key)
        where = {"topic": lane.topic, "topic_id": lane.topic_id, "partition": lane.partition, "off": member.offset}
        conn.execute(moved.values({**where, "headers": msgspec.msgpack.encode(member.headers)}))

    def _drop_if_empty(self, conn: Connection, epoch: int, join_key: bytes) -> None:
        waits = exists().where(self._of(join_member, epoch), join_member.c.join_key == join_key)
        this = and_(self._of(join_set, epoch), join_set.c.join_key == join_key, join_set.c.state == "open")
        conn.execute(delete(join_set).where(this, ~waits))

    def _of(self, table: Any, epoch: int) -> ColumnElement[bool]:
        return and_(table.c.pipeline == self._pipeline, table.c.epoch == epoch)


_OWNER = and_(
    position.c.pipeline == join_set.c.pipeline,
    position.c.epoch == join_set.c.epoch,
    position.c.topic_id == join_set.c.topic_id,
    position.c.partition == join_set.c.partition,
)
_STALE = or_(position.c.fence.is_(None), position.c.fence > join_set.c.fence)


def _untold_but(key: bytes) -> ColumnElement[bool]:
    """Whether a member of the set, but for this one, was not told: neither marked, nor behind a position."""
    row, its = join_member.c, position.alias("its_position").c
    its_set = join_set.c
    of_set = and_(row.pipeline == its_set.pipeline, row.epoch == its_set.epoch, row.join_key == its_set.join_key)
    passed = exists().where(
        its.pipeline == row.pipeline,
        its.epoch == row.epoch,
        its.topic_id == row.topic_id,
        its.partition == row.partition,
        its.next_offset > row.off,
    )
    return exists().where(of_set, row.told == 0, row.key != key, ~passed)


def _met(lane: Lane, member: Member, there: Member | None, its_set: Row[Any]) -> str:
    """What a member finds whose set somebody runs, or ran when he died."""
    if there is None:
        return "held"  # an event of the next set with this join key
    runs_at = (its_set.topic_id, its_set.partition, its_set.off)
    if its_set.state == "expired" or (there.topic_id, there.partition, there.offset) != runs_at:
        return "known"
    return "complete" if its_set.stale or (lane.topic_id, lane.partition, member.offset) == runs_at else "held"


def _same_place(there: Member, lane: Lane, member: Member) -> bool:
    return (there.topic_id, there.partition, there.offset) == (lane.topic_id, lane.partition, member.offset)


def _owned(lane: Lane) -> dict[str, Any]:
    return {"topic_id": lane.topic_id, "partition": lane.partition, "fence": lane.fence}


def _member_row(seq: int, member: Member) -> dict[str, Any]:
    return {
        "key": member.key,
        "signal": member.signal,
        "join_key": member.join_key,
        "seq": seq,
        "topic": member.topic,
        "topic_id": member.topic_id,
        "partition": member.partition,
        "off": member.offset,
        "timestamp": member.timestamp,
        "record_key": member.record_key,
        "headers": msgspec.msgpack.encode(member.headers),
        "value": member.value,
        "digest": member.digest,
    }
