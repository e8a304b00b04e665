"""Which offsets of a partition a pipeline has refused: one bit each, as far back as somebody may still ask. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_BITS = 1 << 16  # offsets of a chunk
_CHUNKS = 64
"""So many chunks are kept of a partition at most; where another pipeline is further behind, older ones go."""


@dataclass(slots=True)
class Refused:
    """The refused offsets of one partition."""

    chunks: dict[int, bytearray] = field(default_factory=dict)

    def add(self, offset: int) -> None:
        """One more."""
        number, at = divmod(offset, _BITS)
        chunk = self.chunks.get(number)
        if chunk is None:
            chunk = self.chunks[number] = bytearray(_BITS >> 3)
            if len(self.chunks) > _CHUNKS:
                del self.chunks[min(self.chunks)]
        chunk[at >> 3] |= 1 << (at & 7)

    def forget(self, below: int) -> None:
        """Nobody asks for what is below an offset any more."""
        for number in [n for n in self.chunks if (n + 1) * _BITS <= below]:
            del self.chunks[number]

    def record(self) -> dict[int, bytes]:
        """As it is kept between two sweeps."""
        return {number: bytes(chunk) for number, chunk in self.chunks.items()}

    @classmethod
    def of(cls, told: dict[int, Any]) -> Refused:
        """From what was kept."""
        return cls({number: bytearray(chunk) for number, chunk in told.items()})


def refused_by_all(many: Sequence[Refused], low: int, high: int) -> tuple[int, int]:
    """How many offsets of [low, high) are refused by each of them, and the last one; (0, -1): none."""
    count, last = 0, -1
    for number in sorted(set.intersection(*(set(one.chunks) for one in many)) if many else ()):
        first = number * _BITS
        bits = _between(low - first, high - first)
        for one in many:
            bits &= int.from_bytes(one.chunks[number], "little")
        if bits:
            count, last = count + bits.bit_count(), first + bits.bit_length() - 1
    return count, last


def _between(low: int, high: int) -> int:
    low, high = max(0, low), min(_BITS, high)
    return ((1 << high) - 1) & ~((1 << low) - 1) if high > low else 0
