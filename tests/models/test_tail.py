"""How far must a takeover read the ledger? Somebody else's transaction may stand open below what was committed.

One ledger partition, two writers: the predecessor, whose entry is committed, and a foreign pipeline, whose
transaction began at any moment and ends at any moment. A `read_committed` reader sees nothing at or above
the first record of an open transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.models.explorer import explore


class World(NamedTuple):
    """The log holds "o" (ours) and "f" (foreign), in order; a foreign one may be undecided."""

    log: str = ""
    foreign_open: bool = False
    committed: bool = False  # the predecessor's transaction, and with it the consumed offset
    goal: int | None = None  # up to where the successor reads
    known: bool | None = None  # whether it then knows the outcome


def anomalies(*, wait_for_the_undecided: bool) -> frozenset[str]:
    def stable(world: World) -> int:
        return world.log.index("f") if world.foreign_open else len(world.log)

    def successors(world: World) -> tuple[list[World], list[World]]:
        work, others = [], []
        if "f" not in world.log:
            others.append(world._replace(log=world.log + "f", foreign_open=True))
        if world.foreign_open:
            (work if world.goal is not None else others).append(world._replace(foreign_open=False))
        if not world.committed:
            work.append(world._replace(log=world.log + "o", committed=True))
        elif world.goal is None:  # the predecessor is gone, its session is fenced: nothing of ours comes later
            work.append(world._replace(goal=len(world.log) if wait_for_the_undecided else stable(world)))
        elif world.known is None and stable(world) >= world.goal:
            work.append(world._replace(known="o" in world.log[: world.goal]))
        return work, others

    def wrong(world: World) -> Iterator[str]:
        if world.known is False:
            yield "an outcome below the committed offset is unknown"
        if world.known is None:
            yield "the takeover never ends"

    return explore(World(), successors, wrong).anomalies


def test_a_takeover_that_reads_to_the_end_and_waits_knows_every_outcome():
    assert anomalies(wait_for_the_undecided=True) == set()


def test_a_takeover_that_reads_to_the_stable_end_misses_what_stands_above_an_open_transaction():
    assert anomalies(wait_for_the_undecided=False) == {"an outcome below the committed offset is unknown"}
