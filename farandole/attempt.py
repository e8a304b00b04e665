"""What a step may know about the try it is part of."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Protocol

from farandole.event import Interval


class Cancelled(Protocol):
    """A flag that is set when the attempt's result will not be wanted: its time is up, or its partition is lost."""

    def is_set(self) -> bool:
        """Whether it is time to stop."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a step. `key` is the same for every try of it: send it as the Idempotency-Key.

    `fence` counts the changes of ownership of the partition: a store that compares it refuses a late owner.

    >>> attempt = Attempt(key="k5", number=1, run_id="8c1f")
    >>> attempt.cancelled.is_set()
    False
    """

    key: str
    number: int  # from 1
    run_id: str
    interval: Interval | None = None
    fence: int = 0
    cancelled: Cancelled = field(default_factory=Flag, compare=False)

    def __reduce__(self) -> tuple[type[Attempt], tuple[object, ...]]:
        """It travels to an isolated step's process without its flag: there the process is told, by SIGTERM."""
        return type(self), (self.key, self.number, self.run_id, self.interval, self.fence)
