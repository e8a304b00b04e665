"""A dead letter's way back to its pipeline: which are open, a plan first, then step by step, stopping by itself.

Nothing here reads or writes a topic. A life runs once however often it is sent, so whoever is interrupted, or in
doubt, sends again; what was settled is what the ledger says, never what was sent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

from farandole.clock import Clock
from farandole.control import PLAN, PROGRESS, Command, plan_id
from farandole.delivery import REDRIVE
from farandole.errors import FarandoleError
from farandole.selection import (
    AGAIN,
    OPEN,
    SENT,
    UNCERTAIN,
    UNDER_WAY,
    Case,
    Found,
    Place,
    Selection,
    Standing,
    state_of,
)

_LETTERS = "letters-"
LADDER = (1, 10, 100)
"""How many runs the first steps take; the last step takes the rest."""
ENOUGH = 100
"""From so many ended runs on the share of failures is judged before a step is over."""
IDS_AT_ONCE = 40_000
"""Letters that one record of a plan names: below 500 kB."""

RUNNING, WAITING, STOPPED, FINISHED = "running", "waiting", "stopped", "finished"


@dataclass(frozen=True, slots=True)
class RedrivePlan:
    """What a redrive will do: which runs, in which order and steps, how fast, and when it stops by itself."""

    id: str
    pipeline: str
    topic: str
    selection: Selection
    cases: tuple[Case, ...]
    rate: float
    limit: float  # of the runs of a step that have ended, the share that may have failed
    created: int
    actor: str
    reason: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    kind: str = REDRIVE  # or RESOLVE, which settles the letters without running them

    @property
    def letters(self) -> int:
        """How many letters go."""
        return sum(len(case.places) for case in self.cases)

    @property
    def steps(self) -> list[tuple[Case, ...]]:
        """1, 10, 100, and the rest. What runs nothing needs no care: one step."""
        steps, at = [], 0
        for size in (*(LADDER if self.kind == REDRIVE else ()), len(self.cases)):
            if step := self.cases[at : at + size]:
                steps.append(step)
            at += len(step)
        return steps

    def notes(self) -> list[Command]:
        """As they stand on the control topic: the letters first, so that a plan that is there is whole."""
        names = [_name(place) for case in self.cases for place in case.places]
        parts = [names[at : at + IDS_AT_ONCE] for at in range(0, len(names), IDS_AT_ONCE)]
        kept = [
            Command(plan_id(self.id, f"{_LETTERS}{n}"), PLAN, self.pipeline, at=self.created, ids=tuple(part))
            for n, part in enumerate(parts)
        ]
        return [*kept, self.note()]

    def note(self) -> Command:
        """The plan without its letters."""
        told = {
            "act": self.kind,
            "topic": self.topic,
            "selection": json.dumps(asdict(self.selection)),
            "letters": str(self.letters),
            "runs": str(len(self.cases)),
            "rate": repr(self.rate),
            "limit": repr(self.limit),
            "left_out": json.dumps(dict(self.left_out)),
            "sources": json.dumps(self.sources),
        }
        return Command(plan_id(self.id), PLAN, self.pipeline, "", self.actor, self.reason, self.created, detail=told)


def plan_of(notes: Mapping[str, Command], plan: str) -> tuple[RedrivePlan, list[Place]]:
    """A plan as it was noted, without its cases, and the places of its letters in their order."""
    head = notes.get(plan_id(plan))
    if head is None or "selection" not in head.detail:
        raise FarandoleError(
            f"there is no plan {plan!r}", place="dlq", hint="`farandole dlq plans` shows those that are kept"
        )
    told = head.detail
    chosen = json.loads(told["selection"])
    selection = Selection(**{**chosen, "ids": tuple(chosen["ids"])})
    found = RedrivePlan(
        plan,
        head.pipeline,
        told["topic"],
        selection,
        (),
        float(told["rate"]),
        float(told["limit"]),
        head.at,
        head.actor,
        head.reason,
        json.loads(told["left_out"]),
        tuple(json.loads(told["sources"])),
        told["act"],
    )
    return found, places_of(notes, plan)


def places_of(notes: Mapping[str, Command], plan: str) -> list[Place]:
    """The letters of a plan, in their order."""
    begins = plan_id(plan, _LETTERS)
    parts = {int(one.removeprefix(begins)): note.ids for one, note in notes.items() if one.startswith(begins)}
    return [_place(name) for n in sorted(parts) for name in parts[n]]


def sent_by(notes: Mapping[str, Command], pipeline: str) -> dict[Place, str]:
    """The letters that plans of a pipeline have sent and not seen to their end, each with its plan."""
    sent: dict[Place, str] = {}
    for note in notes.values():
        if note.kind == PROGRESS and note.pipeline == pipeline and note.detail.get("state") != FINISHED:
            plan = note.id.split(":")[1]
            sent.update(dict.fromkeys(places_of(notes, plan)[: int(note.detail["sent"])], plan))
    return sent


def _name(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


def _place(name: str) -> Place:
    partition, _, offset = name.partition(":")
    return int(partition), int(offset)


class Order(NamedTuple):
    """How a redrive is to be carried out, who says so, and when (milliseconds since 1970)."""

    rate: float
    limit: float
    actor: str
    at: int
    reason: str = ""
    kind: str = REDRIVE


def plan_redrive(
    where: tuple[str, str],
    found: Found,
    cases: Sequence[Case],
    standing: Mapping[str, Standing],
    sent: Mapping[Place, str],
    order: Order,
) -> RedrivePlan:
    """The plan for the cases that were found; `where` names the pipeline and the topic of its letters.

    Left out is what needs no redrive, and what another plan (`sent`: which, by place) has under way.
    """
    left_out, kept = Counter(found.left_out), []
    for case in cases:
        state = state_of(case.life, standing.get(case.run_id))
        if state == OPEN and case.places[0] in sent:
            state = f"{SENT} {sent[case.places[0]]}"
        if state == OPEN:
            kept.append(case)
        else:
            left_out[state] += len(case.places)
    told = json.dumps([*where, order.kind, asdict(found.selection), order.at, [case.places for case in kept]])
    return RedrivePlan(
        blake2b(told.encode(), digest_size=4).hexdigest(),
        *where,
        found.selection,
        tuple(kept),
        order.rate,
        order.limit,
        order.at,
        order.actor,
        order.reason,
        {why: n for why, n in left_out.items() if n},
        tuple(sorted(found.sources)),
        order.kind,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a plan is carried out. Runs are counted: settled, failed (dead again or in doubt), or not to be sent."""

    plan: str
    state: str
    step: int
    steps: int
    total: int
    sent: int = 0
    settled: int = 0
    failed: int = 0
    missing: int = 0
    parked: int = 0
    reason: str = ""

    def note(self, pipeline: str, actor: str, at: int) -> Command:
        """As it stands on the control topic."""
        told = {name: str(value) for name, value in asdict(self).items() if name not in ("plan", "reason")}
        return Command(plan_id(self.plan, PROGRESS), PROGRESS, pipeline, "", actor, self.reason, at, detail=told)


class Deck(Protocol):
    """Where a plan meets Kafka: letters out, the ledger in."""

    standing: Mapping[str, Standing]
    """Where the runs of the plan stand, as far as the ledger was read."""

    def send(self, cases: Sequence[Case]) -> set[str]:
        """Send the letters of these runs; returns the runs whose letters cannot be sent."""
        ...

    def listen(self, seconds: float) -> Collection[str]:
        """Read the ledger for so long; the runs of which something was heard."""
        ...

    def note(self, progress: Progress) -> None:
        """Keep how far it went."""
        ...


def carry_out(plan: RedrivePlan, deck: Deck, clock: Clock, wait: float) -> Iterator[Progress]:
    """Send step by step, each after the one before has ended well; tells how far it is, the last time how it ended.

    `wait` is how long (seconds) it stays without news of a run. Begun again, it sends what has not arrived.
    """
    walk = _Walk(plan, deck, clock, wait)
    for number, step in enumerate(plan.steps, 1):
        yield from walk.take(number, step)
        if walk.state != RUNNING:
            return
    walk.state = FINISHED
    yield walk.noted(len(plan.steps))


class _Walk:
    """One walk up the ladder. A run counts once, when it is first seen to have ended."""

    def __init__(self, plan: RedrivePlan, deck: Deck, clock: Clock, wait: float) -> None:
        self._plan, self._deck, self._clock, self._wait = plan, deck, clock, wait
        self._open: dict[str, Case] = {}  # of the step under way
        self._parked: set[str] = set()
        self._noted = -1.0
        self._size = self._failed_before = self._settled_before = 0
        self.state, self.reason = RUNNING, ""
        self.sent = self.settled = self.failed = self.missing = 0

    def take(self, number: int, step: Sequence[Case]) -> Iterator[Progress]:
        """One step: send, and wait until its runs have ended."""
        self._open = {case.run_id: case for case in step}
        self._size, self._failed_before, self._settled_before = len(step), self.failed, self.settled
        self._look(list(self._open))
        todo = [case for case in self._open.values() if self._state(case) == OPEN]
        self.sent += len(step) - len(todo)
        self._judge()
        yield self.noted(number)
        at_once = max(1, min(ENOUGH, int(self._plan.rate / 5)))
        slot = self._clock.monotonic()
        while todo and self.state == RUNNING:
            batch, todo = todo[:at_once], todo[at_once:]
            for run in self._deck.send(batch):
                self.missing += self._open.pop(run, None) is not None
            self.sent += len(batch)
            slot = max(slot + len(batch) / self._plan.rate, self._clock.monotonic())
            self._hear(slot - self._clock.monotonic())
            yield self.noted(number, seldom=True)
        yield from self._await(number)

    def _await(self, number: int) -> Iterator[Progress]:
        heard = self._clock.monotonic()
        while self._open and self.state == RUNNING:
            left = len(self._open)
            self._hear(0.2)
            if len(self._open) < left:
                heard = self._clock.monotonic()
            elif self.state == RUNNING and self._clock.monotonic() - heard > self._wait:
                self.state, self.reason = WAITING, self._unended()
            yield self.noted(number, seldom=True)
        yield self.noted(number)

    def _hear(self, seconds: float) -> None:
        self._look(self._deck.listen(seconds))
        self._judge()

    def _look(self, runs: Iterable[str]) -> None:
        for run in runs:
            if (case := self._open.get(run)) is None:
                continue
            state = self._state(case)
            self._parked.discard(run)
            if state in (OPEN, UNDER_WAY):
                if state == UNDER_WAY and self._deck.standing[run].state == "parked":
                    self._parked.add(run)
                continue
            del self._open[run]
            if state in (AGAIN, UNCERTAIN):
                self.failed += 1
            else:
                self.settled += 1

    def _state(self, case: Case) -> str:
        return state_of(case.life, self._deck.standing.get(case.run_id))

    def _unended(self) -> str:
        held = f" ({len(self._parked)} are parked)" if self._parked else ""
        what = f"{len(self._open)} runs have not ended{held}, and none did for {self._wait:g} s"
        return f"{what}: is {self._plan.pipeline} running?"

    def _judge(self) -> None:
        """Stop where too many of a step have failed, as soon as that is certain or clear enough."""
        failed, limit = self.failed - self._failed_before, self._plan.limit
        over = failed + self.settled - self._settled_before
        if self.state == RUNNING and failed > limit * (over if over >= ENOUGH else self._size):
            self.state = STOPPED
            self.reason = f"{failed} of {over} runs of this step failed again, and {limit:.3g} of them may"

    def noted(self, number: int, *, seldom: bool = False) -> Progress:
        """How far it is; kept too, but not more than once a second where it changes all the time."""
        now = self._clock.monotonic()
        progress = Progress(
            self._plan.id, self.state, number, len(self._plan.steps), len(self._plan.cases), self.sent,
            self.settled, self.failed, self.missing, len(self._parked), self.reason,
        )  # fmt: skip
        if not seldom or self.state != RUNNING or now - self._noted >= 1.0:
            self._deck.note(progress)
            self._noted = now
        return progress
