"""Which offsets of a partition have an outcome: a settled prefix, and one bit for each offset above it.

Pure. Bits, not intervals: on a topic that is written in transactions every second offset may be a marker, and an
interval for each would take a hundred times as much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from farandole.ledger.entry import FINAL, outranks, rank

_BITS = 1 << 16  # offsets of a chunk
_BYTES = _BITS >> 3
_FULL = b"\xff" * _BYTES
Ranges = list[tuple[int, int]]


@dataclass(slots=True)
class Coverage:
    """One partition of a subscription, from the offset where the pipeline began.

    `proven`: every record below has an outcome, and no bits are kept. `counts` are outcomes that stay; `open` holds
    the offsets whose outcome may still change (parked, waiting, dead, uncertain), with life and state.
    """

    begins: int | None = None
    proven: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    open: dict[int, tuple[int, str]] = field(default_factory=dict)
    _bits: dict[int, bytearray] = field(default_factory=dict)

    def began(self, at: int) -> None:
        """The pipeline began here, or earlier. Nothing goes below what is proven."""
        if self.proven is None and (self.begins is None or at < self.begins):
            self.begins = at

    def settled(self, offset: int, outcome: str) -> None:
        """An outcome that stays. Told again, whatever it says, it changes nothing."""
        if self.covers(offset):
            if self.open.pop(offset, None) is None:
                return
        else:
            self._set(offset)
        self.counts[outcome] += 1

    def stands(self, offset: int, life: int, state: str) -> None:
        """Where the run of a record stands."""
        if state == "joined":
            return  # of a member of a set: the entry of its run says what became of it
        if rank(state) >= FINAL:
            self.settled(offset, state)
        elif not self.covers(offset):
            self._set(offset)
            self.open[offset] = (life, state)
        elif offset in self.open and outranks((life, state), self.open[offset]):
            self.open[offset] = (life, state)

    def covers(self, offset: int) -> bool:
        """Whether a record has an outcome, or an offset is known to hold none."""
        if self.proven is not None and offset < self.proven:
            return True
        chunk = self._bits.get(offset // _BITS)
        return chunk is not None and bool(chunk[(offset % _BITS) >> 3] & (1 << (offset & 7)))

    def uncovered(self, low: int, position: int) -> Ranges:
        """The offsets of [low, position) that count and have no outcome: records, or markers of transactions."""
        if self.begins is None:
            return []
        found: Ranges = []
        for start, end in self._holes(max(low, self.begins, self.proven or 0), position):
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found

    def empty(self, offsets: Iterable[int]) -> None:
        """These offsets were read and hold no record: markers, aborted or compacted records."""
        for offset in offsets:
            if not self.covers(offset):
                self._set(offset)

    def prove(self, low: int, position: int) -> None:
        """Take in as proven what has no hole any more, below a position; what retention ate is no hole."""
        if self.begins is None or position <= self.begins:
            return
        at = max(low, self.begins, self.proven or 0)
        first = next(self._holes(at, position), (position, position))[0]
        self.proven = max(self.proven or 0, first)
        for number in [n for n in self._bits if (n + 1) * _BITS <= self.proven]:
            del self._bits[number]

    def outcomes(self) -> Counter[str]:
        """How many records came to what, open ones by their state."""
        return self.counts + Counter(state for _, state in self.open.values())

    def _set(self, offset: int) -> None:
        self.began(offset)
        chunk = self._bits.setdefault(offset // _BITS, bytearray(_BYTES))
        chunk[(offset % _BITS) >> 3] |= 1 << (offset & 7)

    def _holes(self, at: int, end: int) -> Iterator[tuple[int, int]]:
        while at < end:
            number, stop = at // _BITS, min(end, (at // _BITS + 1) * _BITS)
            chunk = self._bits.get(number)
            if chunk is None:
                yield at, stop
            elif chunk != _FULL:
                for offset in range(at, stop):
                    if not chunk[(offset % _BITS) >> 3] & (1 << (offset & 7)):
                        yield offset, offset + 1
            at = stop

    def record(self) -> dict[str, Any]:
        """As it is kept between two sweeps."""
        return {
            "begins": self.begins,
            "proven": self.proven,
            "counts": dict(self.counts),
            "open": [(offset, life, state) for offset, (life, state) in self.open.items()],
            "bits": {number: bytes(chunk) for number, chunk in self._bits.items()},
        }

    @classmethod
    def of(cls, told: dict[str, Any]) -> Coverage:
        """From what was kept."""
        return cls(
            told["begins"],
            told["proven"],
            Counter(told["counts"]),
            {offset: (life, state) for offset, life, state in told["open"]},
            {number: bytearray(chunk) for number, chunk in told["bits"].items()},
        )
