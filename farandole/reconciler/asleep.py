"""Offsets of groups that sleep: brokers forget those of a group that has been empty for a week.

A pipeline that runs once a month would find none, and every record between would be undecided. So they are committed
once more, as they stand, for groups without members.
"""

from __future__ import annotations

import math
from collections import defaultdict

from farandole.clock import Clock
from farandole.errors import FarandoleError, Unreachable
from farandole.kafka.admin import Admin, TopicPartitionKey

EVERY = 86_400.0
"""Seconds after which the offsets of a group are committed once more; `offsets.retention.minutes` is seven days."""
EMPTY = "EMPTY"


class Asleep:
    """Keeps the offsets of sleeping groups. It remembers when in memory only: once more does no harm."""

    def __init__(self, admin: Admin, clock: Clock, every: float = EVERY) -> None:
        self._admin, self._clock, self._every = admin, clock, every
        self._kept: dict[str, float] = {}

    def keep(self, group: str) -> int:
        """How many offsets were committed once more: those of an empty group, once a day. Raises Unreachable.

        One that wakes meanwhile is let alone: the broker refuses offsets for a group with members. Had it come and gone
        in between, its next start would find its own mark below its position, and go on from its position.
        """
        now = self._clock.monotonic()
        if now - self._kept.get(group, -math.inf) < self._every or self._admin.group(group).state != EMPTY:
            return 0
        by_text: defaultdict[str, dict[TopicPartitionKey, int]] = defaultdict(dict)
        for place, at in self._admin.committed(group).items():
            by_text[at.metadata or ""][place] = at.offset
        try:
            for text, offsets in by_text.items():
                self._admin.seed(group, offsets, text)
        except Unreachable:
            raise
        except FarandoleError:
            return 0  # it has woken
        self._kept[group] = now
        return sum(len(offsets) for offsets in by_text.values())
