"""The same key on two partitions with two owners: why a key that is not local is claimed before it runs.

An owner looks the key up, runs and commits to Kafka in one transaction, and settles in SQL after it. With
copies on two partitions both may look before either settles; a claim in SQL is the only thing both see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.models.explorer import explore


class Claims(NamedTuple):
    """Two owners, each with one copy of the key; `claimed_by` is a row in SQL."""

    moves: tuple[str, str] = ("look up", "look up")
    settled: bool = False
    claimed_by: int | None = None
    outputs: int = 0
    kills: int = 1

    def to(self, who: int, move: str, **changes: object) -> Claims:
        moves = (move, self.moves[1]) if who == 0 else (self.moves[0], move)
        return self._replace(moves=moves, **changes)


def anomalies(*, claims_first: bool) -> frozenset[str]:
    def successors(world: Claims) -> tuple[list[Claims], list[Claims]]:
        work, faults = [], []
        for who in (0, 1):
            match world.moves[who]:
                case "look up" if world.settled:
                    work.append(world.to(who, "end"))
                case "look up" if not claims_first:
                    work.append(world.to(who, "run"))
                case "look up" if world.claimed_by in (None, who):
                    work.append(world.to(who, "run", claimed_by=who))
                case "run":  # the run and its Kafka transaction
                    work.append(world.to(who, "settle", outputs=world.outputs + 1))
                case "settle":
                    work.append(world.to(who, "end", settled=True, claimed_by=None))
            if world.kills and world.moves[who] == "run":  # started again, its own claim taken over
                claim = None if claims_first else world.claimed_by
                faults.append(world.to(who, "look up", claimed_by=claim, kills=0))
            if world.kills and world.moves[who] == "settle":  # the ledger's tail writes the row
                faults.append(world.to(who, "end", settled=True, claimed_by=None, kills=0))
        return work, faults

    def wrong(world: Claims) -> Iterator[str]:
        if world.outputs != 1:
            yield "output twice (same id)" if world.outputs else "output lost"

    return explore(Claims(), successors, wrong).anomalies


def test_a_key_on_two_partitions_that_is_claimed_first_runs_once():
    assert anomalies(claims_first=True) == set()


def test_a_key_on_two_partitions_that_is_only_looked_up_runs_twice():
    assert anomalies(claims_first=False) == {"output twice (same id)"}
