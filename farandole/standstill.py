"""A partition that is behind and does not move says why, once a minute: a log that ends in silence explains nothing."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from farandole.errors import BrokerUnreachable
from farandole.kafka.source import Key
from farandole.owned import OPEN, RUNNING, STOPPED, Owned, Slot

if TYPE_CHECKING:
    from farandole.worker import Worker

LOOK, PATIENCE = 10.0, 60.0
"""Seconds between two looks, and without any progress until a partition says why; then again after as long."""


class Standstill:
    """Looks on, on the polling thread, and changes nothing."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._looked = -math.inf
        self._since: dict[Key, tuple[tuple[int, int], float]] = {}

    def look(self) -> None:
        """Say of each partition that has not moved for PATIENCE seconds what it waits for."""
        worker, now = self._worker, self._worker.clock.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        before, self._since = self._since, {}
        for key, owned in worker.owned.items():
            at = owned.number, owned.next_offset
            stood, since = before.get(key, (at, now))
            if stood != at or worker.steering.held or not self._behind(owned):
                since = now
            elif now - since >= PATIENCE:
                since = now
                if waits := self._waits(owned):
                    worker.say("partition.stands", at=f"{key[0]}[{key[1]}]@{owned.next_offset}", waits=waits)
            self._since[key] = at, since

    def _behind(self, owned: Owned) -> bool:
        if owned.phase == STOPPED:
            return False  # that was said when it stopped
        if owned.phase != RUNNING or owned.window:
            return True
        with contextlib.suppress(BrokerUnreachable):
            return self._worker.source.end_seen(owned.key) > owned.seen
        return False

    def _waits(self, owned: Owned) -> str:
        """What for; empty where it does so by declaration."""
        worker = self._worker
        if owned.phase != RUNNING:
            return owned.why or "to be taken over"
        slot = next((slot for slot in owned.window if slot.state == OPEN), None)
        if slot is not None:
            hand = self._in_hand(slot)
            return f"offset {slot.offset}: {hand}" if hand else ""
        if worker.settler.unsettled:
            return "SQL cannot be told of the last transaction"
        if owned.window or owned.ended:
            return f"its transaction, tried {owned.tries} times: {owned.why or 'it did not end yet'}"
        if worker.protection.holds:
            return "a dependency is down, or its retries are used up"
        if worker.source.held(owned.key):
            return owned.why or "it is not read: something else has to end first"
        return f"the client gives no record from offset {owned.seen} on"

    def _in_hand(self, slot: Slot) -> str:
        """Who has a record in hand that has no outcome yet."""
        intake = self._worker.intake
        for run in intake.in_flight.values():
            if any(one is slot for one in run.slots):
                return f"run {run.id} is {run.state.name.lower()}"
            if any(copy.slot is slot for copy in run.copies):
                return f"a copy of what run {run.id} has in hand"
        if any(reading.slot is slot for reading in intake.blocked):
            return "somebody else has its key in hand"
        if slot.owned.topic == self._worker.books.declaration.retry_topic:
            return ""  # parked until it is due
        return "nobody has it in hand"
