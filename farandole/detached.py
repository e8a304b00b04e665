"""Detached steps: work of hours, done under a lease, wherever the partition of its event is meanwhile.

A run whose next step is detached goes to the retry topic, as a parked one does, and rests there: its offset moves on,
and what comes of its record key stands behind it. Whoever owns the retry partition takes the step's lease and calls it
in a thread of its own. What it gives is kept as a checkpoint; then the run goes on, on whoever owns the partition by
then. A holder that shows no life loses its lease, and the step is taken up anew as after a crash.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from farandole.clock import Clock
from farandole.errors import Away, DatabaseUnreachable, Fenced
from farandole.fill import StepPlan
from farandole.kept import pack
from farandole.parking import Parking
from farandole.run import UNSURE, Kit, Run, ask
from farandole.store import Lease, Store

LEASE, BEAT = 30.0, 10.0
"""Seconds that a sign of life holds, and between two of them."""
LOOK = 1.0
"""Seconds between two looks whether what others hold is free."""
TIDY = 6.0
"""Seconds in which what was told to end may tidy up, before its lease is let go all the same."""


@dataclass(slots=True, eq=False)
class _Work:
    """One step that is under way here. `home` is the partition where its run rests."""

    run: Run
    plan: StepPlan
    lease: Lease
    home: Any
    until: float  # on the monotonic clock
    since: int  # ms since 1970
    over: threading.Event


class Detached:
    """What one instance does of it: at most as many steps at a time as it has slots, beside those."""

    def __init__(self, store: Store, parking: Parking, clock: Clock, say: Callable[..., None], owner: str) -> None:
        self._store, self._parking, self._clock, self._say, self._owner = store, parking, clock, say, owner
        self._work: dict[str, _Work] = {}
        self._ended: dict[str, tuple[str, int, Any]] = {}  # the step, when it began, and its error or its doubt
        self._elsewhere: set[str] = set()
        self._news: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._beats: threading.Thread | None = None
        self._looked = 0.0

    @property
    def busy(self) -> bool:
        """Whether steps are under way here."""
        return bool(self._work)

    # ---- on a slot thread

    def ask(self, run: Run, plan: StepPlan, kit: Kit) -> Any:
        """Have the step done. Raises what it raised here; Away while it is under way, here or elsewhere.

        Raises Fenced and DatabaseUnreachable.
        """
        name = plan.step.name
        if not run.via:
            raise Away(name, 0.0)
        with self._lock:
            if run.id in self._ended and self._ended[run.id][2] is not None:
                return self._failed(run)
            if run.id in self._work:
                self._work[run.id].home = run.home
                raise Away(name, inf)
            if len(self._work) >= kit.declaration.slots or self._stop.is_set():
                raise Away(name, LOOK)
            asked = self._clock.monotonic()
            lease = self._store.leases.take(run.home.lane, run.id, name, self._owner, round(LEASE * 1000))
            if lease is None:
                self._elsewhere.add(run.id)
                raise Away(name, inf)
            self._begin(_Work(
                copy(run), plan, lease, run.home, asked + LEASE, self._clock.millis(), threading.Event()
            ), kit)  # fmt: skip
        raise Away(name, inf)

    def gave(self, run_id: str, step: str) -> int:
        """When the step began that has just given its result here (ms since 1970); 0: it was kept from before."""
        done, since, _ = self._ended.get(run_id, ("", 0, None))
        if done != step:
            return 0
        self._ended.pop(run_id, None)
        return since

    def _failed(self, run: Run) -> Any:
        """What became of it is this run's now: its error, or a doubt."""
        _, _, (error, sent) = self._ended.pop(run.id)
        run.sent = sent
        if error is UNSURE:
            return UNSURE
        raise error

    def _begin(self, work: _Work, kit: Kit) -> None:
        self._ended.pop(work.run.id, None)
        self._work[work.run.id] = work
        self._say("detached.begun", run=work.run.id, step=work.plan.step.name, holder=work.lease.fence)
        threading.Thread(target=self._do, args=(work, kit), name=f"detached-{work.run.id[:8]}", daemon=True).start()
        if self._beats is None:
            self._beats = threading.Thread(target=self._beat, name="leases", daemon=True)
            self._beats.start()

    # ---- on the thread of the step

    def _do(self, work: _Work, kit: Kit) -> None:
        run, lease = work.run, work.lease
        run.fence = lease.fence
        mine = replace(
            kit,
            lane_of=lambda _: lease,
            detached=None,
            gate=None,
            checkpoints=_Patient(kit.checkpoints, run, self._stop),
        )
        failed: Any = None
        try:
            if self._perform(run, work.plan, mine) is UNSURE:
                failed = (UNSURE, run.sent)
        except BaseException as error:  # noqa: BLE001 - whatever a step raises is the run's failure
            failed = (error, run.sent)
        with self._lock:
            lost = run.given_up or isinstance(failed[0] if failed else None, Fenced)
            if self._work.get(run.id) is work:
                del self._work[run.id]
                if not lost:
                    self._ended[run.id] = (work.plan.step.name, work.since, failed)
                self._news.add(run.id)
        self._let_go(work)
        work.over.set()

    def _perform(self, run: Run, plan: StepPlan, kit: Kit) -> Any:
        """Look what is kept, under the lease: a holder before may have ended it. Then ask."""
        name, known = plan.step.name, kit.checkpoints.load([run.id]).get(run.id, [])
        kept = next((c for c in known if c.step == name), None)
        if kept is not None and kept.state == "done":
            return None
        result = ask(run, plan, kit, None, kept)
        if result is not UNSURE and not plan.step.effect:  # the last step of a pipeline is not kept otherwise
            kit.checkpoints.keep(kit.lane_of(run), run.id, name, pack(result, name, kit.version))
        return result

    def _let_go(self, work: _Work) -> None:
        try:
            self._store.leases.release([work.lease])
        except DatabaseUnreachable as away:  # then it runs out
            self._say("lease.waits", run=work.run.id, error=str(away))

    # ---- on a thread of its own

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with self._lock:
                work, asked = list(self._work.values()), self._clock.monotonic()
                try:
                    held = self._store.leases.renew(self._owner, round(LEASE * 1000)) if work else set()
                    self._store.leases.release(held - {one.lease for one in work})  # given up here before
                except DatabaseUnreachable as away:
                    self._say("lease.waits", error=str(away))
                    held = {one.lease for one in work if self._clock.monotonic() < one.until}
                    asked = -inf
                for one in work:
                    one.until = max(one.until, asked + LEASE)
                    if one.lease not in held:
                        self._lose(one, "lease.lost")

    def _lose(self, work: _Work, why: str) -> None:
        """It is somebody else's: what it gives counts for nothing."""
        self._say(why, run=work.run.id, step=work.plan.step.name)
        work.run.give_up()
        if self._work.get(work.run.id) is work:
            del self._work[work.run.id]
        self._elsewhere.add(work.run.id)

    # ---- on the polling thread

    def look(self) -> None:
        """Runs whose step is over go on; those that a person has ended are told so. Raises DatabaseUnreachable."""
        for run_id in list(self._news):
            if self._parking.wake(run_id):
                self._news.discard(run_id)
        now = self._clock.monotonic()
        if now - self._looked < LOOK or not (self._elsewhere or self._work or self._ended):
            return
        self._looked = now
        for run_id in [run_id for run_id in list(self._ended) if not self._parking.waits(run_id)]:
            self._ended.pop(run_id, None)  # its partition is somebody else's
        for one in list(self._work.values()):
            if one.home.phase == "running" and not self._parking.waits(one.run.id):
                with self._lock:
                    self._lose(one, "detached.ended")
        # slots add to these sets meanwhile: they are changed in place
        self._elsewhere.difference_update([r for r in list(self._elsewhere) if not self._parking.waits(r)])
        if asked := list(self._elsewhere):
            free = self._store.leases.free(asked)
            self._news.update(free)
            self._elsewhere.difference_update(free)

    def close(self) -> None:
        """Hand over: what is under way is told to end, and whoever owns the retry topic takes it up."""
        self._stop.set()
        with self._lock:
            left = list(self._work.values())
        for one in left:
            self._say("detached.handed.over", run=one.run.id, step=one.plan.step.name)
            one.run.give_up()
        end = self._clock.monotonic() + TIDY
        for one in left:
            if not one.over.wait(max(0.0, end - self._clock.monotonic())):
                self._let_go(one)


class _Patient:
    """The checkpoints, asked again while the database is away: hours of work are not lost for a second of that."""

    def __init__(self, checkpoints: Any, run: Run, stop: threading.Event) -> None:
        self._checkpoints, self._run, self._stop = checkpoints, run, stop

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._checkpoints, name)

        def patiently(*arguments: Any) -> Any:
            while True:
                try:
                    return asked(*arguments)
                except DatabaseUnreachable:
                    if self._run.given_up:
                        raise Fenced(f"run {self._run.id} is somebody else's by now") from None
                    self._stop.wait(LOOK)

        return patiently
