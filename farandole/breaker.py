"""A circuit breaker, pure: what a dependency's failures and answers make of it. Time is an argument.

```text
           5 failures in a row              the pause is over: one run goes to see
  closed ───────────────────────▶ open ───────────────────────▶ half-open
    ▲                              ▲                               │  │
    └── it answered ───────────────┼───────────────────────────────┘  │
                                   └── it failed: twice the pause ────┘
```

All instances of a pipeline share one breaker for each dependency (:mod:`farandole.store.breakers`), so a moment is
one of the database's clock, in milliseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"
FAILURES = 5
"""Failures in a row, without an answer between, that open a breaker."""
FIRST, LONGEST = 1_000, 30_000
"""The first pause, and the longest: each failed probe doubles it."""
LEASE = 10_000
"""A probe whose instance gives no sign of life for so long is somebody else's."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """Where one stands. `probe` is whoever may send one run to see, until `lease`."""

    name: str
    state: str = CLOSED
    failures: int = 0
    since: int = 0  # when it opened
    until: int = 0  # when the pause is over
    probes: int = 0  # that failed since it opened
    probe: str = ""
    lease: int = 0
    error: str = ""  # the last one

    def failed(self, now: int, times: int = 1, error: str = "") -> Breaker:
        """Runs that were no probes found the dependency down. What began before it opened tells nothing new."""
        if self.state != CLOSED:
            return self
        counted = replace(self, failures=self.failures + times, error=error or self.error)
        return counted.opened(now) if counted.failures >= FAILURES else counted

    def opened(self, now: int, error: str = "") -> Breaker:
        """It opens at once."""
        if self.state != CLOSED:
            return self
        return replace(self, state=OPEN, since=now, until=now + FIRST, probes=0, error=error or self.error)

    def answered(self) -> Breaker:
        """A run that was no probe had an answer: the row of failures is broken."""
        return replace(self, failures=0) if self.state == CLOSED and self.failures else self

    def asked(self, now: int, who: str) -> Breaker:
        """`who` has a run to send as the probe, or has one under way. It is theirs if the answer says so."""
        mine = self.state == HALF_OPEN and (self.probe == who or now >= self.lease)
        if mine or (self.state == OPEN and now >= self.until):
            return replace(self, state=HALF_OPEN, probe=who, lease=now + LEASE)
        return self

    def probed(self, now: int, who: str, *, answer: bool | None, error: str = "") -> Breaker:
        """How the probe of `who` went; None: it came to no answer, and another one may go at once."""
        if self.state != HALF_OPEN or self.probe != who:
            return self
        if answer:
            return Breaker(self.name)
        over = replace(self, state=OPEN, until=now, probe="", lease=0, error=error or self.error)
        if answer is None:
            return over
        return replace(over, until=now + min(LONGEST, FIRST << min(self.probes + 1, 16)), probes=self.probes + 1)


class Budget:
    """How much of a pipeline's work is work done again: retries against runs, over the last ten seconds.

    The numbers are those of Finagle's RetryBudget: a fifth, and ten a second that are always free, so that a handful of
    bad events in a quiet pipeline holds nobody up. It is told running totals, so that a run costs it nothing.
    """

    SECONDS, SHARE, FREE = 10, 0.2, 100

    def __init__(self) -> None:
        self._before: deque[tuple[int, int, int]] = deque()  # a second, and the totals as it began
        self._last = (0, 0)

    def spent(self, now: float, runs: int, retries: int) -> bool:
        """Whether more is tried again than the budget allows, with so many runs ended and retries asked for in all."""
        second = int(now)
        if not self._before or self._before[-1][0] != second:
            self._before.append((second, self._last[0], self._last[1]))
        self._last = (runs, retries)
        while self._before[0][0] <= second - self.SECONDS:
            self._before.popleft()
        begun, again = runs - self._before[0][1], retries - self._before[0][2]
        return again >= self.FREE and again > self.SHARE * begun

    def forget(self) -> None:
        """It is counted anew from here on."""
        self._before.clear()
