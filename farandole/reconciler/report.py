"""What a sweep found, per partition and per subscription, and the fact that tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from farandole.event import Interval
from farandole.ledger.entry import Entry
from farandole.reconciler.findings import Findings

SERVICE = "reconciler"
"""The name under which sweeps stand in the ledger, and of the reconciler's own database."""
SWEPT = "sweep.done"
_DAY = 86_400_000
_AT_MOST = 50  # ranges that a fact names


@dataclass(slots=True)
class Found:
    """One partition of one subscription. `missed` counts records without an outcome below the position.

    Of these, `reemitted` were sent now, `pending` were sent before and are under way, `dead` have become letters;
    what is left is `open`. `note` says why a partition could not be judged, or was not mended.
    """

    topic: str
    topic_id: str
    partition: int
    begins: int = 0
    position: int | None = None
    behind: int = 0  # offsets that the pipeline has not come to yet
    outcomes: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    reemitted: int = 0
    pending: int = 0
    dead: int = 0
    note: str = ""

    @property
    def open(self) -> int:
        """Missed, and nothing was done about it."""
        return self.missed - self.reemitted - self.pending - self.dead


@dataclass(slots=True)
class Swept:
    """One pipeline, swept. `note` is set where it could not be swept at all; `kept`: offsets of its sleeping group."""

    pipeline: str
    found: list[Found] = field(default_factory=list)
    note: str = ""
    kept: int = 0
    repairs: int = 0  # runs that were asked to be computed again
    findings: Findings = field(default_factory=Findings)
    started_at: int = 0
    milliseconds: int = 0

    @property
    def undecided(self) -> list[Found]:
        """The partitions that could not be judged: there is no position of the pipeline's own."""
        return [one for one in self.found if one.position is None]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing, or what is missing has been sent, or is a letter now."""
        return not self.note and not self.findings.attention and not any(one.open for one in self.found)

    def rows(self) -> Iterable[dict[str, Any]]:
        """One for each subscription: landed = done + filtered + waiting + parked + dead + … + missed."""
        if self.note:
            yield {"pipeline": self.pipeline, "topic": None, "note": self.note, "findings": []}
        for topic in dict.fromkeys(one.topic for one in self.found):
            many = [one for one in self.found if one.topic == topic]
            outcomes = sum((one.outcomes for one in many), Counter[str]())
            missed = sum(one.missed for one in many)
            yield {
                "pipeline": self.pipeline,
                "topic": topic,
                "landed": outcomes.total() + missed,
                **_named(outcomes),
                "missed": missed,
                "reemitted": sum(one.reemitted for one in many),
                "pending": sum(one.pending for one in many),
                "given_up": sum(one.dead for one in many),
                "behind": sum(one.behind for one in many),
                "note": "; ".join(dict.fromkeys(one.note for one in many if one.note)) or None,
                "findings": self.findings.of(topic),
            }
        for topic in dict.fromkeys(one.topic for one in self.findings.standing):
            if not any(one.topic == topic for one in self.found):
                yield {"pipeline": self.pipeline, "topic": topic, "note": None, "findings": self.findings.of(topic)}

    def entry(self) -> Entry:
        """The sweep as a fact in the ledger: one a day and pipeline stays, and each that found something missing."""
        outcomes = sum((one.outcomes for one in self.found), Counter[str]())
        missed = sum(one.missed for one in self.found)
        told = {
            "proven": "; ".join(_range(one) for one in self.found if one.position is not None),
            "undecided": "; ".join(f"{one.topic}[{one.partition}]" for one in self.undecided[:_AT_MOST]),
            "landed": str(outcomes.total() + missed),
            **{name: str(count) for name, count in sorted(outcomes.items())},
            "missed": str(missed),
            "reemitted": str(sum(one.reemitted for one in self.found)),
            "pending": str(sum(one.pending for one in self.found)),
            "given_up": str(sum(one.dead for one in self.found)),
            "offsets_kept": str(self.kept or ""),
            "repairs": str(self.repairs or ""),
            "seconds": f"{self.milliseconds / 1000:.3f}",
            "note": self.note or "; ".join(dict.fromkeys(one.note for one in self.found if one.note)),
            **self.findings.told(),
        }
        return _fact(self, bool(missed or (self.note and not self.findings.standing) or self.findings.changed), told)


@dataclass(slots=True)
class Compared:
    """The inventory of one source, compared with its topic: `landed` files lie there, `missed` were never told.

    `wrong` says what could not be listed; `note` why nothing was compared, or nothing told.
    """

    pipeline: str
    topic: str
    landed: int = 0
    missed: int = 0
    announced: int = 0
    wrong: list[str] = field(default_factory=list)
    note: str = ""
    started_at: int = 0
    milliseconds: int = 0
    ids: Sequence[str] = ()  # of the events that were never told
    intervals: dict[Interval, tuple[int, int]] = field(default_factory=dict)  # of a span: files, and those never told
    asked: dict[str, str] = field(default_factory=dict)  # where a person asked for a span: which, who and why

    def count(self, events: Iterable[tuple[str, Any]], missing: Iterable[tuple[str, Any]]) -> None:
        """By interval, in order: how many files lie there, and how many were never told."""
        there, untold = (Counter(event.interval for _, event in many) for many in (events, missing))
        self.intervals = {one: (there[one], untold[one]) for one in sorted(there)}

    @property
    def whole(self) -> bool:
        """Whether all that lies there has been told."""
        return not self.note and not self.wrong and self.missed == self.announced

    def rows(self) -> Iterable[dict[str, Any]]:
        """One: landed = told + missed."""
        yield {
            "pipeline": self.pipeline,
            "topic": self.topic,
            "landed": self.landed,
            "told": self.landed - self.missed,
            "missed": self.missed,
            "reemitted": self.announced,
            "note": self._said() or None,
            "findings": [],
        }

    def entry(self) -> Entry:
        """The comparison as a fact in the ledger: one a day and source stays, and each that found something."""
        told = {
            "landed": str(self.landed),
            "told": str(self.landed - self.missed),
            "missed": str(self.missed),
            "reemitted": str(self.announced),
            "seconds": f"{self.milliseconds / 1000:.3f}",
            "note": self._said(),
            **self.asked,
        }
        return _fact(self, bool(self.missed or self.note or self.asked), told)

    def _said(self) -> str:
        return "; ".join([*([self.note] if self.note else []), *self.wrong])


@dataclass(slots=True)
class Listened:
    """What was found of topics, whoever listens to them: the events that nobody takes."""

    findings: Findings
    note: str = ""
    started_at: int = 0
    milliseconds: int = 0
    pipeline: str = SERVICE

    @property
    def whole(self) -> bool:
        """Whether it could be looked at, and nobody has to come."""
        return not self.note and not self.findings.attention

    def rows(self) -> Iterable[dict[str, Any]]:
        """One for each topic of which something was found."""
        topics = dict.fromkeys(one.topic for one in self.findings.standing)
        for topic in topics if not self.note else [None]:
            note = self.note or None
            yield {"pipeline": self.pipeline, "topic": topic, "note": note, "findings": self.findings.of(topic)}

    def entry(self) -> Entry:
        """The look as a fact in the ledger: one a day stays, and each that found something new."""
        told = {"seconds": f"{self.milliseconds / 1000:.3f}", "note": self.note, **self.findings.told()}
        return _fact(self, bool(self.note or self.findings.changed), told)


Told = Swept | Compared | Listened
"""What a sweep gives."""


def _fact(swept: Told, special: bool, told: dict[str, str]) -> Entry:  # noqa: FBT001
    at = str(swept.started_at) if special else f"day-{swept.started_at // _DAY}"
    entry = Entry("fact", SERVICE, f"fact:{SERVICE}:{SWEPT}:{swept.pipeline}:{at}", 0, "fact", fact=SWEPT)
    entry.detail = {"pipeline": swept.pipeline, **{name: text for name, text in told.items() if text}}
    entry.started_at, entry.ended_at = swept.started_at, swept.started_at + swept.milliseconds
    return entry


def _range(one: Found) -> str:
    return f"{one.topic}[{one.partition}] {one.begins}..{one.position}"


def _named(outcomes: Counter[str]) -> dict[str, object]:
    filtered = {name.partition(": ")[2]: n for name, n in outcomes.items() if name.startswith("filtered")}
    named: dict[str, object] = {
        name: outcomes.get(name, 0) for name in ("done", "caught", "duplicate", "waiting", "parked", "dead")
    }
    known = {*named, *(name for name in outcomes if name.startswith("filtered"))}
    return {
        **named,
        "filtered": sum(filtered.values()),
        "filtered_by": filtered,
        "other": {name: n for name, n in outcomes.items() if name not in known},
    }


def whole(swept: Sequence[Told]) -> bool:
    """Whether nothing is left to be done anywhere."""
    return all(one.whole for one in swept)
