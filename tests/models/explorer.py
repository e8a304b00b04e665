"""Walks through every state that a protocol can reach, and collects what is wrong where it comes to rest.

A model gives two kinds of moves: `work`, which the protocol makes of itself, and `faults`, which happen to
it (a kill, a takeover, an answer that arrives late). Every interleaving of both is explored. A state is at
rest when no work is left in it: only there is an anomaly an anomaly, because before that somebody could
still put it right.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)


class Found(NamedTuple):
    """What an exploration saw: how many states, and the anomalies of those at rest."""

    states: int
    anomalies: frozenset[str]


def explore(
    start: State,
    moves: Callable[[State], tuple[list[State], list[State]]],
    anomalies: Callable[[State], Iterable[str]],
) -> Found:
    """Visit every state reachable from `start`; `moves` gives (work, faults) of a state."""
    seen, open_states, wrong = {start}, [start], set()
    while open_states:
        state = open_states.pop()
        work, faults = moves(state)
        if not work:
            wrong.update(anomalies(state))
        for following in work + faults:
            if following not in seen:
                seen.add(following)
                open_states.append(following)
    return Found(len(seen), frozenset(wrong))
