"""Pure: error, attempt, policy → what now. No clock, no luck: both are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from farandole.clock import seconds
from farandole.declaration import Step
from farandole.errors import UndeclaredOutput, Unfillable, Unreachable, Unreadable

AGAIN, PARK, WAIT, CAUGHT, DEAD = "again", "park", "wait", "caught", "dead"
FATAL = (UndeclaredOutput, Unfillable)
"""Programming errors: neither business nor weather, so never retried."""
INFRASTRUCTURE_PAUSE = 1.0
IN_PLACE, IN_PLACE_SECONDS = 3, 30.0
"""Attempts, and seconds since the first of them, for which a run may stay where it is. Then it leaves the partition."""
DOWN = frozenset({"Unreachable", "ConnectionError", "TimeoutError", "NetworkError", "TimeoutException", "Timeout"})
"""Errors that mean that a dependency is down, by the name of their class or of a parent: those of Python and of this
library, `httpx` (`ConnectError` is a `NetworkError`, `ReadTimeout` a `TimeoutException`) and `requests`."""
TOO_MANY, SERVER_ERROR = 429, 500
"""An error with an HTTP status means it with these: too many requests, and all from 500."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`again` or `park` after seconds; `wait` for infrastructure, burning no attempt; `caught` by name; or `dead`.

    `down` names the dependency that is waited for. `before`: by the policy's `only`, it comes before any effect.
    """

    kind: str
    after: float = 0.0
    catch: str = ""
    down: str = ""
    before: bool = False


def decide(
    error: BaseException, attempt: int, step: Step, luck: float, passed: float = 0.0, *, blamed: bool = False
) -> Decision:
    """What becomes of a step that failed on its `attempt` (from 1), with `luck` in [0, 1) for the jitter.

    `passed` are the seconds since its first failure: a pause that would not fit into what is left of the time in
    place is spent parked. `blamed`: what it needs has answered others every time that it failed here, so that the
    fault is the event's own.
    """
    if isinstance(error, Unreadable):
        return Decision(DEAD)  # not the step's own error: nothing catches it
    names = {cls.__name__ for cls in type(error).__mro__}
    for catch in step.catch:
        if catch.error in names:
            return Decision(CAUGHT, catch=catch.error)
    if isinstance(error, FATAL) or not isinstance(error, Exception):
        return Decision(DEAD)
    policy = step.retry
    before = bool(names & set(policy.only))
    if not blamed and (down := down_of(error, step)):
        return Decision(WAIT, INFRASTRUCTURE_PAUSE, down=down, before=before)
    if isinstance(error, Unreachable):
        return Decision(WAIT, INFRASTRUCTURE_PAUSE, before=before)
    if (policy.only and not before) or names & set(policy.never) or attempt >= policy.times:
        return Decision(DEAD)
    after = pause(policy.backoff, attempt, luck)
    kind = AGAIN if attempt < IN_PLACE and passed + after <= IN_PLACE_SECONDS else PARK
    return Decision(kind, after, before=before)


def down_of(error: BaseException, step: Step) -> str:
    """The dependency of a step that an error says is down; "" where it says nothing of the kind.

    The errors that a need declares, or else :data:`DOWN` and HTTP statuses; where an error has a status, that decides.
    """
    if not step.needs:
        return ""
    names = {cls.__name__ for cls in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and status != TOO_MANY and status < SERVER_ERROR:
        return ""
    named = (need.name for need in step.needs if names & set(need.errors))
    usual = (need.name for need in step.needs if not need.errors and (isinstance(status, int) or names & DOWN))
    return next(named, "") or next(usual, "")


def pause(backoff: str, attempt: int, luck: float) -> float:
    """Seconds before the next attempt: full jitter, luck * min(cap, base * 2**(attempt - 1)).

    The formula is "Full Jitter" of AWS' "Exponential Backoff And Jitter" (2015).
    """
    base, _, cap = backoff.partition("..")
    first = seconds(base)
    return luck * min(seconds(cap) if cap else first, first * 2.0 ** (attempt - 1))
