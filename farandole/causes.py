"""Dead letters by their cause: one line each, however many there are of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from farandole.deadletter import DeadLetter


@dataclass(slots=True)
class Cause:
    """All letters of one pipeline with one fingerprint, as far as they were counted; `example` is the newest."""

    pipeline: str
    fingerprint: str
    example: DeadLetter
    letters: int = 0
    first: int = 0  # when one was written, milliseconds since 1970
    last: int = 0
    versions: set[str] = field(default_factory=set)
    states: Counter[str] = field(default_factory=Counter)

    def add(self, letter: DeadLetter, state: str | None) -> None:
        """One more; None where nobody knows its state."""
        at = letter.raw.timestamp
        self.first = min(self.first or at, at)
        if at >= self.last:
            self.last, self.example = at, letter
        self.letters += 1
        if letter.pipeline_version:
            self.versions.add(letter.pipeline_version)
        if state is not None:
            self.states[state] += 1


def count(letters: Iterable[tuple[DeadLetter, str | None]]) -> list[Cause]:
    """The causes of letters, those with the most first. What is kept grows with the causes, not with the letters."""
    found: dict[tuple[str, str], Cause] = {}
    for letter, state in letters:
        name = (letter.group, letter.fingerprint)
        if name not in found:
            found[name] = Cause(*name, letter)
        found[name].add(letter, state)
    return sorted(found.values(), key=lambda cause: (-cause.letters, cause.pipeline, cause.fingerprint))


def with_states(
    letters: Iterable[DeadLetter], states: Mapping[str, str] | None
) -> Iterable[tuple[DeadLetter, str | None]]:
    """Each letter with its state; None for all where nobody knows."""
    return ((letter, states[letter.id] if states is not None else None) for letter in letters)
