"""Pure: error, attempt, policy → what now. No clock, no luck: both are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from farandole.clock import seconds
from farandole.declaration import Step
from farandole.errors import UndeclaredOutput, Unfillable, Unreachable

AGAIN, PARK, WAIT, CAUGHT, DEAD = "again", "park", "wait", "caught", "dead"
FATAL = (UndeclaredOutput, Unfillable)
"""Programming errors: neither business nor weather, so never retried."""
INFRASTRUCTURE_PAUSE = 1.0
IN_PLACE, IN_PLACE_SECONDS = 3, 30.0
"""Attempts, and seconds since the first of them, for which a run may stay where it is. Then it leaves the partition."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`again` or `park` after seconds; `wait` for infrastructure, burning no attempt; `caught` by name; or `dead`."""

    kind: str
    after: float = 0.0
    catch: str = ""


def decide(error: BaseException, attempt: int, step: Step, luck: float, passed: float = 0.0) -> Decision:
    """What becomes of a step that failed on its `attempt` (from 1), with `luck` in [0, 1) for the jitter.

    `passed` are the seconds since its first failure: a pause that would not fit into what is left of the time in
    place is spent parked.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    for catch in step.catch:
        if catch.error in names:
            return Decision(CAUGHT, catch=catch.error)
    if isinstance(error, FATAL) or not isinstance(error, Exception):
        return Decision(DEAD)
    if isinstance(error, Unreachable):
        return Decision(WAIT, INFRASTRUCTURE_PAUSE)
    policy = step.retry
    expected = not policy.only or names & set(policy.only)
    if not expected or names & set(policy.never) or attempt >= policy.times:
        return Decision(DEAD)
    after = pause(policy.backoff, attempt, luck)
    return Decision(AGAIN if attempt < IN_PLACE and passed + after <= IN_PLACE_SECONDS else PARK, after)


def pause(backoff: str, attempt: int, luck: float) -> float:
    """Seconds before the next attempt: full jitter, luck * min(cap, base * 2**(attempt - 1)).

    The formula is "Full Jitter" of AWS' "Exponential Backoff And Jitter" (2015).
    """
    base, _, cap = backoff.partition("..")
    first = seconds(base)
    return luck * min(seconds(cap) if cap else first, first * 2.0 ** (attempt - 1))
