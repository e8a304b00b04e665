"""Several services as processes of their own: started, restarted when they die, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farandole.clock import Clock, SystemClock
from farandole.errors import ATTENTION, FINE

GRACE = 35.0
"""Seconds that a service may take to end in order: its shutdown grace and a little."""
LONGEST_PAUSE = 10.0


@dataclass(slots=True)
class Child:
    """One instance of a service. `died` counts its unexpected ends in a row."""

    service: str
    number: int
    process: subprocess.Popen[bytes]
    started: float
    died: int = 0
    due: float | None = None
    ended: bool = False


class Supervisor:
    """Keeps one process per instance alive until it ends by itself with exit code 0, or is told to stop."""

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        logs: Path | None = None,
        say: Callable[..., None] = lambda *_, **__: None,
        clock: Clock | None = None,
    ) -> None:
        self._arguments, self._environment, self._logs = list(arguments), dict(environment or {}), logs
        self._say, self._clock = say, clock or SystemClock()
        self.children: list[Child] = []
        self.attention = False
        """Whether one of them ended with exit code 3."""

    def start(self, services: Sequence[str], instances: int = 1) -> None:
        """One process for each instance of each service."""
        for service in services:
            for number in range(instances):
                self.children.append(Child(service, number, self._spawn(service, number), self._clock.monotonic()))

    def _spawn(self, service: str, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "farandole", "run", service, *self._arguments]
        environment = {**os.environ, **self._environment}
        if self._logs is None:
            return subprocess.Popen(command, env=environment)  # noqa: S603 - our own command
        self._logs.mkdir(parents=True, exist_ok=True)
        name = f"{service.replace('/', '_').replace(':', '_')}-{number}.log"
        with (self._logs / name).open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603

    def look(self) -> bool:
        """Restart what died. False when every process has ended by itself, in order or for want of attention."""
        now = self._clock.monotonic()
        for child in self.children:
            code = child.process.poll()
            if code is None or child.ended:
                continue
            if code in (FINE, ATTENTION):  # a paused pipeline that was to be drained would only say so again
                child.ended = True
                self.attention = self.attention or code == ATTENTION
            elif child.due is None:
                child.died = child.died + 1 if now - child.started < LONGEST_PAUSE else 1
                child.due = now + min(LONGEST_PAUSE, 0.1 * 2.0 ** min(child.died, 10))
                self._say("service.died", service=child.service, number=child.number, code=code, again=child.due - now)
            elif now >= child.due:
                child.process, child.started, child.due = self._spawn(child.service, child.number), now, None
        return not all(child.ended for child in self.children)

    def kill(self, service: str, number: int = 0) -> int:
        """SIGKILL one instance, as a crash would; `look` starts it again. Returns its process id."""
        child = next(c for c in self.children if c.service == service and c.number == number)
        child.process.kill()
        child.process.wait()
        return child.process.pid

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to what does not end within the grace."""
        running = [c for c in self.children if c.process.poll() is None]
        for child in running:
            child.process.send_signal(signal.SIGTERM)
        deadline = self._clock.monotonic() + GRACE
        for child in running:
            try:
                child.process.wait(max(0.1, deadline - self._clock.monotonic()))
            except subprocess.TimeoutExpired:
                self._say("service.killed", service=child.service, number=child.number)
                child.process.kill()
                child.process.wait()
            child.ended = True
