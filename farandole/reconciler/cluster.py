"""What a sweep asks and writes, how far it goes, and where a pipeline stands by its own word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from farandole.clock import Clock
from farandole.declaration import Declaration
from farandole.event import Record
from farandole.kafka.admin import Admin, Committed
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Placed
from farandole.kafka.permissions import Denied
from farandole.kafka.reader import TopicReader
from farandole.rewind import mark_of
from farandole.topics import SEED_MARK

SHARE, LEAST = 0.01, 100
"""A sweep re-emits so much of a partition at most, or so many events: one that wants more is more likely wrong."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The servers. `send` returns when all is acknowledged, and raises Unreachable otherwise.

    `denied` says what a pipeline needs and may not do.
    """

    admin: Admin
    read: Callable[[str], TopicReader]
    codec: Codec
    send: Callable[[Sequence[Record]], Sequence[Placed]]
    clock: Clock
    instance: str = ""
    version: str = ""
    denied: Callable[[Declaration], Sequence[Denied]] = lambda _: ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a sweep goes. `plan`: nothing is sent. `most`: so many events of a partition, whatever its share."""

    plan: bool = False
    most: int | None = None

    def of(self, events: int) -> int:
        """How many events of a partition with so many may be missing before somebody should look first."""
        return max(LEAST, int(SHARE * events)) if self.most is None else self.most


def position_of(committed: Committed | None) -> tuple[int | None, str]:
    """Up to where a pipeline says that it has settled a partition, or None and the reason.

    Only an offset with its own mark is its word. What somebody else has set it will refuse, or take for a rewind, when
    it starts next: until then those records may be on their way.
    """
    if committed is None:
        return None, "it has no committed offset: it never ran, or the offset has expired; its next start mends that"
    if mark_of(committed.metadata or "") is not None:
        return committed.offset, ""
    if committed.metadata == SEED_MARK:
        return None, "it has not begun here yet"
    return None, f"offset {committed.offset} was set by somebody else; its next start or commit decides"
