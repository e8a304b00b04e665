"""How a step's function is called: inline, in a thread that can be given up, on the loop, or in a child process.

Whatever becomes of the function, the slot that asks comes back: with its result, with what it raised, with
TimeoutError when its time is over, or with GivenUp when nobody wants the result any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from farandole.errors import GivenUp
from farandole.fill import StepPlan
from farandole.isolated import Children
from farandole.watchdog import end_at_once

CANCEL_GRACE = 5.0
"""Seconds that a cancelled async step may take to tidy up before it is given up."""
MOST_ABANDONED = 100
"""Calls that were given up and are still going on; one more and the service is not worth keeping."""


class Flag(threading.Event):
    """The flag of one attempt: set when its result will not be wanted. `tell` is called when it is."""

    def __init__(self) -> None:
        super().__init__()
        self.tell: Callable[[], Any] = bool

    def set(self) -> None:
        """Cancel the attempt."""
        super().set()
        self.tell()


def _nothing(_event: str, **_fields: Any) -> None:
    """Nobody listens."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A call under way on another thread. `cancel` tells it to end, where it can be told."""

    name: str
    cancel: Callable[[], Any] = bool
    answer: Future[Any] = field(default_factory=Future)
    over: threading.Event = field(default_factory=threading.Event)
    abandoned: bool = False

    def give(self, result: Any = None, error: BaseException | None = None) -> None:
        """Its answer, of which the first one counts."""
        with suppress(InvalidStateError):
            if error is None:
                self.answer.set_result(result)
            else:
                self.answer.set_exception(error)


@dataclass(slots=True)
class Caller:
    """Calls the functions of one service's steps.

    `loop` is there where a step is async, `children` where one is isolated; without them an isolated step is called
    as any other is, as on a stage.
    """

    loop: asyncio.AbstractEventLoop | None = None
    children: Children | None = None
    say: Callable[..., None] = _nothing
    end: Callable[[], Any] = end_at_once
    abandoned: int = 0
    _under_way: set[_Asked] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def isolates(self, plan: StepPlan) -> bool:
        """Whether this function is called in a child process, which opens the resources itself."""
        return plan.isolated >= 0 and self.children is not None

    def inline(self, plan: StepPlan) -> bool:
        """Whether the slot that asks may call the function itself: nothing limits it."""
        return plan.step.timeout is None and not plan.is_async and not self.isolates(plan)

    def call(self, plan: StepPlan, arguments: list[Any], flag: Flag) -> Any:
        """The result of a function that is not called inline.

        Raises what it raises, TimeoutError, and GivenUp when the flag is set.
        """
        timeout = plan.step.timeout
        if plan.is_async:
            return self._awaited(self._on_the_loop(plan, arguments), timeout, CANCEL_GRACE, flag)
        if self.isolates(plan):
            assert self.children is not None  # noqa: S101 - just asked
            return self.children.call(plan.isolated, arguments, timeout, flag)
        return self._awaited(self._in_a_thread(plan, arguments), timeout, 0.0, flag)

    def _in_a_thread(self, plan: StepPlan, arguments: list[Any]) -> _Asked:
        """A call that may never return: in a thread of its own, for which nobody waits when the process ends."""
        asked = _Asked(plan.step.name)

        def call() -> None:
            try:
                asked.give(plan.function(*arguments))
            except BaseException as error:  # noqa: BLE001 - told to whoever asks for the result
                asked.give(error=error)
            self._returned(asked)

        threading.Thread(target=call, name=f"step-{asked.name}", daemon=True).start()
        return asked

    def _on_the_loop(self, plan: StepPlan, arguments: list[Any]) -> _Asked:
        assert self.loop is not None  # noqa: S101 - there is one where a step is async
        asked, loop, tasks = _Asked(plan.step.name), self.loop, list[asyncio.Task[Any]]()

        def begin() -> None:
            tasks.append(loop.create_task(plan.function(*arguments)))
            tasks[0].add_done_callback(ended)

        def ended(task: asyncio.Task[Any]) -> None:
            error = CancelledError(f"{asked.name} cancelled itself") if task.cancelled() else task.exception()
            asked.give(None if error else task.result(), error)
            self._returned(asked)

        asked.cancel = lambda: loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
        with self._lock:
            self._under_way.add(asked)
        loop.call_soon_threadsafe(begin)
        return asked

    def _awaited(self, asked: _Asked, timeout: float | None, tidy: float, flag: Flag) -> Any:
        lost = GivenUp(f"{asked.name} was told to end, and not waited for")
        flag.tell = lambda: asked.give(error=lost)
        if flag.is_set():
            flag.tell()
        error: Exception = lost
        if not wait([asked.answer], timeout).done:
            error = TimeoutError(f"{asked.name} gave no result within {timeout:g} s")
            flag.set()
        elif asked.answer.exception() is not lost:
            return asked.answer.result()
        asked.cancel()
        if not asked.over.wait(tidy):
            self._abandon(asked)
        raise error

    def _returned(self, asked: _Asked) -> None:
        with self._lock:
            asked.over.set()
            self.abandoned -= asked.abandoned
            self._under_way.discard(asked)

    def abandon_slot(self, name: str) -> Callable[[], None]:
        """A step keeps the very thread of its slot. What this gives is to be called when it ends."""
        asked = _Asked(name)
        self._abandon(asked)
        return lambda: self._returned(asked)

    def _abandon(self, asked: _Asked) -> None:
        """It goes on, and keeps its thread or its place on the loop: so many of these are too many."""
        with self._lock:
            asked.abandoned = not asked.over.is_set()
            self.abandoned += asked.abandoned
            still = self.abandoned
            if asked.abandoned:  # in turn: who ends the service below has every line before its own
                self.say("step.abandoned", step=asked.name, still=still)
        if still >= MOST_ABANDONED:
            self.say(
                "service.overrun",
                why=f"{still} calls were given up and still go on, the last one of {asked.name}",
                hint="let the step end on attempt.cancelled, or label it @step(isolate=True): then it is killed",
            )
            self.end()

    def close(self) -> None:
        """At the end of the service: async steps are cancelled and may tidy up, children are killed."""
        with self._lock:
            asked = list(self._under_way)
        for one in asked:
            one.cancel()
        if self.children is not None:
            self.children.close()
        for one in asked:
            one.over.wait(CANCEL_GRACE)
