"""A detached step under a lease: two holders, of which one sleeps through its lease and wakes.

Each holder takes the lease, looks what is kept, begins, has its effect, and keeps its result; whoever reads the result
afterwards must always read the same. A lease may lapse at any moment while another holder is there to take it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.models.explorer import explore

IDEMPOTENT, VERIFY, AT_MOST_ONCE, AT_LEAST_ONCE = "idempotent", "verify", "at_most_once", "at_least_once"


class Detached(NamedTuple):
    """Where each holder stands; `token` is the lease's, `started` and `kept` are the checkpoint's."""

    at: tuple[str, str] = ("wait", "wait")
    mine: tuple[int, int] = (0, 0)  # the token under which each works
    token: int = 0
    held: bool = False
    started: bool = False
    kept: int = -1  # whose result is kept
    read: frozenset[int] = frozenset()  # the results that later steps were given
    sent: int = 0  # how often the effect was asked for
    there: int = 0  # how often it stands outside
    uncertain: bool = False
    lapses: int = 2
    kills: int = 1

    def to(self, who: int, at: str, **changes: object) -> Detached:
        stands = (at, self.at[1]) if who == 0 else (self.at[0], at)
        return self._replace(at=stands, **changes)

    def owns(self, who: int) -> bool:
        return self.mine[who] == self.token


def taken(world: Detached, who: int) -> Detached:
    mine = (world.token + 1, world.mine[1]) if who == 0 else (world.mine[0], world.token + 1)
    return world.to(who, "look", token=world.token + 1, mine=mine, held=True)


def looked(world: Detached, who: int, kind: str) -> Detached:
    if world.kept >= 0:
        return world.to(who, "hand on", held=False)
    if world.started and kind == AT_MOST_ONCE:
        return world.to(who, "over", uncertain=True, held=False)
    if world.started and kind == VERIFY and world.there:
        return world.to(who, "keep")  # what the check found
    return world.to(who, "send", started=True)


def moves(kind: str, *, guarded: bool):
    def successors(world: Detached) -> tuple[list[Detached], list[Detached]]:
        work, faults = [], []
        for who in (0, 1):
            at, owns = world.at[who], world.owns(who) or not guarded
            if at == "wait" and not world.held and not world.uncertain:
                work.append(taken(world, who))
            elif at == "look":
                following = looked(world, who, kind)
                # noting that it begins is a write under the token; a zombie's affects nothing
                work.append(following if owns or following.at[who] != "send" else world.to(who, "wait"))
            elif at == "send":
                again = world.there if kind == IDEMPOTENT and world.there else world.there + 1
                work.append(world.to(who, "keep", sent=world.sent + 1, there=again))
            elif at == "keep" and owns:
                kept = world.kept if world.kept >= 0 and guarded else who
                work.append(world.to(who, "hand on", kept=kept, held=False if world.owns(who) else world.held))
            elif at == "keep":
                work.append(world.to(who, "wait"))  # fenced: what it did counts for nothing here
            elif at == "hand on":
                work.append(world.to(who, "over", read=world.read | {world.kept}))
            if world.kills and at in ("look", "send", "keep"):
                faults.append(world.to(who, "wait", kills=0))
        if world.held and world.lapses:
            faults.append(world._replace(held=False, lapses=world.lapses - 1))
        if world.held and not any(world.owns(w) and world.at[w] in ("look", "send", "keep") for w in (0, 1)):
            work.append(world._replace(held=False))  # its holder died: the lease lapses
        return work, faults

    return successors


def anomalies(kind: str, *, guarded: bool = True) -> frozenset[str]:
    def wrong(world: Detached) -> Iterator[str]:
        if len(world.read) > 1:
            yield "two results"
        if not world.read and not world.uncertain:
            yield "never done"
        if world.there > 1:
            yield "effect twice"
        if world.read and not world.there:
            yield "done without effect"

    return explore(Detached(), moves(kind, guarded=guarded), wrong).anomalies


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (IDEMPOTENT, set()),
        (AT_MOST_ONCE, set()),
        (VERIFY, {"effect twice"}),
        (AT_LEAST_ONCE, {"effect twice"}),
    ],
)
def test_two_holders_and_a_zombie_come_to_one_result_and_to_as_many_effects_as_the_kind_says(kind, found):
    """What `verify` cannot promise: a process that sleeps between its check and its sending sends all the same. Only
    the receiver can refuse that: it is given the key.
    """
    assert anomalies(kind) == found


@pytest.mark.parametrize("kind", [IDEMPOTENT, VERIFY, AT_LEAST_ONCE])
def test_a_result_that_is_kept_without_asking_for_the_lease_is_another_one_for_who_reads_later(kind):
    assert "two results" in anomalies(kind, guarded=False)
