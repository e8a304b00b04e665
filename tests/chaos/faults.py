"""Faults, each with a beginning and an end, and the seeded schedule by which they come and go."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from farandole.errors import StackError
from farandole.points import POINTS
from farandole.stack.launcher import Stack
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import Proxy, end_of_transaction, first


class Fault(Protocol):
    """Something that goes wrong between `start` and `stop`; `least` is how many seconds it needs to be one."""

    name: ClassVar[str]
    least: ClassVar[float]

    def start(self) -> None: ...

    def stop(self) -> None: ...


# ---- instances


@dataclass
class Killed:
    """SIGKILL of one instance, or of two at once."""

    fleet: Fleet
    luck: random.Random
    name: ClassVar[str] = "instance killed"
    least: ClassVar[float] = 0.5

    def start(self) -> None:
        for _ in range(self.luck.choice((1, 1, 2))):
            if found := self.fleet.any(self.luck):
                found[1].kill()

    def stop(self) -> None: ...


@dataclass
class KilledAtPoint:
    """SIGKILL at a named point: of the successor of one that is killed now."""

    fleet: Fleet
    luck: random.Random
    name: ClassVar[str] = "instance killed at a point"
    least: ClassVar[float] = 2.0

    def start(self) -> None:
        if found := self.fleet.any(self.luck):
            self.fleet.armed[found[0]] = f"{self.luck.choice(POINTS)}:{self.luck.randint(1, 3)}"
            found[1].kill()

    def stop(self) -> None: ...


@dataclass
class Frozen:
    """SIGSTOP of one instance past its session, and SIGCONT: a zombie that believes it owns its partitions."""

    fleet: Fleet
    luck: random.Random
    found: subprocess.Popen[bytes] | None = None
    name: ClassVar[str] = "instance frozen"
    least: ClassVar[float] = 6.0

    def start(self) -> None:
        if found := self.fleet.any(self.luck):
            self.found = found[1]
            self.found.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        if self.found is not None:
            self.found.send_signal(signal.SIGCONT)
        self.found = None


@dataclass
class Told:
    """SIGTERM of one instance: an orderly end in the middle of work."""

    fleet: Fleet
    luck: random.Random
    name: ClassVar[str] = "instance told to end"
    least: ClassVar[float] = 1.0

    def start(self) -> None:
        if found := self.fleet.any(self.luck):
            found[1].terminate()

    def stop(self) -> None: ...


@dataclass
class Scaled:
    """Other numbers of instances, up to three of a pipeline, and back."""

    fleet: Fleet
    luck: random.Random
    before: dict[str, int] = field(default_factory=dict)
    name: ClassVar[str] = "scaled"
    least: ClassVar[float] = 3.0

    def start(self) -> None:
        self.before = dict(self.fleet.wanted)
        self.fleet.wanted[self.luck.choice(list(self.before))] = self.luck.choice((1, 3))

    def stop(self) -> None:
        self.fleet.wanted.update(self.before)


# ---- brokers


@dataclass
class BrokerKilled:
    """SIGKILL of a broker, and its start again."""

    stack: Stack
    luck: random.Random
    number: int = 0
    name: ClassVar[str] = "broker killed"
    least: ClassVar[float] = 1.0

    def start(self) -> None:
        self.number = self.luck.randint(1, 3)
        self.stack.kill(broker(self.number))

    def stop(self) -> None:
        patiently(self.stack.start_brokers)  # all that are missing: alone, one of them waits for the others


class BrokerRestarted(BrokerKilled):
    """A broker told to end, and its start again."""

    name: ClassVar[str] = "broker restarted"

    def start(self) -> None:
        self.number = self.luck.randint(1, 3)
        self.stack.stop(broker(self.number))


class ControllerKilled(BrokerKilled):
    """SIGKILL of the broker that is the active controller: another one is elected."""

    name: ClassVar[str] = "controller killed"

    def start(self) -> None:
        self.number = controller_of(self.stack)
        if self.number:
            self.stack.kill(broker(self.number))


@dataclass
class TwoBrokersDown:
    """Two of three killed: fewer in sync than a write needs, and no quorum.

    Once (seed 12) the cluster had then lost four records of the workload from all three logs: their producer had gone on
    with the fifth.
    """

    stack: Stack
    luck: random.Random
    numbers: Sequence[int] = ()
    name: ClassVar[str] = "two brokers down"
    least: ClassVar[float] = 2.0

    def start(self) -> None:
        self.numbers = self.luck.sample((1, 2, 3), 2)
        for number in self.numbers:
            self.stack.kill(broker(number))

    def stop(self) -> None:
        patiently(self.stack.start_brokers)


def patiently(start: Callable[[], object], goes: int = 3) -> None:
    """A server that does not answer in time on a busy machine is waited for again."""
    for left in reversed(range(goes)):
        try:
            start()
        except StackError:
            if not left:
                raise
        else:
            return


def broker(number: int) -> str:
    return "kafka" if number == 1 else f"kafka-{number}"


def controller_of(stack: Stack) -> int:
    """The number of the active controller, 0 if there is none.

    DescribeQuorum, which no client of Kafka for Python can ask; describe_cluster names any broker.
    """
    request = (
        b"\x00\x37\x00\x00\x00\x00\x00\x07\xff\xff\x00"  # its number 55, version 0, our mark 7, no client id
        b"\x02\x13__cluster_metadata\x02\x00\x00\x00\x00\x00\x00\x00"  # one topic, its partition 0
    )
    for address in stack.bootstrap_servers.split(","):
        host, _, port = address.partition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5) as connection:
            connection.sendall(len(request).to_bytes(4, "big") + request)
            size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
            answer = connection.recv(size, socket.MSG_WAITALL)
            at = answer.index(b"\x13__cluster_metadata") + 19 + 1 + 4 + 2  # name, array, partition, error
            if answer[5:7] == b"\x00\x00":
                return int.from_bytes(answer[at : at + 4], "big", signed=True)
    return 0


# ---- registry and database


@dataclass
class RegistryDown:
    """The registry told to end, and its start again."""

    stack: Stack
    name: ClassVar[str] = "registry down"
    least: ClassVar[float] = 2.0

    def start(self) -> None:
        self.stack.stop_registry()

    def stop(self) -> None:
        patiently(self.stack.start_registry)


@dataclass
class DatabaseDown:
    """PostgreSQL told to end, with every transaction that is open, and its start again."""

    stack: Stack
    name: ClassVar[str] = "database down"
    least: ClassVar[float] = 2.0

    def start(self) -> None:
        self.stack.stop("postgres")

    def stop(self) -> None:
        patiently(self.stack.start_postgres)


@dataclass
class ConnectionsKilled:
    """Every connection to the database ended by the server, again and again."""

    url: str
    every: float = 1.0
    name: ClassVar[str] = "database connections killed"
    least: ClassVar[float] = 3.0

    def start(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._kill, daemon=True)
        self._thread.start()

    def _kill(self) -> None:
        import psycopg

        everyone = (
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = %s"
        )
        base, _, name = self.url.replace("+psycopg", "").rpartition("/")
        while not self._ended.wait(self.every):
            with contextlib.suppress(psycopg.Error), psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
                connection.execute(everyone, (name,))

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(10)


@dataclass
class FileLocked:
    """Another process holds the write lock of SQLite's files."""

    files: Sequence[str]
    name: ClassVar[str] = "database locked"
    least: ClassVar[float] = 2.0

    def start(self) -> None:
        self._held = []
        for file in self.files:
            connection = sqlite3.connect(file, timeout=5, isolation_level=None, check_same_thread=False)
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
            self._held.append(connection)

    def stop(self) -> None:
        for connection in self._held:
            connection.close()


# ---- the network


@dataclass
class Slow:
    """Every piece takes its time, in both directions, to and from one broker."""

    proxies: Sequence[Proxy]
    luck: random.Random
    name: ClassVar[str] = "slow connections"
    least: ClassVar[float] = 3.0

    def start(self) -> None:
        self.luck.choice(self.proxies).delay = self.luck.choice((0.05, 0.2, 0.5))

    def stop(self) -> None:
        for proxy in self.proxies:
            proxy.well()


class Cut(Slow):
    """Every connection cut, and the next ones again and again."""

    name: ClassVar[str] = "cut connections"

    def start(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._cut, daemon=True)
        self._thread.start()

    def _cut(self) -> None:
        while not self._ended.wait(0.7):
            self.luck.choice(self.proxies).cut()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(10)
        super().stop()


class Deaf(Slow):
    """What is asked of one broker arrives, and its answers are lost."""

    name: ClassVar[str] = "answers lost"

    def start(self) -> None:
        self.luck.choice(self.proxies).deaf = True


class Silent(Slow):
    """A partition of the network: nothing from or to one broker, and nobody is told."""

    name: ClassVar[str] = "network silent"
    least: ClassVar[float] = 4.0

    def start(self) -> None:
        self.luck.choice(self.proxies).silent = True


class CommitAnswerLost(Slow):
    """A few ends of transactions arrive, and their answers are lost with the connection."""

    name: ClassVar[str] = "answer to a commit lost"

    def start(self) -> None:
        for proxy in self.proxies:
            proxy.trap = first(end_of_transaction, 2)


# ---- the workload itself


@dataclass
class Storm:
    """Events told again many times, also long settled ones, in no order."""

    tell: Callable[[Sequence[int]], None]
    numbers: Callable[[], Sequence[int]]
    luck: random.Random
    name: ClassVar[str] = "storm of duplicates"
    least: ClassVar[float] = 0.5

    def start(self) -> None:
        there = self.numbers()
        if there:
            some = self.luck.choices(there, k=10) * 20
            self.luck.shuffle(some)
            self.tell(some)

    def stop(self) -> None: ...


# ---- the schedule


@dataclass
class Schedule:
    """Random subsets of the faults, one after another, with quiet windows between; the same for the same seed."""

    faults: Sequence[Fault]
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def run(self, seconds: float, *, least: int = 0, longest: float = 0) -> None:
        """Until the time is up and `least` faults have been, but for `longest` seconds at most.

        Afterwards nothing is wrong any more.
        """
        began = time.monotonic()
        for some, hold, quiet in self.plan():
            passed = time.monotonic() - began
            if passed > max(seconds, longest) or (passed > seconds and self.counts.total() >= least):
                return
            with contextlib.ExitStack() as ends:
                ends.callback(lambda: self.said.append(f"{time.monotonic() - began:5.1f} quiet"))
                for fault in some:
                    self.said.append(f"{time.monotonic() - began:5.1f} {fault.name}")
                    self.counts[fault.name] += 1
                    ends.callback(fault.stop)
                    fault.start()
                time.sleep(max(hold, *(fault.least for fault in some)))
            time.sleep(quiet)

    def plan(self) -> Iterator[tuple[list[Fault], float, float]]:
        """Which faults at once, for how long, and how long it is quiet afterwards. Each kind comes before any comes twice."""
        luck = random.Random(self.seed)
        while True:
            deck = list(self.faults)
            luck.shuffle(deck)
            while deck:
                some = [deck.pop() for _ in range(min(len(deck), luck.choice((1, 1, 2))))]
                yield some, luck.uniform(0.5, 3.0), luck.uniform(0.5, 2.5)
