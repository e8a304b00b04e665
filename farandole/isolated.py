"""Steps in child processes, which can be killed: what a thread that ignores its cancellation cannot be.

A child is started when a step first needs one, and serves until it is killed or the service ends: it opens the
resources that its steps ask for, once. Arguments and results travel pickled.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from farandole.clock import Clock
from farandole.deadletter import raised_at
from farandole.declaration import Declaration
from farandole.errors import GivenUp, StepDied, Unpicklable
from farandole.fill import StepPlan, event_class, planned
from farandole.find import find_resources
from farandole.resources import Resources

KILL_AFTER = 3.0
"""Seconds between SIGTERM, on which a step may tidy up, and SIGKILL."""
TICK = 0.1
_SPAWN = multiprocessing.get_context("spawn")  # a fork would take over the locks of our threads and of the client


class Children:
    """The child processes of one service: as many as isolated steps run at a time."""

    def __init__(self, declaration: Declaration, clock: Clock) -> None:
        self._declaration, self._clock = declaration, clock
        events = filter(None, map(event_class, declaration.topics))
        self._modules = sorted({event.__module__ for event in events})
        self._idle: list[_Child] = []
        self._all: list[_Child] = []
        self._lock = threading.Lock()
        self._closed = False

    def call(self, number: int, values: Sequence[Any], timeout: float | None, cancelled: threading.Event) -> Any:
        """Call the step of that number in a child.

        Raises what the step raises; TimeoutError when its time is over, GivenUp when it was cancelled, StepDied when
        the child ended. In all three the child is gone when this returns.
        """
        step = self._declaration.steps[number]
        told = _packed(values, f"an argument of {step.name}")
        child = self._taken()
        try:
            child.pipe.send((number, told))
            good, answer = self._answer(child, step.name, timeout, cancelled)
        except BaseException:
            self._end([child])
            raise
        with self._lock:
            self._idle.append(child)
        if not good:
            raise _raised(answer)
        return pickle.loads(answer)  # noqa: S301 - from our own child

    def _taken(self) -> _Child:
        with self._lock:
            if self._closed:
                raise GivenUp("the service ends", hint="the next instance goes on")
            if self._idle:
                return self._idle.pop()
            child = _Child(self._declaration, self._modules)
            self._all.append(child)
            return child

    def _answer(self, child: _Child, name: str, timeout: float | None, cancelled: threading.Event) -> tuple[bool, Any]:
        end = None if timeout is None else self._clock.monotonic() + timeout
        while not wait([child.pipe, child.process.sentinel], TICK):
            if cancelled.is_set():
                raise GivenUp(f"{name} was told to end; its process was killed")
            if end is not None and self._clock.monotonic() >= end:
                raise TimeoutError(f"{name} gave no result within {timeout:g} s; its process was killed")
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            if child.pipe.poll():
                answer: tuple[bool, Any] = child.pipe.recv()
                return answer
        raise StepDied(
            f"the process of {name} ended: {self._ended(child)}",
            hint="the service lives on; look for os._exit, a crash in C code, or memory that ran out",
        )

    def _ended(self, child: _Child) -> str:
        with self._lock:  # two threads that reap at once take each other's answer
            child.process.join(KILL_AFTER)
            code = child.process.exitcode
        if code is None:
            return "it closed its pipe"
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def _end(self, children: Sequence[_Child]) -> None:
        """SIGTERM, and SIGKILL to those that are still there after a while."""
        for child in children:
            child.process.terminate()
        end = self._clock.monotonic() + KILL_AFTER
        for child in children:
            if not wait([child.process.sentinel], max(0.0, end - self._clock.monotonic())):
                child.process.kill()
                wait([child.process.sentinel])
        with self._lock:
            self._all = [c for c in self._all if c not in children]
            for child in children:
                child.process.join()
                child.pipe.close()

    def close(self) -> None:
        """End all of them, also those that work."""
        with self._lock:
            self._closed, children = True, list(self._all)
        self._end(children)


class _Child:
    """One process, and the pipe to it."""

    def __init__(self, declaration: Declaration, modules: list[str]) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=serve, args=(theirs, declaration, modules), name=f"step-{declaration.name}", daemon=True
        )
        self.process.start()
        theirs.close()


# ---- in the child


class _Told(BaseException):
    """SIGTERM came: what the step holds in `with` and `finally` is let go."""


def serve(pipe: Connection[Any, Any], declaration: Declaration, modules: list[str]) -> None:
    """A child's life: calls, one after the other, until it is told to end or nobody is left who could call."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's own business
    signal.signal(signal.SIGTERM, _on_term)
    threading.Thread(target=_outlive_nobody, name="parent", daemon=True).start()
    with contextlib.suppress(EOFError, _Told), contextlib.ExitStack() as closing:
        plans: tuple[StepPlan, ...] = ()
        while True:
            number, told = pipe.recv()
            try:
                if not plans:
                    plans, resources = _opened(declaration, modules)
                    closing.enter_context(resources)
                plan, values = plans[number], pickle.loads(told)  # noqa: S301 - from our own service
                for at, (kind, which) in enumerate(plan.sources):
                    if kind == "resource":
                        values[at] = resources.get(which)
                answer: tuple[bool, Any] = (True, _packed(plan.function(*values), f"the result of {plan.step.name}"))
            except _Told:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever a step raises is the run's failure
                answer = (False, _travelling(error))
            pipe.send(answer)


def _on_term(_number: int, _frame: object) -> None:
    raise _Told


def _outlive_nobody() -> None:
    """A service that was killed cannot kill its children: they end by themselves, in the middle of what they do."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _opened(declaration: Declaration, modules: list[str]) -> tuple[tuple[StepPlan, ...], Resources]:
    for module in modules:
        importlib.import_module(module)
    resources = Resources(find_resources(declaration))
    return planned(declaration, resources)[0], resources  # the service has refused what is wrong already


# ---- what travels


def _packed(value: Any, what: str) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise Unpicklable(
            f"{what} cannot travel between processes: {type(error).__name__}: {error}",
            hint="give plain values and classes from the top of a module, or take isolate=True away",
        ) from error


Travelling = tuple[bytes, list[tuple[str, str]], str, str, str]


def _travelling(error: BaseException) -> Travelling:
    """An exception, pickled where it can be, and as text: its classes' names, words, traceback, and where it was."""
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)  # noqa: S301 - one with a signature of its own is packed and cannot be unpacked
    except Exception:  # noqa: BLE001 - then the text has to do
        packed = b""
    names = [(cls.__module__, cls.__qualname__) for cls in type(error).__mro__]
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - an author's __str__
        message = f"<{type(error).__name__}.__str__ raised {type(broken).__name__}>"
    return packed, names, message, "".join(traceback.format_exception(error)), raised_at(error.__traceback__)


class _There(Exception):
    """The traceback in the child, as the cause of what is raised here; and where that was."""

    def __init__(self, trace: str, place: str) -> None:
        super().__init__(trace)
        self.place = place

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _raised(told: Travelling) -> BaseException:
    """What the child raised; where it cannot be unpacked, an exception of classes with the same names."""
    packed, names, message, trace, place = told
    try:
        error: BaseException = pickle.loads(packed)  # noqa: S301 - from our own child
    except Exception:  # noqa: BLE001 - it names a class that is not here
        error = _equivalent(names, message)
    error.__cause__ = _There(trace, place)
    return error


def _equivalent(names: list[tuple[str, str]], message: str) -> BaseException:
    found: type[BaseException] = BaseException
    for module, name in reversed(names):
        known = getattr(builtins, name, None) if module == "builtins" else None
        if known is None:
            found = type(name.rpartition(".")[2], (found,), {"__module__": module})
        elif isinstance(known, type) and issubclass(known, BaseException) and not issubclass(found, known):
            found = known
    try:
        error: BaseException = found(message)
    except TypeError:  # a class of Python's own that asks for more
        error = type(found.__name__, (Exception,), {"__module__": found.__module__})(message)
    return error
