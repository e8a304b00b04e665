"""Which dead letters are meant, what became of each, and which of them belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from farandole.deadletter import DeadLetter
from farandole.errors import FarandoleError
from farandole.ledger.entry import FINAL, rank

OPEN, UNDER_WAY, AGAIN, UNCERTAIN, RESOLVED, SETTLED = (
    "open",
    "under way",
    "died again",
    "uncertain",
    "resolved",
    "settled",
)
STATES = (OPEN, UNDER_WAY, AGAIN, UNCERTAIN, RESOLVED, SETTLED)
"""What became of a letter: nothing yet; its next life runs or is parked; that life ended in a letter of its own, or in
doubt; a person settled it; its run is settled."""

SENT, INCOMPLETE, UNKNOWN = "sent by a plan", "incomplete", "of an unknown topic"
"""Further reasons to leave a letter out: another plan has sent it and its run has not ended; letters of its joined run
are gone; nothing says where its event stood."""

Place = tuple[int, int]
"""Partition and offset of a letter in its topic."""


class Standing(NamedTuple):
    """Where a run stands in the ledger."""

    life: int
    state: str


def state_of(life: int, standing: Standing | None) -> str:
    """What became of a letter of a life, by where its run stands now. A run that the ledger lost is open.

    >>> state_of(0, Standing(1, "dead"))
    'died again'
    """
    if standing is None:
        return OPEN
    if rank(standing.state) >= FINAL:
        return RESOLVED if standing.state == "resolved" else SETTLED
    if standing.life <= life:
        return OPEN
    return {"dead": AGAIN, "uncertain": UNCERTAIN}.get(standing.state, UNDER_WAY)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: all that meet every condition that is set. Times are milliseconds since 1970."""

    ids: tuple[str, ...] = ()  # of letters, runs or events, or their beginnings
    group: str = ""  # a fingerprint or its beginning
    key: str | None = None  # the record key, hex
    since: int = 0
    until: int = 0

    def takes(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant."""
        return (
            (not self.ids or bool(self.named(letter)))
            and letter.fingerprint.startswith(self.group)
            and (self.key is None or (letter.raw.key or b"").hex() == self.key)
            and letter.raw.timestamp >= self.since
            and (not self.until or letter.raw.timestamp < self.until)
        )

    def named(self, letter: DeadLetter) -> list[str]:
        """The ids that name a letter."""
        names = [name for name in (letter.id, letter.run_id, letter.event_id) if name]
        return [one for one in self.ids if any(name.startswith(one) for name in names)]


@dataclass(frozen=True, slots=True)
class Case:
    """The letters of one run in one life, in the order of its set: they go together or not at all."""

    run_id: str
    life: int
    places: tuple[Place, ...]


class Found:
    """The letters that a selection means, gathered one by one; of each only its place is kept."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self._parts: dict[tuple[str, int], dict[int, tuple[int, Place]]] = {}
        self._whole: dict[tuple[str, int], int] = {}
        self._meant: set[tuple[str, int]] = set()
        self._named: dict[str, set[str]] = {one: set() for one in selection.ids}
        self.left_out: Counter[str] = Counter()
        self.sources: set[str] = set()
        self.oldest = 0
        """When the oldest of them was written, milliseconds since 1970."""

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Look at more letters. One that is no run's, and names no topic to run it from, is left out."""
        for letter in letters:
            meant = self.selection.takes(letter)
            if not meant and letter.parts == 1:
                continue  # a letter of a joined run is kept: another part of it may be meant
            if not letter.run_id:
                self.left_out[UNKNOWN] += meant
                continue
            case = (letter.run_id, letter.life)
            at = (letter.raw.partition, letter.raw.offset)
            self._parts.setdefault(case, {}).setdefault(letter.part, (letter.raw.timestamp, at))
            self._whole[case] = letter.parts
            if meant:
                self._meant.add(case)
                self.sources.add(letter.topic)
                for one in self.selection.named(letter):
                    self._named[one].add(letter.run_id)

    def cases(self) -> list[Case]:
        """The runs whose letters are all there, the oldest first, so that events of one record key keep their order.

        Call it once. Raises FarandoleError for ids that name no run or several.
        """
        for one, runs in self._named.items():
            if len(runs) != 1:
                raise _unclear(one, runs)
        ordered = sorted(self._meant, key=lambda case: min(self._parts[case].values()))
        found = []
        for run, life in ordered:
            parts = self._parts[(run, life)]
            self.oldest = min(self.oldest or parts[min(parts)][0], parts[min(parts)][0])
            if len(parts) < self._whole[(run, life)]:
                self.left_out[INCOMPLETE] += len(parts)
            else:
                found.append(Case(run, life, tuple(parts[n][1] for n in sorted(parts))))
        return found


def _unclear(name: str, runs: Collection[str]) -> FarandoleError:
    if not runs:
        return FarandoleError(f"there is no dead letter {name!r}", place="dlq", hint="`farandole dlq list` shows them")
    few = ", ".join(sorted(runs)[:5])
    return FarandoleError(
        f"letters of more than one run begin with {name!r}: {few}", place="dlq", hint="give more of the id"
    )


def cases_of(places: Sequence[Place], letters: Mapping[Place, DeadLetter]) -> list[Case]:
    """The cases again from the places that a plan noted; one of which a letter is gone is left out."""
    parts: dict[tuple[str, int], list[Place]] = {}
    whole: dict[tuple[str, int], int] = {}
    for place in places:
        if (letter := letters.get(place)) is not None:
            parts.setdefault((letter.run_id, letter.life), []).append(place)
            whole[(letter.run_id, letter.life)] = letter.parts
    return [Case(*case, tuple(at)) for case, at in parts.items() if len(at) == whole[case]]
