"""Whether those that watch over others are at work: the last beat of each, and when it has been too long. Pure.

Times are the broker's, of the moment at which a beat came to stand on the topic; no host's clock is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ROLES = ("sentinel", "reconciler", "clock", "projector")
"""Those that watch over others, and over each other. The first that is at work and can tells people of the others."""
MISSED = 2
"""Beats that did not come: then it counts as silent."""
AFTER_END = 600.0
"""Seconds after which one is missed that was told to end: time to deploy another."""

News = tuple[Literal["watcher.silent", "watcher.back"], "Beat"]
"""What has changed, with the last beat from before the silence."""


@dataclass(frozen=True, slots=True)
class Beat:
    """An instance of a role is at work. `at`: milliseconds since 1970, of the broker; `every`: seconds."""

    role: str
    instance: str
    every: float = 10.0
    ended: bool = False
    tells: bool = False
    at: int = 0

    @property
    def key(self) -> bytes:
        """The record key on the topic."""
        return f"{self.role}/{self.instance}".encode()

    def record(self) -> dict[str, Any]:
        """The Avro record; `at` is the topic's own."""
        return {
            "role": self.role,
            "instance": self.instance,
            "every_seconds": self.every,
            "ended": self.ended,
            "tells": self.tells,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any], at: int) -> Beat:
        """From a decoded Avro record that stands on the topic since `at`."""
        return cls(record["role"], record["instance"], record["every_seconds"], record["ended"], record["tells"], at)

    def stands(self, now: int) -> bool:
        """Whether it may be relied on at `now` that this instance is at work, or is being replaced.

        >>> beat = Beat("clock", "a", every=10.0, at=0)
        >>> beat.stands(20_000), beat.stands(20_001)
        (True, False)
        """
        return now - self.at <= (AFTER_END if self.ended else MISSED * self.every) * 1000


def teller(beats: Collection[Beat], now: int) -> Beat | None:
    """Which instance tells people: of those at work that have routes the first, by role and then by name."""
    able = [beat for beat in beats if beat.tells and not beat.ended and beat.stands(now) and beat.role in ROLES]
    return min(able, key=lambda beat: (ROLES.index(beat.role), beat.instance), default=None)


@dataclass(slots=True)
class Silence:
    """The roles of which no instance beats any more, as one observer sees them. Who never beat is not missed."""

    silent: dict[str, Beat] = field(default_factory=dict)

    def look(self, beats: Collection[Beat], now: int) -> list[News]:
        """What has changed since the last look, at `now` (milliseconds since 1970, of the broker)."""
        news: list[News] = []
        for role in dict.fromkeys(beat.role for beat in beats):
            of_role = sorted((beat for beat in beats if beat.role == role), key=lambda beat: beat.at)
            # one that was told to end excuses only what came before it
            if of_role[-1].stands(now) or any(beat.stands(now) for beat in of_role if not beat.ended):
                if (before := self.silent.pop(role, None)) is not None:
                    news.append(("watcher.back", before))
            elif role not in self.silent:
                self.silent[role] = of_role[-1]
                news.append(("watcher.silent", self.silent[role]))
        return news
