"""What must have happened, from the landed files alone, and how what did happen differs from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from farandole.demo.answer import compare_mart, compare_tables
from farandole.demo.tally import LANDED, MERGED, REFRESHED, STAGED, Tally
from farandole.lake import Lake
from farandole.sources.files import scan
from farandole.sources.metadata import Source

RELATIONALIZE, MERGE, MART = "relationalize", "merge", "mart-delays"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the files that stand in the raw folder must lead to. `stories` are the ids of their landings."""

    stories: frozenset[str]
    staged: int
    hours: int

    def runs(self) -> dict[str, int]:
        """How many runs each pipeline must have, in the order of the chain."""
        return {RELATIONALIZE: len(self.stories), MERGE: self.staged, MART: self.hours}

    def events(self) -> dict[str, int]:
        """How many different events each topic must hold."""
        return {LANDED: len(self.stories), STAGED: self.staged, MERGED: self.staged, REFRESHED: self.hours}


def expected(raw: str, sources: list[Source]) -> Expected:
    """What must come of the files under `raw`: an event per file, a merge per table of it, a refresh per hour."""
    shapes = {source.source: len(source.shapes()) for source in sources}
    landed = scan(raw, sources)
    hours: dict[str, set[datetime]] = {"flights": set(), "weather": set()}
    for file in landed:
        if file.source in hours:
            hours[file.source].add(file.interval.start)
    both = hours["flights"] & hours["weather"]
    return Expected(frozenset(f.event_id for f in landed), sum(shapes[f.source] for f in landed), len(both))


def differences(tally: Tally, wanted: Expected, lake: Lake, days: int) -> list[str]:
    """Everything that is not as it must be; empty if each run and each event is there once, and the rows agree."""
    return [*_of_runs(tally, wanted), *_of_events(tally, wanted), *compare_mart(lake, days), *compare_tables(lake)]


def _of_runs(tally: Tally, wanted: Expected) -> Iterator[str]:
    for pipeline, number in wanted.runs().items():
        ours = {i: r for i, r in tally.runs.items() if r.pipeline == pipeline and r.story in wanted.stories}
        if len(ours) != number:
            yield f"{pipeline} has {len(ours)} runs, and not {number}"
        for identity, run in ours.items():
            if run.states != {"done": 1}:
                ends = ", ".join(f"{state} {times} times" for state, times in run.states.items())
                yield f"run {identity} of {pipeline} ended other than once and well: {ends}"


def _of_events(tally: Tally, wanted: Expected) -> Iterator[str]:
    for topic, number in wanted.events().items():
        ours = {i: e for i, e in tally.events[topic].items() if e.story in wanted.stories}
        if len(ours) != number:
            yield f"{topic} has {len(ours)} events, and not {number}"
        if topic != LANDED:  # landings are told twice on purpose
            yield from (f"event {i} stands {e.copies} times in {topic}" for i, e in ours.items() if e.copies != 1)
