"""What holds runs back: breakers of what the steps need, the retry budget, and the dead-letter guard.

Slots ask :meth:`Protection.admits` before a run and tell what became of it after; both cost nothing while everything
is closed. The polling thread looks once a second, and at once after a failure: then what slots have told is reported
to SQL, where all instances share one breaker for each dependency, and one of them gets to send the probe.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from farandole.breaker import CLOSED, FAILURES, FIRST, HALF_OPEN, OPEN, Breaker, Budget
from farandole.clock import Clock, iso
from farandole.decide import AGAIN, PARK, Decision
from farandole.declaration import Step
from farandole.errors import DatabaseUnreachable
from farandole.linestop import Facts, LineStop
from farandole.outcome import Books
from farandole.owned import GUARDED, RUNNING, STOPPED, Owned
from farandole.rules import RETRIES
from farandole.run import Run, RunState
from farandole.store import Change, Store

LOOK = 1.0
"""Seconds between two looks at what the other instances have seen."""
OFFER = 0.5
"""Seconds until a run that may not go is offered again, where nobody knows how long it will take."""
PATIENCE = 1.0
"""Seconds that a run which has failed before leaves to others, that may fare better. So work that is done again goes
one by one, once a second, where the budget is spent and nothing else is left."""
BLAME = 10
"""So many failures of one run, with answers to others between, are its own fault: from then on they cost attempts."""
ERROR_LENGTH = 200


@dataclass(slots=True)
class _News:
    """What slots have told of a dependency since the last report."""

    answered: bool = False
    failures: int = 0  # in a row, after the last answer
    opened: bool = False  # at once: the budget is spent
    verdict: list[bool | None] = field(default_factory=list)  # of the probe
    error: str = ""


@dataclass(slots=True)
class _View:
    """A breaker as this instance sees it."""

    row: Breaker
    until: float = 0.0  # the end of its pause, or of the probe's lease, on the monotonic clock
    shut: bool = False
    probe: Run | None = None  # the run that was sent from here
    answers: int = 0
    lately: bool = False  # it answered here since the look before, and did not fail after
    news: _News = field(default_factory=_News)


class Protection:
    """Of one worker. `admits`, `lets`, `answered`, `failed` and `ended` are called on slots, the rest by the poller."""

    def __init__(self, store: Store, books: Books, clock: Clock, say: Callable[..., None], epoch: int = 0) -> None:
        declaration = books.declaration
        self._store, self._books, self._clock, self._say = store, books, clock, say
        self._me = f"{books.instance}/{uuid.uuid4().hex[:8]}"
        needs = [need.name for step in declaration.steps for need in step.needs]
        self._budget = Budget() if declaration.guard == "on" else None
        names = [*needs, RETRIES] if self._budget is not None else needs
        self._views = {name: _View(Breaker(name)) for name in names}
        self._lock = threading.Lock()
        self._waiting: dict[int, Run] = {}
        self._shut: frozenset[str] = frozenset()
        self.busy = False  # something is shut, or waits since: only then slots have to ask
        self._retries = 0
        self._urgent, self._due, self._away = False, 0.0, 0.0
        self._facts = Facts(books)
        self.guard = LineStop(store, books, self._facts, say, epoch)

    # ---- on slots

    def admits(self, run: Run) -> bool:
        """Whether a run may be advanced; one that may not waits where it is, and is asked about again."""
        with self._lock:
            if self._shut and run.ending is None and not any(view.probe is run for view in self._views.values()):
                return self._wait(run)
            self._waiting.pop(id(run), None)
            self.busy = bool(self._shut or self._waiting)
        return True

    def lets(self, run: Run, step: Step) -> bool:
        """Whether a run that is under way may take a step; the same for it."""
        if self._shut:
            with self._lock:
                if any(n.name in self._shut and self._views[n.name].probe is not run for n in step.needs):
                    return self._wait(run)
        return True

    def _wait(self, run: Run) -> bool:
        now = self._clock.monotonic()
        shut = (self._views[name] for name in self._shut)
        until = max((view.until for view in shut if view.row.state != HALF_OPEN), default=now)
        run.state, run.due = RunState.AGAIN, until if until > now else now + OFFER
        self._waiting[id(run)], self.busy = run, True
        return False

    def answered(self, run: Run, step: Step) -> None:
        """What the step needs has answered."""
        with self._lock:
            for need in step.needs:
                view = self._views[need.name]
                view.answers += 1
                if view.probe is run:
                    view.news.verdict, self._urgent = [True], True
                elif not view.shut:
                    view.news.answered, view.news.failures = True, 0

    def blames(self, run: Run) -> bool:
        """Whether what it needs answers others and fails for this run alone."""
        return run.faults >= BLAME

    def failed(self, run: Run, now: Decision, error: BaseException) -> None:
        """A step has failed, and this was decided."""
        if now.down:
            self._missed(run, self._views[now.down], f"{type(error).__name__}: {error}"[:ERROR_LENGTH])
        elif now.kind in (AGAIN, PARK) and self._budget is not None:
            with self._lock:
                self._retries += 1
                if (view := self._views[RETRIES]).probe is run:
                    self._failed_probe(view, run, tells=run.attempt == 1)

    def _missed(self, run: Run, view: _View, error: str) -> None:
        with self._lock:
            if run.missed_at >= 0:
                run.faults += view.answers > run.missed_at
            run.missed_at = view.answers
            view.news.error = error
            if view.probe is run:
                self._failed_probe(view, run)
            elif not view.shut:
                view.news.failures += 1
                self._urgent = True
                before = 0 if view.news.answered else view.row.failures
                if before + view.news.failures >= FAILURES:
                    self._shut_here(view)  # whoever is next must not ask before SQL knows
            self._waiting[id(run)], self.busy = run, True
            if view.shut and view.row.state != HALF_OPEN:
                run.due = view.until

    def _failed_probe(self, view: _View, run: Run, *, tells: bool = True) -> None:
        run.probed += 1
        view.news.verdict, self._urgent = [False if tells else None], True

    def _shut_here(self, view: _View) -> None:
        view.shut, view.until, self._urgent, self.busy = True, self._clock.monotonic() + FIRST / 1000, True, True
        self._shut |= {view.row.name}

    def ended(self, run: Run) -> None:
        """A run was advanced as far as it went: if it was a probe and told nothing, another one may go."""
        with self._lock:
            for view in self._views.values():
                if view.probe is run and not view.news.verdict:
                    fine = view.row.name == RETRIES and run.state in (RunState.DONE, RunState.CAUGHT)
                    view.news.verdict, self._urgent = [True if fine else None], True

    # ---- on the polling thread

    @property
    def holds(self) -> bool:
        """Whether nothing new is to be read. Where every pause is over and no run waits here to go and see, one is."""
        if not self._shut:
            return False
        now = self._clock.monotonic()
        with self._lock:
            return any(self._holds(view, now) for view in self._views.values() if view.shut)

    def unread(self, partitions: Collection[Owned]) -> bool:
        """Whether records may stand unread for longer than usual, so that what waits for them must not be given up."""
        return self.holds or any(o.phase == STOPPED and o.why.startswith(GUARDED) for o in partitions)

    def _holds(self, view: _View, now: float) -> bool:
        there = view.probe is not None or any(_rank(view, run)[0] == 0 for run in self._waiting.values())
        return there or now < view.until

    def look(self, partitions: Collection[Owned], runs: int, *, active: bool) -> None:
        """Report what slots have told, see what others have, and ask for the probe. Raises DatabaseUnreachable.

        `runs` have ended here so far; `active`: some are under way, or about to be.
        """
        now = self._clock.monotonic()
        if now < self._away:
            return
        if self._budget is not None:
            self._spend(self._budget, now, runs)
        try:
            self.guard.look(partitions)
            if self._views and (self._urgent or now >= self._due) and (active or self._shut or self._urgent):
                self._look(now)
        except DatabaseUnreachable:
            self._away = now + LOOK
            raise
        self._facts.write(partitions)

    def _spend(self, budget: Budget, now: float, runs: int) -> None:
        with self._lock:
            view, spent = self._views[RETRIES], budget.spent(now, runs, self._retries)
            if view.shut:
                budget.forget()
            elif spent:
                view.news.opened = True
                view.news.error = f"RetryBudget: more than {budget.SHARE:.0%} of what ends is tried again"
                self._shut_here(view)

    def _look(self, now: float) -> None:
        self._urgent, self._due = False, now + LOOK
        for view in self._views.values():
            self._report(view)
        self._load()
        if self._shut:
            self._prune()
            for view in self._views.values():
                if view.shut:
                    self._probe(view, now)

    def _report(self, view: _View) -> None:
        with self._lock:
            if view.probe is not None and not view.news.verdict and _gone(view.probe):
                view.news.verdict = [None]
            news, view.news = view.news, _News()
        view.lately = news.answered and not news.failures
        if not (news.failures or news.opened or news.verdict):
            return
        try:
            self._saw(view, self._store.breakers.change(view.row.name, lambda b, now: self._told(b, now, news)))
        except BaseException:
            with self._lock:
                self._give_back(view, news)
            raise
        if news.verdict:
            view.probe = None

    def _told(self, breaker: Breaker, now: int, news: _News) -> Breaker:
        if news.answered:
            breaker = breaker.answered()
        if news.failures:
            breaker = breaker.failed(now, news.failures, news.error)
        if news.opened:
            breaker = breaker.opened(now, news.error)
        if news.verdict:
            breaker = breaker.probed(now, self._me, answer=news.verdict[0], error=news.error)
        return breaker

    def _give_back(self, view: _View, news: _News) -> None:
        later = view.news
        if later.answered:
            news.failures = 0
        view.news = _News(
            news.answered or later.answered,
            news.failures + later.failures,
            news.opened or later.opened,
            later.verdict or news.verdict,
            later.error or news.error,
        )

    def _load(self) -> None:
        rows, now = self._store.breakers.load()
        for name, view in self._views.items():
            self._see(view, rows.get(name, Breaker(name)), now)
            if view.lately and view.row.state == CLOSED and view.row.failures:
                self._see(view, self._store.breakers.change(name, lambda b, _: b.answered()).after, now)

    def _see(self, view: _View, row: Breaker, now: int) -> None:
        with self._lock:
            until = row.lease if row.state == HALF_OPEN else row.until
            view.row, view.until = row, self._clock.monotonic() + (until - now) / 1000
            before = 0 if view.news.answered else row.failures
            view.shut = row.state != CLOSED or view.news.opened or before + view.news.failures >= FAILURES
            self._shut = frozenset(name for name, one in self._views.items() if one.shut)
            self.busy = bool(self._shut or self._waiting)
            if row.state == OPEN and row.until > now:
                self._due = min(self._due, view.until)

    def _saw(self, view: _View, change: Change) -> None:
        """What a change of ours made of it; if it is a transition, it is ours to tell."""
        before, after = change.before, change.after
        self._see(view, after, change.now)
        if before.state == CLOSED != after.state:
            self._tell("breaker.opened", after, {})
        elif after.state == CLOSED != before.state:
            self._tell("breaker.closed", before, {"seconds": f"{(change.now - before.since) / 1000:.3f}"})

    def _tell(self, name: str, breaker: Breaker, more: dict[str, str]) -> None:
        since = datetime.fromtimestamp(breaker.since / 1000, UTC)
        told = {"name": breaker.name, "since": iso(since), **more}
        self._say(name, breaker=breaker.name, error=breaker.error.partition(":")[0], since=told["since"], **more)
        self._facts.add(name, f"{breaker.name}@{breaker.since}", {**told, "error": breaker.error})

    # ---- the probe

    def _prune(self) -> None:
        with self._lock:
            for run in [run for run in self._waiting.values() if _gone(run)]:
                del self._waiting[id(run)]
            self.busy = bool(self._shut or self._waiting)

    def _probe(self, view: _View, now: float) -> None:
        """Keep the probe that is under way; or ask for one, if a run is here that could go."""
        may: list[Run] = []
        if view.probe is None:
            if now < view.until:
                return
            with self._lock:
                may = sorted(self._waiting.values(), key=lambda run: _rank(view, run))
            if not may or (_rank(view, may[0])[0] and now < view.until + PATIENCE):
                return
        change = self._store.breakers.change(view.row.name, lambda b, at: b.asked(at, self._me))
        mine = change.after.probe == self._me
        self._see(view, change.after, change.now)
        with self._lock:
            view.probe = (view.probe or self._choice(may)) if mine else None

    def _choice(self, may: list[Run]) -> Run:
        """One run sees for all that are open, if it can."""
        sent = [view.probe for view in self._views.values() if view.probe is not None]
        return next((run for run in may if any(run is one for one in sent)), may[0])


def _rank(view: _View, run: Run) -> tuple[int, int]:
    """How well a run would do as the probe, best first: what has not failed yet, then what is better than nothing."""
    if view.row.name == RETRIES:
        return (int(run.attempt > 1), -run.attempt)  # of the others the one that is nearest to its end
    return (run.probed, 0)


def _gone(run: Run) -> bool:
    return run.home.phase != RUNNING or run.over or run.skipped
