"""The one place that commits.

    1 outputs · 2 dead letters · 3 ledger entries · 4 the consumed offset    one Kafka transaction per partition
    5 dedup, open rows, position                                             one SQL transaction, after and derived

A crash between 4 and 5 is mended at takeover from the ledger. For classes (ii) and (iii) SQL has decided
before; then 1 and 3 are the stored bytes, and 5 removes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from farandole.clock import Clock
from farandole.deadletter import failure_of
from farandole.errors import FarandoleError, Fenced, Unreachable
from farandole.event import Record
from farandole.kafka.sink import Commit, Refused, Spoiled
from farandole.kafka.source import Source
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.outcome import Books
from farandole.owned import GONE, STOPPED, Ended, Owned
from farandole.points import point
from farandole.rewind import Mark, mark_of
from farandole.run import RunState
from farandole.store.inbox import Inbox, Lane, Settlement

_TOLD = (1, 10, 100, 1000)
"""At which tries of one transaction in a row it is said that it did not end."""
Told = tuple[Owned, Settlement, list[Ended]]
"""A transaction that was committed, and what SQL is to be told of it."""


class _Doubt(NamedTuple):
    """A transaction of which nobody knows how it ended."""

    owned: Owned
    mark: Mark
    prefix: int
    spoiled: Spoiled


class Settler:
    """Writes what has ended; keeps what SQL could not be told yet, and tells it first."""

    def __init__(
        self,
        source: Source,
        inbox: Inbox,
        books: Books,
        clock: Clock,
        threads: ThreadPoolExecutor,
        say: Callable[..., None],
    ) -> None:
        self._source, self._inbox, self._books, self._clock, self._threads = source, inbox, books, clock, threads
        self._say = say
        self.unsettled: list[Told] = []

    def commit(self, partitions: Sequence[Owned]) -> None:
        """Moves 1 to 4 for each partition, side by side; the caller waits, so no revoke can slip in between."""
        ready = [p for p in partitions if p.lane is not None and p.session is not None]
        if not ready:
            return
        # asked here: in a rebalance's callback the consumer answers this thread alone, and others would wait for ever
        publish = partial(self._published, self._source.membership())
        for told in map(publish, ready) if len(ready) == 1 else self._threads.map(publish, ready):
            self.unsettled += self._resolved(told) if isinstance(told, _Doubt) else told

    def settle(self) -> list[Ended]:
        """Move 5. Returns what is settled now; raises DatabaseUnreachable and keeps everything."""
        if not self.unsettled:
            return []
        point("settle.before_commit")
        fenced = self._inbox.settle([s for _, s, _ in self.unsettled])
        point("settle.after_commit")
        settled = [ended for _, _, many in self.unsettled for ended in many]
        for owned, settlement, _ in self.unsettled:
            if settlement.lane in fenced:
                owned.fenced()
        self.unsettled = []
        return settled

    def _published(self, membership: Any, owned: Owned) -> list[Told] | _Doubt:
        """One partition's transaction, repeated while single records of it are refused."""
        lane = owned.lane
        assert lane is not None  # noqa: S101 - `commit` chose it
        while True:
            prefix = owned.prefix()
            mark = Mark(owned.next_offset, lane.fence, owned.commits + 1)
            records = [record for ended in owned.ended for record in ended.records]
            records += self._books.span(owned, owned.next_offset, prefix)
            commit = Commit(owned.topic, owned.partition, prefix, str(mark))
            owned.ledger_before = owned.session.ledger_offset + 1
            try:
                owned.session.publish(records, commit, membership, LEDGER_TOPIC)
            except Refused as refused:
                if self._give_up(owned, refused):
                    continue
                self._refused(owned, records[refused.index], refused)
                return []
            except Spoiled as spoiled:
                return _Doubt(owned, mark, prefix, spoiled)
            except Fenced as fenced:
                self._fenced(owned, lane, fenced)
                return []
            except Unreachable as away:
                owned.wait(self._clock.monotonic(), str(away))
                return []
            return [self._told(owned, lane, prefix)]

    def _fenced(self, owned: Owned, lane: Lane, fenced: Fenced) -> None:
        """Somebody opened a session for this partition. SQL knows whether it was its owner or a zombie."""
        owned.phase, owned.why = GONE, str(fenced)
        with contextlib.suppress(Fenced, Unreachable):
            self._inbox.check(lane)
            owned.usurped = True

    def _resolved(self, doubt: _Doubt) -> list[Told]:
        owned = doubt.owned
        assert owned.lane is not None  # noqa: S101 - `commit` chose it
        return [self._told(owned, owned.lane, doubt.prefix)] if self._was_committed(*doubt) else []

    def _told(self, owned: Owned, lane: Lane, prefix: int) -> Told:
        """The window moves on; what SQL is to be told."""
        ended, owned.ended = owned.ended, []
        owned.written()
        owned.next_offset, owned.commits, owned.tries = prefix, owned.commits + 1, 0
        owned.last_commit = self._clock.monotonic()
        settlement = Settlement(
            lane,
            [outcome for e in ended for outcome in e.outcomes],
            prefix,
            owned.ledger_offset(),
            [r for e in ended for r in e.published],
            [r for e in ended for r in e.finished],
            [j for e in ended for j in e.closed_joins],
            [key for e in ended for key in e.waits],
        )
        return owned, settlement, ended

    def _was_committed(self, owned: Owned, mark: Mark, _prefix: int, spoiled: Spoiled) -> bool:
        """Never guess: a new session first (it ends what is open), then what the broker says was committed."""
        try:
            owned.session.reopen()
            _, metadata = self._source.committed([owned.key])[owned.key]
        except Fenced as fenced:
            owned.phase, owned.why = GONE, str(fenced)
            return False
        except Unreachable as away:
            owned.wait(self._clock.monotonic(), f"{spoiled}; {away}")
            return False
        if mark_of(metadata) == mark:
            return True
        owned.wait(self._clock.monotonic(), str(spoiled))  # not committed: the next turn does it again
        if owned.tries in _TOLD:
            self._say("commit.again", at=f"{owned.topic}[{owned.partition}]", tries=owned.tries, why=str(spoiled))
        return False

    def _give_up(self, owned: Owned, refused: Refused) -> bool:
        """One record was refused: its run is dead, its neighbours are not. False where SQL had decided already."""
        at, ended = self._of_record(owned, refused.index)
        run = ended.run if ended is not None else None
        if run is None or run.decided or run.state is RunState.DEAD:
            return False
        step = self._books.declaration.steps[-1].name
        run.failure = failure_of(
            refused, "emit", step, self._books.declaration.name, attempts=run.attempt, first_failed_at=self._clock.now()
        )
        run.state, run.outputs, run.emitted = RunState.DEAD, [], []
        owned.ended[at] = self._books.ended(run)
        owned.guard.last.append(run.failure.fingerprint)
        owned.guard.died()
        return True

    def _refused(self, owned: Owned, record: Record, refused: Refused) -> None:
        """A record that must be written cannot be: the partition stops, and says which and why."""
        _, ended = self._of_record(owned, refused.index)
        slot = next(iter(ended.slots), None) if ended is not None else None
        detail = {
            "at": str(owned.next_offset if slot is None else slot.offset),
            "topic": owned.topic,
            "partition": str(owned.partition),
            "run": next(iter(ended.published), "") if ended is not None else "",
            "output": record.topic,
            "error": refused.message,
        }
        owned.phase, owned.why = STOPPED, f"output.refused: for {record.topic}, of @{detail['at']}: {refused}"
        self._say("output.refused", **{**detail, "at": f"{owned.topic}[{owned.partition}]@{detail['at']}"})
        with contextlib.suppress(FarandoleError):  # who starts again meets it again, and tells it then
            owned.session.publish([self._books.fact(owned, "output.refused", detail)], None, None, LEDGER_TOPIC)

    def _of_record(self, owned: Owned, index: int) -> tuple[int, Ended | None]:
        """Which of the ended ones a record of the transaction belongs to."""
        for at, ended in enumerate(owned.ended):
            if index < len(ended.records):
                return at, ended
            index -= len(ended.records)
        return -1, None
