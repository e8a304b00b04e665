"""The instances of a world's pipelines, as many as are wanted: who ends is replaced, as an orchestrator would."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections import Counter

from tests.chaos.world import World

Instance = tuple[str, "subprocess.Popen[bytes]"]


class Fleet:
    """Keeps `wanted` instances of each pipeline alive until it is stopped."""

    def __init__(self, world: World, wanted: dict[str, int], **environment: str) -> None:
        self.world, self.wanted, self.environment = world, dict(wanted), environment
        self.armed: dict[str, str] = {}  # the kill point of the next instance of a pipeline
        self.ends: Counter[int] = Counter()  # how instances ended that were not told to
        self._alive: dict[str, list[subprocess.Popen[bytes]]] = {name: [] for name in wanted}
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._lock, self._stopping = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="fleet", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._stopping.wait(0.2):
            self._turn()

    def _turn(self) -> None:
        with self._lock:
            for name, many in self._alive.items():
                for process in [p for p in many if p.poll() is not None]:
                    self.ends[process.returncode] += 1
                    many.remove(process)
                while len(many) < self.wanted[name]:
                    point = self.armed.pop(name, "")
                    extra = {"FARANDOLE_KILL_AT": point} if point else {}
                    many.append(self.world.start(name, **self.environment, **extra))
                while len(many) > self.wanted[name]:
                    leaving = many.pop(0)
                    leaving.terminate()
                    self._leaving.append(leaving)

    def instances(self) -> list[Instance]:
        """Every instance that is there, with its pipeline."""
        with self._lock:
            return [(name, process) for name, many in self._alive.items() for process in many if process.poll() is None]

    def any(self, luck: random.Random) -> Instance | None:
        """One of them."""
        there = self.instances()
        return luck.choice(there) if there else None

    def stop(self) -> None:
        """Tell all to end, and wait."""
        self._stopping.set()
        self._thread.join(10)
        for process in self.world.processes:
            process.send_signal(signal.SIGCONT)  # whatever stopped it
        self.world.stop()
