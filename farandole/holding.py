"""Rows that are written first: the claim before a run starts, the hold before it leaves its place.

The order decides: first the row in SQL, then the Kafka transaction that moves the event to the retry topic, then the
settlement that confirms the row. So what comes meanwhile stands behind it, and a crash between leaves a row whose
record comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from farandole.clock import Clock
from farandole.delivery import REDRIVE
from farandole.outcome import Books
from farandole.owned import Owned
from farandole.parking import Parking
from farandole.points import point
from farandole.reading import At, Reading
from farandole.run import Run, RunState
from farandole.store.inbox import Claim, Inbox, Known, Lane, Outcome
from farandole.store.rows import HOLDING

RunId = Callable[[list[bytes]], str]
"""The id of the run that these keys start."""


@dataclass(slots=True)
class Holding:
    """The rows of one worker. Every method may raise DatabaseUnreachable, and has then changed nothing."""

    books: Books
    inbox: Inbox
    clock: Clock
    owners: Mapping[tuple[str, int], Owned]
    parking: Parking
    in_flight: dict[At, Run]
    epoch: int

    def forget(self, readings: Sequence[Reading], known: dict[At, Known]) -> None:
        """A record whose hold was written and whose transaction was not committed comes again: as if it were new."""
        for r in readings:
            row = known.get(r.at)
            if row is not None and r.come is None and row.state == "parked" and row.detail == HOLDING:
                here = (r.raw.topic_id, r.raw.partition, r.raw.offset)
                if (row.topic_id, row.partition, row.offset) == here:
                    del known[r.at]

    def claim(self, readings: Sequence[Reading], known: dict[At, Known], run_id: RunId) -> None:
        """Claim each key for one of its records, which is told so; `known` then says what is known of the others' keys.

        Only that record may start the run: the claim names its partition and offset, and would hold up any other.
        """
        by_owner: dict[tuple[str, int], dict[bytes, Reading]] = {}
        for reading in readings:
            reading.claimed = False
            by_owner.setdefault(reading.owned.key, {}).setdefault(reading.key, reading)
        won: set[bytes] = set()
        for mine in by_owner.values():
            asked = [r for key, r in mine.items() if key not in won]
            claims = [
                Claim(r.key, run_id([r.key]), r.raw.key or b"", r.signal.digest, r.raw.offset)  # type: ignore[union-attr]
                for r in asked
            ]
            lane = next(iter(mine.values())).owned.lane
            assert lane is not None  # noqa: S101 - only a partition that was taken over is read
            lost = self.inbox.claim(lane, claims)
            for r in asked:
                r.claimed = r.key not in lost
                known.pop((self.epoch, r.key), None)
            won |= {r.key for r in asked if r.claimed}
            known.update({(self.epoch, key): row for key, row in lost.items()})
        point("claim.after")

    def hold(self, fresh: Sequence[Reading], run_id: RunId) -> None:
        """Mark what must stand behind an earlier event of its record key; redriven letters begin their life here.

        `fresh` are the signals that nobody has in hand. One look and one write a batch; nothing is written while
        nothing is parked.
        """
        declaration = self.books.declaration
        pairs = []
        if declaration.ordering == "key" and not declaration.join:
            okeys = {r.raw.key for r in fresh if r.come is None and r.raw.key}
            held = self.inbox.held(self.epoch, okeys) if okeys else set()
            for r in fresh:
                r.behind = r.come is None and r.raw.key in held
            pairs = [self._row(r, run_id([r.key]), 0) for r in fresh if r.behind]
        for r in fresh:
            if r.come is not None and r.come.delivery.kind == REDRIVE:
                pairs.append(self._row(r, r.come.delivery.run_id, r.come.delivery.life))
        self._write(pairs)

    def _row(self, reading: Reading, run_id: str, life: int) -> tuple[Lane, Outcome]:
        lane, signal, raw = reading.owned.lane, reading.signal, reading.raw
        assert lane and signal  # noqa: S101, PT018 - a signal on a partition that was taken over
        okey = raw.key if raw.key and self.books.declaration.ordering == "key" else b""
        now = self.clock.millis()
        digest, offset, epoch = signal.digest, raw.offset, reading.epoch
        return lane, Outcome(reading.key, run_id, "parked", life, digest, okey, offset, "", 1, now, epoch)

    def _write(self, pairs: Sequence[tuple[Lane, Outcome]]) -> list[Lane]:
        fenced = self.inbox.park(pairs) if pairs else []
        for owned in self.owners.values():
            if owned.lane in fenced:
                owned.fenced()
        return fenced

    def leave(self, runs: Sequence[Run]) -> None:
        """Runs that end their stay: held in SQL first, then told to Kafka with the next transaction.

        A dead one that holds its record key is held the same way: what comes meanwhile must stand behind it. One that
        rests is held already.
        """
        for run in (run for run in runs if run.state is RunState.RESTS):
            self._waits(run)
        runs = [run for run in runs if run.state is not RunState.RESTS]
        fenced = self._write([(run.home.lane, outcome) for run in runs for outcome in self.books.outcomes(run)])
        point("hold.written")
        for run in runs:
            if run.home.lane in fenced:
                continue
            if run.state is RunState.PARKED:
                self.parked(run)
                continue
            run.home.add(self.books.ended(run))
            if run.via:
                self.parking.over(run.id)

    def parked(self, run: Run) -> None:
        """In the retry topic already it keeps its place there; from its own partition it comes back by that topic."""
        run.home.add(self.books.parked(run))
        self._waits(run)

    def _waits(self, run: Run) -> None:
        if self.in_flight.get(run.at) is run:
            del self.in_flight[run.at]  # SQL knows it by its hold
        if run.via:
            self.parking.again(run.id, run.attempt, run.pause)
