"""Becoming the owner of partitions: fence, catch up with what Kafka decided, and find where to go on.

A1 tables that were lost · A2 the fence in SQL · A3 a session (fences the predecessor at the broker) · A4 the ledger's
tail, whose outcomes SQL may lack · A5 committed offset against our position · A6 place and go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from farandole.declaration import Declaration
from farandole.errors import BrokerUnreachable, Fenced, LedgerIncomplete
from farandole.event import Record
from farandole.identity import DELETED, LOOK, Identity, Standing
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.kafka.sink import Session, Spoiled
from farandole.kafka.source import Source
from farandole.ledger.entry import BEGAN, GAP, LEDGER_TOPIC, Entry, newer, place_of
from farandole.outcome import Books
from farandole.owned import GONE, RUNNING, STOPPED, Ended, Owned
from farandole.points import point
from farandole.restore import Restore, member_of, outcomes_of, patiently
from farandole.rewind import RECREATED, TRUNCATED, Former, Found, Start, accepted_cut, where_to_start
from farandole.store import Range, Store
from farandole.store.epochs import REWIND
from farandole.store.inbox import Lane, Outcome, Settlement, Taken
from farandole.store.rows import FINAL, SETTLED
from farandole.store.waiting import Member

CRASHES, CAREFUL = 2, 100
"""After so many ends in disorder at one offset, so many records are handled one at a time."""
ADDED_PAUSE = 2 * LOOK
"""An added partition is read once every instance has looked, and claims keys: copies may stand on two partitions."""
REMEDIES = {
    TRUNCATED: "it was cut, or restored from an older copy; to go on: farandole topology accept {topic} --at {cut}",
    RECREATED: "it was deleted and created anew; to go on with the new one: farandole topology accept {topic}",
    DELETED: "create it anew, and accept that: farandole topology apply, farandole topology accept TOPIC",
    "ledger.incomplete": "keep database and topics as they are, and set the group to the first of these offsets",
}
"""What a person can do about a partition that was stopped."""


Free = Callable[[list[Owned], Mapping[str, str]], list[Owned]]


@dataclass(slots=True)
class Tail:
    """What the ledger says of one partition since SQL was last told."""

    entries: dict[str, Entry] = field(default_factory=dict)
    offsets: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Takeover:
    """Takes partitions over, all that are new at once. Raises Unreachable while a server is away."""

    declaration: Declaration
    store: Store
    source: Source
    codec: Codec
    books: Books
    owner: str
    session: Callable[[str], Session]
    reader: Callable[[str], TopicReader]
    first_offset: Callable[[tuple[str, int]], int]
    threads: ThreadPoolExecutor
    say: Callable[..., None]
    group: str
    identity: Identity
    epoch: int = 0
    recall: Callable[[Entry], None] = lambda _: None  # told of each entry of the tail, or of all
    restore: Restore | None = None
    _refilled: bool = False
    _rewound: list[tuple[Owned, Range]] = field(default_factory=list)

    def take(self, assigned: list[Owned], free: Free) -> list[Owned]:
        """A1 to A5; those that were taken are running now (and must be placed at `seen`) or stopped with a reason.

        Tables that were lost are filled again before they are asked anything; only then `free` says what may be taken.
        """
        if self.restore is not None:
            self._refilled = self.restore.ensure(self.recall) or self._refilled
        if taken := free(assigned, self.source.topic_ids):
            self._take(taken)
        return taken

    def _take(self, assigned: Sequence[Owned]) -> None:
        topics = self.identity.of({owned.topic for owned in assigned})
        partitions = [owned for owned in assigned if _there(owned, topics)]
        if not partitions:
            return
        # the group first: a client that has lost it must not fence who has its partitions now. Then SQL: a zombie that
        # asks it before it opens a session of its own must hear that it has a successor
        self.source.committed([owned.key for owned in partitions])
        taken = {owned.key: self._fence(owned, topics[owned.topic].topic_id) for owned in partitions}
        point("assign.after_fence")
        list(self.threads.map(self._open, partitions))
        point("assign.after_init")
        tails, end = self._tails(partitions, taken)
        point("assign.after_tail")
        committed = self.source.committed([owned.key for owned in partitions])
        for owned in partitions:
            try:
                found = self._found(owned, taken[owned.key], topics[owned.topic], committed[owned.key])
                self._start(owned, found, taken[owned.key], tails[owned.key], end)
            except Fenced as fenced:
                owned.phase, owned.why = GONE, str(fenced)
        self._replayed()
        if self._refilled:
            self._restored(partitions[0])

    def _restored(self, owned: Owned) -> None:
        """The tables were lost: what that was, and that they are filled again, stands in the ledger."""
        assert self.restore is not None  # noqa: S101 - it has filled them
        self._refilled = False
        told = {"tables": self.store.recovery.incarnation, "entries": str(self.restore.entries)}
        owned.ended.append(Ended([], [self.books.told("tables.restored", told["tables"], told)]))

    def _replayed(self) -> None:
        """Somebody set the group back: what was settled is processed again, in one new epoch for all partitions.

        Its ranges stand in SQL before the live position is committed over what was asked for.
        """
        found, self._rewound = self._rewound, []
        if not found:
            return
        epoch = self.store.epochs.rewound([span for _, span in found])
        records = sum(span.end - span.start for _, span in found)
        told = {"epoch": str(epoch), "offsets": str(records), "ranges": "; ".join(str(span) for _, span in found[:50])}
        self.say("replay.detected", **told)
        fact = self.books.told("replay.detected", f"epoch-{epoch}", {**told, "command": REWIND}, epoch)
        for n, (owned, _) in enumerate(found):
            owned.ended.append(Ended([], [fact] if n == 0 else []))  # each commits where it goes on, with our mark

    def _open(self, owned: Owned) -> None:
        owned.session = owned.session or self.session(f"{self.group}-{owned.topic}-{owned.partition}")
        lane = owned.lane
        assert lane is not None  # noqa: S101 - the fence gave it
        owned.session.check = lambda: self.store.inbox.check(lane)
        owned.session.open()

    def _fence(self, owned: Owned, topic_id: str) -> Taken:
        taken = self.store.inbox.take_over(owned.topic, topic_id, owned.partition, self.owner, self.epoch)
        owned.lane = Lane(owned.topic, topic_id, owned.partition, taken.fence, self.epoch)
        self.source.topic_ids[owned.topic] = topic_id
        return taken

    def _tails(self, partitions: Sequence[Owned], taken: Mapping[Any, Taken]) -> tuple[dict[Any, Tail], int]:
        """One read of our ledger partition, from the oldest offset that any of these knows, to its end.

        To the end, not to what is stable now: a transaction of somebody else that began earlier and is still open
        hides what a predecessor committed after it. The sessions are open, so nothing of theirs comes later.
        """
        tails = {owned.key: Tail() for owned in partitions}
        mine = {(o.lane.topic_id, o.partition): o.key for o in partitions if o.lane}
        at = self.books.ledger_partition
        with self.reader(LEDGER_TOPIC) as reader:
            end = reader.undecided_ends()[at]
            start = min(end, *(t.ledger_offset for t in taken.values()))
            name = self.declaration.name.encode()
            for raw in (one for lines in patiently(reader, at, start, end) for one in lines):
                if raw.value is None or name not in raw.value:
                    continue  # another pipeline's, by far the most on a first start: not even decoded
                entry = Entry.of(self.codec.decode(LEDGER_TOPIC, raw.value, raw.headers) or {})
                if entry.pipeline == self.declaration.name:
                    self._sort(entry, tails, mine)
        return tails, end

    def _sort(self, entry: Entry, tails: dict[Any, Tail], mine: Mapping[tuple[str, int], Any]) -> None:
        self.recall(entry)
        if entry.span is not None and entry.epoch == self.epoch:
            where = mine.get((entry.span["topic_id"], entry.span["partition"]))
            if where is not None:
                tails[where].offsets.update(entry.span["duplicates"])
                for offsets in entry.span["filtered"].values():
                    tails[where].offsets.update(offsets)
        for via in entry.via:
            topic_id, partition, offset = place_of(via)
            where = mine.get((topic_id, partition))
            if where is not None:
                tails[where].offsets.add(offset)
                _keep(tails[where], entry)
        if entry.epoch != self.epoch:
            return  # what a replay did of the same records is no outcome of the live ones, and the other way round
        for cause in entry.triggers:
            where = mine.get((cause["topic_id"], cause["partition"]))
            if where is not None:
                tails[where].offsets.add(cause["offset"])
            elif entry.join_key is None or entry.state != "dead":
                continue
            # an expired join is settled by any partition's owner: another one's member may be what SQL was not told
            _keep(tails[where or next(iter(tails))], entry)

    def _found(self, owned: Owned, taken: Taken, topic: Standing, committed: tuple[int, str]) -> Found:
        low, high = self.source.watermarks(owned.key)
        offset, metadata = committed
        former = None
        # a replay has its exact ranges; that the topic is another one stops it as it stops live work
        if topic.former and taken.next_offset is None and (self.epoch == 0 or not topic.known):
            # raises its fence too: what was claimed for the former topic is nobody's any more
            was = self.store.inbox.take_over(owned.topic, topic.former, owned.partition, self.owner, self.epoch)
            by = self.identity.accepted(owned.topic, topic.topic_id) if topic.known else None
            told = {} if by is None else {"actor": by.actor, "reason": by.reason}
            former = Former(topic.former, was.next_offset, topic.known, told)
        added = self.epoch == 0 and owned.partition >= topic.since_applies
        return Found(offset if offset >= 0 else None, metadata, taken.next_offset, low, high, added, former, taken.cut)

    def _start(self, owned: Owned, found: Found, taken: Taken, tail: Tail, end: int) -> None:
        never = found.position is None and found.committed is None
        first = self.first_offset(owned.key) if never else 0
        ignored = self.epoch or owned.topic == self.declaration.retry_topic
        start = where_to_start(found, first, "ignore" if ignored else self.declaration.on_rewind)
        start = self._cut(owned, found, start)
        if start.prove and taken.next_offset is not None:
            start = self._proven(owned, taken.next_offset, start, tail)
        self._apply(owned, tail, taken.ledger_offset if start.stop else end, _settled(start, taken))
        owned.session.ledger_offset = end - 1
        owned.next_offset = owned.seen = start.offset
        owned.tries, owned.ended = 0, []
        if taken.crashes >= CRASHES:
            owned.careful_until = min(found.high, start.offset + CAREFUL)
            owned.killer = -1 if taken.suspect is None else taken.suspect
            self.say("partition.careful", at=f"{owned.topic}[{owned.partition}]@{start.offset}", crashes=taken.crashes)
        if start.fact:
            self.say(start.fact, **{**start.detail, "at": f"{owned.topic}[{owned.partition}]"})
        if start.stop:
            self._stop(owned, start, found.former)
            return
        owned.phase = RUNNING
        if found.added and found.position is None and found.former is None:
            owned.due = self.books.clock.monotonic() + ADDED_PAUSE
        if start.replay is not None:
            span = Range(
                owned.topic, owned.lane.topic_id if owned.lane else "", owned.partition, start.replay, start.offset
            )
            self._rewound.append((owned, span))
        elif start.fact:
            owned.ended.append(Ended([], [self._fact(owned, start)]))
        elif found.position is None and not ignored:
            began = Start(start.offset, BEGAN, {"at": str(start.offset)})
            owned.ended.append(Ended([], [self._fact(owned, began)]))
        elif never:
            owned.ended.append(Ended([], []))  # commit where it begins, so that nobody takes it for expired

    def _stop(self, owned: Owned, start: Start, former: Former | None) -> None:
        """Not at all, until a person says so: the fact is written, and the committed offset left as it was found."""
        records = [self._fact(owned, start)]
        if former is not None and former.position is not None:
            records.insert(0, self._lost(owned, former.topic_id, former.position))
        try:
            owned.session.publish(records, None, self.source.membership(), LEDGER_TOPIC)
        except Spoiled as spoiled:
            raise BrokerUnreachable(spoiled.message, place=spoiled.place, hint="it is tried again") from spoiled
        remedy = REMEDIES[start.fact].format(topic=owned.topic, cut=f"{owned.partition}:{start.offset}")
        owned.phase, owned.why = STOPPED, f"{start.fact}: {remedy}"

    def _cut(self, owned: Owned, found: Found, start: Start) -> Start:
        """A log that is too short: noted, so that it stays so when it grows; or accepted by a person."""
        if start.fact != TRUNCATED or owned.lane is None:
            return start
        by = self.identity.cut(owned.lane.topic_id, owned.partition, start.offset)
        self.store.inbox.cut(owned.lane, found.high, accepted=None if by is None else found.low)
        return start if by is None else accepted_cut(found, {"actor": by.actor, "reason": by.reason})

    def _fact(self, owned: Owned, start: Start) -> Record:
        where = {"topic": owned.topic, "topic_id": owned.lane.topic_id if owned.lane else ""}
        return self.books.fact(owned, start.fact, {**where, "partition": str(owned.partition), **start.detail})

    def _lost(self, owned: Owned, topic_id: str, position: int) -> Record:
        """The gap of what a topic held unread when it was deleted: nobody can say how much that was."""
        detail = {"topic": owned.topic, "topic_id": topic_id, "partition": str(owned.partition)}
        detail |= {"from": str(position), "to": "unknown"}
        return self.books.told(GAP, f"{topic_id}/{owned.partition}/{position}", detail)

    def _proven(self, owned: Owned, position: int, start: Start, tail: Tail) -> Start:
        """Every record of [position, offset) must have an outcome in the ledger; otherwise stop and name them."""
        with self.reader(owned.topic) as reader:
            missing = [
                raw.offset
                for batch in reader.read({owned.partition: position}, until={owned.partition: start.offset})
                for raw in batch
                if raw.offset not in tail.offsets
            ]
        if not missing:
            return start
        told = LedgerIncomplete(
            f"{len(missing)} records below the committed offset have no outcome in the ledger: {missing[:10]}",
            place=f"{owned.topic}[{owned.partition}]",
            hint=REMEDIES["ledger.incomplete"],
        )
        self.say("ledger.incomplete", error=str(told))
        return Start(start.offset, "ledger.incomplete", {"missing": ",".join(map(str, missing[:100]))}, stop=True)

    def _apply(self, owned: Owned, tail: Tail, end: int, position: int | None) -> None:
        """What Kafka decided and SQL was not told."""
        lane = owned.lane
        assert lane is not None  # noqa: S101 - A3 gave it
        outcomes: list[Outcome] = []
        waiting: list[Member] = []
        decided: list[str] = []
        closed: list[bytes] = []
        for entry in tail.entries.values():
            if entry.state == "waiting":
                waiting.append(member_of(entry))
            elif entry.state == "parked":
                outcomes += outcomes_of(entry, self.declaration)
                closed += [bytes.fromhex(entry.join_key)] if entry.join_key else []
            elif entry.state in SETTLED:
                outcomes += outcomes_of(entry, self.declaration)
                decided.append(entry.id)
                if entry.join_key:
                    closed.append(bytes.fromhex(entry.join_key))
        finished = [e.id for e in tail.entries.values() if e.state in FINAL]
        told = Settlement(lane, outcomes, position, end, decided, finished, closed)
        if self.store.inbox.settle([told]):
            raise Fenced("another instance took the partition over meanwhile", place=str(lane))
        if waiting and self.declaration.join:
            self.store.waiting.restore(lane, waiting, self.declaration.join.within)


def _there(owned: Owned, topics: Mapping[str, Standing]) -> bool:
    if owned.topic in topics:
        return True
    owned.phase, owned.why = STOPPED, f"{DELETED}: {REMEDIES[DELETED]}"
    return False


def _settled(start: Start, taken: Taken) -> int | None:
    """Up to where everything is settled, by what the ledger says now; a gap is passed with the fact of it."""
    if start.stop:
        return taken.next_offset
    return int(start.detail["from"]) if start.fact == GAP else start.offset


def _keep(tail: Tail, entry: Entry) -> None:
    standing = tail.entries.get(entry.id)
    if standing is None or newer(entry, standing):
        tail.entries[entry.id] = entry
