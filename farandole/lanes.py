"""Slots and order per key: which run goes next, and the threads that advance it.

The next run of a record key starts when the one before it has ended; different keys run side by side.
"""

from __future__ import annotations

import heapq
import queue
import threading
from collections import deque
from collections.abc import Callable
from itertools import count

from farandole.clock import Clock
from farandole.run import Run, RunState

PATIENCE = 5.0
"""Seconds that a run may take to leave its slot after it was given up: longer than it takes to kill a child process."""


class Lanes:
    """Admits runs, hands them to `slots` threads, and gives back those that ended, in the order they did."""

    def __init__(self, work: Callable[[Run], None], slots: int, clock: Clock, *, ordered: bool = True) -> None:
        self._work, self._clock, self._ordered = work, clock, ordered
        self._ready: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._ended: deque[Run] = deque()
        self._behind: dict[bytes, deque[Run]] = {}
        self._later: list[tuple[float, int, Run]] = []
        self._number = count()
        self._news = threading.Event()
        self._gate = threading.Event()
        self._gate.set()
        self.running = 0
        self.abandon: Callable[[Run], Callable[[], None]] = lambda _: lambda: None
        """Told of a run that is given up and keeps its slot's thread; what it gives is called when that ends."""
        self._serving: dict[threading.Thread, Run] = {}
        self._lost: dict[threading.Thread, Callable[[], None]] = {}
        self._since: dict[threading.Thread, float] = {}
        self._threads = [threading.Thread(target=self._serve, name=f"slot-{n}", daemon=True) for n in range(slots)]
        for thread in self._threads:
            thread.start()

    def admit(self, runs: list[Run]) -> None:
        """New runs, in the order of their partition."""
        for run in runs:
            self.running += 1
            if not self._ordered or not run.okey:
                self._ready.put(run)
            elif run.okey in self._behind:
                self._behind[run.okey].append(run)
            else:
                self._behind[run.okey] = deque()
                self._ready.put(run)

    def ended(self) -> list[Run]:
        """Runs that ended since the last look; those to be tried again go back when their time has come."""
        self._news.clear()
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.put(heapq.heappop(self._later)[2])
        if self._serving:
            self._replace(now)
        over = []
        while self._ended:
            run = self._ended.popleft()
            if run.state is RunState.AGAIN:
                heapq.heappush(self._later, (run.due, next(self._number), run))
                continue
            self.running -= 1
            over += [run, *self._next(run)]
        return over

    def _next(self, run: Run) -> list[Run]:
        """The run behind this one, of the same record key, may start; or all behind it are parked, as it is."""
        behind = self._behind.get(run.okey) if self._ordered and run.okey else None
        if behind is None:
            return []
        parked: list[Run] = []
        if run.holds:
            parked = list(behind)
            behind.clear()
            for one in parked:
                one.state, one.behind, one.holds = RunState.PARKED, True, True
                one.ended_at = self._clock.millis()
            self.running -= len(parked)
        if behind:
            self._ready.put(behind.popleft())
        else:
            del self._behind[run.okey]
        return parked

    def wait(self, longest: float) -> None:
        """Until a run has ended, or one that waits is due, but no longer than `longest` seconds."""
        if self._later:
            longest = max(0.0, min(longest, self._later[0][0] - self._clock.monotonic()))
        self._news.wait(longest)

    def _serve(self) -> None:
        me = threading.current_thread()
        while (run := self._ready.get()) is not None:
            self._gate.wait()
            self._serving[me] = run
            self._work(run)
            if self._serving.pop(me, None) is None:
                self._lost.pop(me)()
                return  # another thread has this one's place
            self._ended.append(run)
            self._news.set()

    def _replace(self, now: float) -> None:
        """Another thread for the place of one whose run was given up and that does not come back."""
        given_up = {thread: run for thread, run in list(self._serving.items()) if run.given_up}
        self._since = {thread: self._since.get(thread, now) for thread in given_up}
        for thread, run in given_up.items():
            if now - self._since[thread] < PATIENCE:
                continue
            self._lost[thread] = self.abandon(run)
            if self._serving.pop(thread, None) is None:
                self._lost.pop(thread)()  # it has come just now
                continue
            run.state, run.skipped = RunState.DONE, True
            self._ended.append(run)
            self._threads.append(threading.Thread(target=self._serve, name=f"slot-{len(self._threads)}", daemon=True))
            self._threads[-1].start()

    def hold(self) -> None:
        """From here on no run is advanced that is not being advanced already."""
        self._gate.clear()

    def go(self) -> None:
        """Runs are advanced again, in the order in which they wait."""
        self._gate.set()

    def close(self) -> None:
        """Let the threads go as soon as they have ended what they do; whoever closes has seen to what is held."""
        self._gate.set()
        for _ in self._threads:
            self._ready.put(None)
