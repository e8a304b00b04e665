"""The lanes in which epochs are processed again, beside the live one: each a worker with a group of its own.

Somebody has set the group back, or ordered exact offsets. Whichever instances are up share the ranges of an epoch as
they share everything: by Kafka's group. Live work goes first. What is done stays done: an epoch has positions and a
dedup table of its own, so a crash goes on inside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from farandole.clock import Clock, iso_of
from farandole.control import RESUME, Command, pipeline_id
from farandole.ledger.entry import Entry
from farandole.orders import CANCELLED, DONE, PAUSED, REFUSED, Order
from farandole.orders import RUNNING as GOES_ON
from farandole.owned import RUNNING, STOPPED, Ended, Owned
from farandole.steering import Steering
from farandole.store import Range, Store

if TYPE_CHECKING:
    from farandole.outcome import Books
    from farandole.worker import Worker

ORDERED, FINISHED = "replay.ordered", "replay.finished"
LOOK, AGAIN = 1.0, 5.0
"""Seconds between two looks for epochs under way, and before a lane that failed is tried again."""

Make = Callable[[int, Sequence[Range], Order | None, "Follower"], "Worker"]

_TOLD = {GOES_ON: "replay.resumed", PAUSED: "replay.paused", CANCELLED: "replay.cancelled", REFUSED: "replay.refused"}


class Follower:
    """Hears what the live lane of this instance was told: a paused pipeline replays nothing either."""

    def __init__(self, live: Steering) -> None:
        self._live = live
        self._last: Command | None = None

    def take(self) -> list[Command] | None:
        """The pause or the resume since the last look."""
        stands = self._live.paused
        if stands is None and self._live.held:
            return None
        if stands is self._last:
            return []
        self._last = stands
        return [stands or Command(pipeline_id(""), RESUME)]


@dataclass(slots=True)
class Replays:
    """The epochs under way on this instance."""

    store: Store
    books: Books
    clock: Clock
    say: Callable[..., None]
    make: Make
    steering: Steering
    topic_ids: Mapping[str, str]
    _lanes: dict[int, tuple[Worker, threading.Thread]] = field(default_factory=dict)
    _looked: float = -LOOK
    _open: bool = True
    _due: dict[int, float] = field(default_factory=dict)
    _known: dict[str, int] = field(default_factory=dict)
    _over: set[int] = field(default_factory=set)

    def recall(self, entry: Entry) -> None:
        """What the ledger says of earlier epochs, heard at a takeover: SQL may have lost all of it."""
        self.store.epochs.known = max(self.store.epochs.known, entry.epoch)
        if entry.fact == ORDERED:
            self._known[entry.detail["order"]] = entry.epoch
        elif entry.fact == FINISHED:
            self._over.add(entry.epoch)

    def look(self, partitions: Sequence[Owned]) -> None:
        """Begin what is under way and not at work here, tell what is finished. Raises DatabaseUnreachable."""
        now = self.clock.monotonic()
        # a live partition commits where it goes on before anything of it is processed again
        settled = [o for o in partitions if o.phase == RUNNING and not o.ended]
        stopped = sum(o.phase == STOPPED for o in partitions)  # nothing of those is committed, and nobody waits for it
        if now - self._looked < LOOK or len(settled) + stopped < len(partitions) or not partitions:
            return
        self._looked = now
        if settled:
            self._hear(settled[0])
        open_epochs = self.store.epochs.under_way()
        self._open = bool(open_epochs or self.steering.orders)
        if not settled:
            return
        self._end([epoch for epoch in self._lanes if epoch not in open_epochs], settled[0])
        for epoch, (_, thread) in list(self._lanes.items()):
            if not thread.is_alive():
                del self._lanes[epoch]
                self._due[epoch] = now + AGAIN
        for epoch, ranges in open_epochs.items():
            if epoch not in self._lanes and now >= self._due.get(epoch, 0.0):
                self._begin(epoch, self.store.epochs.ranges(epoch), len(ranges))

    def _hear(self, owned: Owned) -> None:
        """Take the orders that stand on the control topic. What is news goes into the ledger."""
        while self.steering.orders:
            command = self.steering.orders[0]
            order = Order.of(command)
            gone = [one for one in order.ranges if self.topic_ids.get(one.topic) != one.topic_id]
            if gone and order.state == GOES_ON:
                order = replace(order, state=REFUSED)
            known = self._known.get(order.id, 0)
            order = replace(order, state=DONE) if known in self._over else order
            heard = self.store.orders.hear(order, command.at, known)
            if heard.news and order.state != DONE:
                name = ORDERED if heard.first and order.state != REFUSED else _TOLD[order.state]
                self._tell(owned, name, order, command, heard.epoch)
            self.steering.orders.pop(0)

    def _tell(self, owned: Owned, name: str, order: Order, command: Command, epoch: int) -> None:
        told = {
            "order": order.id,
            "kind": order.kind,
            "epoch": str(epoch),
            "events": str(order.events),
            "cascade": order.cascade,
            "actor": command.actor,
            "reason": command.reason,
            "at": iso_of(command.at),
            "ranges": "; ".join(map(str, order.ranges[:50])),
        }
        self.say(name, **told)
        owned.ended.append(Ended([], [self.books.told(name, f"{order.id}-{command.at}", told, epoch)]))

    def _end(self, epochs: Sequence[int], owned: Owned) -> None:
        """Lanes of epochs that are done, or are not to go on."""
        halted = self.store.orders.halted() if epochs else set()
        for epoch in epochs:
            worker, thread = self._lanes[epoch]
            if epoch in halted:
                worker.stopping.set()
            elif not thread.is_alive():
                told = {"epoch": str(epoch), "runs": str(worker.done)}
                self.say(FINISHED, **told)
                owned.ended.append(Ended([], [self.books.told(FINISHED, f"epoch-{epoch}", told, epoch)]))

    def _begin(self, epoch: int, ranges: Sequence[Range], left: int) -> None:
        worker = self.make(epoch, ranges, self.store.orders.of(epoch), Follower(self.steering))
        thread = threading.Thread(target=self._serve, args=(epoch, worker), name=f"replay-{epoch}", daemon=True)
        self._lanes[epoch] = (worker, thread)
        self.say("replay.begun", epoch=epoch, ranges=len(ranges), left=left)
        thread.start()

    def _serve(self, epoch: int, worker: Worker) -> None:
        try:
            worker.serve(until_drained=True)
        except Exception as error:  # noqa: BLE001 - the live lane goes on, and this one is tried again
            self.say("replay.waits", epoch=epoch, error=f"{type(error).__name__}: {error}")

    @property
    def idle(self) -> bool:
        """Whether nothing is processed again, as of the last look."""
        return not self._open and not self._lanes

    def close(self) -> None:
        """End in order: what runs may end, as in the live lane."""
        for worker, _ in self._lanes.values():
            worker.stopping.set()
        for _, thread in self._lanes.values():
            thread.join(30)
