"""One input partition, its log, and up to two instances that believe they own it.

The log may hold the same event twice, at two offsets. Around it: one transactional session (a producer
epoch), an output topic and a ledger written in its transactions, a SQL database with dedup rows, an outbox
and the effect of class (ii), and a service outside for class (iii). An instance can be killed between any
two moves; a successor can take over while the old owner lives on (a zombie); a step can fail after its
outputs were produced (abort); the abort's EndTxn can arrive late (a client without KIP-890).

A protocol is the path that a new event takes, move by move, and a few rules beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.models.explorer import Found, explore

OUTPUT_LOST, OUTPUT_TWICE = "output lost", "output twice (same id)"
EFFECT_LOST, EFFECT_TWICE = "SQL effect lost", "SQL effect twice"
OUTSIDE_LOST, OUTSIDE_TWICE = "external effect lost", "external effect twice"

PUBLISH = ("produce", "send offset", "commit", "settle")
"""The tail that every transactional path ends with."""


@dataclass(frozen=True)
class Protocol:
    """The path of a new event and the rules that hold beside it."""

    path: tuple[str, ...]
    catches_up: bool = True  # a successor applies the ledger's outcomes to SQL before it reads on
    publishes_outbox: bool = False  # a dedup hit whose outputs are unpublished publishes the stored bytes
    honours_key: bool = False  # the service outside knows the attempt key
    doubts: bool = False  # a claim of a former owner ends as "uncertain" instead of a second effect
    renews_session: bool = True  # a session that has aborted is never used again


@dataclass(frozen=True)
class Faults:
    """How often each fault may strike."""

    kills: int = 2
    takeovers: int = 1
    aborts: int = 0


class Instance(NamedTuple):
    """A process: its session's epoch (its fence in SQL too), its place in the log, and its next move."""

    alive: bool = False
    epoch: int = -1
    offset: int = 0
    move: str = "idle"


class World(NamedTuple):
    """Everything there is; hashable, so that a state is visited once."""

    instances: tuple[Instance, Instance]
    owner: int = 0
    epoch: int = 0  # of the partition's transactional id, at the broker
    committed: int = 0  # consumer offset
    outputs: tuple[str, ...] = ()  # visible to read_committed
    ledger: frozenset[str] = frozenset()  # done, by event
    in_transaction: frozenset[str] = frozenset()  # what the open transaction holds: "output", "offset"
    late_abort: bool = False  # an EndTxn(abort) is still on its way
    rows: frozenset[tuple[str, str, int]] = frozenset()  # (event, claimed | done, fence)
    outbox: frozenset[str] = frozenset()
    effects: tuple[str, ...] = ()  # in our SQL database
    sent: tuple[str, ...] = ()  # effects outside
    uncertain: frozenset[str] = frozenset()
    kills: int = 0
    takeovers: int = 0
    aborts: int = 0

    def row(self, event: str) -> tuple[str, int] | None:
        return next(((state, fence) for name, state, fence in self.rows if name == event), None)

    def with_row(self, event: str, state: str, fence: int) -> World:
        others = frozenset(row for row in self.rows if row[0] != event)
        return self._replace(rows=others | {(event, state, fence)})

    def with_instance(self, who: int, instance: Instance) -> World:
        first, second = self.instances
        return self._replace(instances=(instance, second) if who == 0 else (first, instance))


class CommitModel:
    """All moves of one protocol over one log."""

    def __init__(self, protocol: Protocol, log: tuple[str, ...]) -> None:
        self.protocol, self.log = protocol, log
        self._moves: dict[str, Callable[[World, int, Instance, str], World]] = {
            "produce": self._produce,
            "send offset": self._send_offset,
            "commit": self._commit,
            "settle": self._settle,
            "move on": self._move_on,
            "produce at once": self._produce_at_once,
            "commit offset at once": self._commit_offset_at_once,
            "decide in SQL": self._decide_in_sql,
            "SQL effect": self._sql_effect,
            "dedup row": self._dedup_row,
            "claim": self._claim,
            "external effect": self._external_effect,
            "complete": self._complete,
        }

    def explore(self, faults: Faults) -> Found:
        nobody = World((Instance(), Instance()), kills=faults.kills, takeovers=faults.takeovers, aborts=faults.aborts)
        return explore(self._take_over(nobody, 0), self._successors, self._anomalies)

    def _successors(self, world: World) -> tuple[list[World], list[World]]:
        work, faults = [], []
        for who, instance in enumerate(world.instances):
            if instance.alive:
                faults += self._faults(world, who, instance)
                if instance.move == "idle" and instance.offset < len(self.log):
                    work.append(self._at(world, who, instance, self._look_up(world, self.log[instance.offset])))
                elif instance.move not in {"idle", "stopped"}:
                    event = self.log[instance.offset]
                    work.append(self._moves[instance.move](world, who, instance, event))
        if world.late_abort and world.in_transaction:  # it ends a transaction it was never meant for
            faults.append(world._replace(late_abort=False, in_transaction=frozenset()))
        return work, faults

    def _faults(self, world: World, who: int, instance: Instance) -> Iterator[World]:
        if world.kills:
            hurt = world._replace(kills=world.kills - 1)
            # the owner is started again by its supervisor; a zombie stays dead
            yield self._take_over(hurt, who) if who == world.owner else hurt.with_instance(who, Instance())
        if world.takeovers and who == world.owner:
            yield self._take_over(world._replace(takeovers=world.takeovers - 1), 1 - who)
        if world.aborts and instance.move == "commit" and instance.epoch == world.epoch:
            aborted = world._replace(
                aborts=world.aborts - 1, in_transaction=frozenset(), late_abort=not self.protocol.renews_session
            )
            yield self._at(aborted, who, instance, "idle")

    def _take_over(self, world: World, who: int) -> World:
        """Open the session (which fences and aborts the predecessor's), catch up, start at the committed offset."""
        epoch = world.epoch + 1
        world = world._replace(owner=who, epoch=epoch, in_transaction=frozenset(), late_abort=False)
        if self.protocol.catches_up:
            for event in world.ledger:
                world = world.with_row(event, "done", epoch)
            world = world._replace(outbox=world.outbox - world.ledger)
        return world.with_instance(who, Instance(True, epoch, world.committed))

    def _look_up(self, world: World, event: str) -> str:
        row = world.row(event)
        if row is None or row[0] != "done":
            return self.protocol.path[0]
        return "produce" if self.protocol.publishes_outbox and event in world.outbox else "move on"

    @staticmethod
    def _at(world: World, who: int, instance: Instance, move: str, *, ahead: int = 0) -> World:
        return world.with_instance(who, instance._replace(move=move, offset=instance.offset + ahead))

    def _next(self, world: World, who: int, instance: Instance) -> World:
        path = self.protocol.path
        after = path.index(instance.move) + 1
        if after == len(path):
            return self._at(world, who, instance, "idle", ahead=1)
        return self._at(world, who, instance, path[after])

    # -- Kafka: every move of the session is refused to an epoch that was fenced ----------------------------

    def _produce(self, world: World, who: int, instance: Instance, event: str) -> World:
        if instance.epoch != world.epoch:
            return self._at(world, who, instance, "stopped")
        return self._next(world._replace(in_transaction=world.in_transaction | {"output"}), who, instance)

    def _send_offset(self, world: World, who: int, instance: Instance, event: str) -> World:
        if instance.epoch != world.epoch:
            return self._at(world, who, instance, "stopped")
        return self._next(world._replace(in_transaction=world.in_transaction | {"offset"}), who, instance)

    def _commit(self, world: World, who: int, instance: Instance, event: str) -> World:
        if instance.epoch != world.epoch:
            return self._at(world, who, instance, "stopped")
        held = world.in_transaction
        world = world._replace(in_transaction=frozenset())
        if "output" in held:
            world = world._replace(outputs=(*world.outputs, event))
        if "offset" in held:
            offset = max(world.committed, instance.offset + 1)
            world = world._replace(ledger=world.ledger | {event}, committed=offset)
        return self._next(world, who, instance)

    def _move_on(self, world: World, who: int, instance: Instance, event: str) -> World:
        if instance.epoch != world.epoch:
            return self._at(world, who, instance, "stopped")
        offset = max(world.committed, instance.offset + 1)
        return self._at(world._replace(committed=offset), who, instance, "idle", ahead=1)

    def _produce_at_once(self, world: World, who: int, instance: Instance, event: str) -> World:
        return self._next(world._replace(outputs=(*world.outputs, event)), who, instance)

    def _commit_offset_at_once(self, world: World, who: int, instance: Instance, event: str) -> World:
        offset = max(world.committed, instance.offset + 1)
        return self._next(world._replace(committed=offset), who, instance)

    # -- SQL ------------------------------------------------------------------------------------------------

    def _settle(self, world: World, who: int, instance: Instance, event: str) -> World:
        world = world.with_row(event, "done", instance.epoch)
        return self._next(world._replace(outbox=world.outbox - {event}), who, instance)

    def _decide_in_sql(self, world: World, who: int, instance: Instance, event: str) -> World:
        """One transaction: dedup row, effect and outbox. The row's unique key makes a second one look again."""
        if world.row(event):
            return self._at(world, who, instance, "idle")
        world = world._replace(effects=(*world.effects, event), outbox=world.outbox | {event})
        return self._next(world.with_row(event, "done", instance.epoch), who, instance)

    def _sql_effect(self, world: World, who: int, instance: Instance, event: str) -> World:
        return self._next(world._replace(effects=(*world.effects, event)), who, instance)

    def _dedup_row(self, world: World, who: int, instance: Instance, event: str) -> World:
        return self._next(world.with_row(event, "done", instance.epoch), who, instance)

    def _claim(self, world: World, who: int, instance: Instance, event: str) -> World:
        row = world.row(event)
        if row is not None and (row[0] == "done" or row[1] > instance.epoch):
            return self._at(world, who, instance, "idle")
        if row is not None and row[1] < instance.epoch and self.protocol.doubts:
            world = world._replace(uncertain=world.uncertain | {event}, outbox=world.outbox | {event})
            return self._at(world.with_row(event, "done", instance.epoch), who, instance, "produce")
        return self._next(world.with_row(event, "claimed", instance.epoch), who, instance)

    def _complete(self, world: World, who: int, instance: Instance, event: str) -> World:
        if world.row(event) != ("claimed", instance.epoch):  # somebody else has taken the claim: I am a zombie
            return self._at(world, who, instance, "stopped")
        world = world._replace(outbox=world.outbox | {event})
        return self._next(world.with_row(event, "done", instance.epoch), who, instance)

    # -- outside --------------------------------------------------------------------------------------------

    def _external_effect(self, world: World, who: int, instance: Instance, event: str) -> World:
        if not (self.protocol.honours_key and event in world.sent):
            world = world._replace(sent=(*world.sent, event))
        return self._next(world, who, instance)

    def _anomalies(self, world: World) -> Iterator[str]:
        path = self.protocol.path
        for event in set(self.log):
            yield from _counted(world.outputs.count(event), OUTPUT_LOST, OUTPUT_TWICE)
            if "decide in SQL" in path or "SQL effect" in path:
                yield from _counted(world.effects.count(event), EFFECT_LOST, EFFECT_TWICE)
            if "external effect" in path:
                told = world.sent.count(event)
                if told or event not in world.uncertain:
                    yield from _counted(told, OUTSIDE_LOST, OUTSIDE_TWICE)


def _counted(times: int, lost: str, twice: str) -> Iterator[str]:
    if times == 0:
        yield lost
    elif times > 1:
        yield twice
