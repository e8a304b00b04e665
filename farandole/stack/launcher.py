"""Start, find and stop the servers of one state folder."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

from farandole.clock import SystemClock
from farandole.errors import StackError
from farandole.stack import postgres, process
from farandole.stack.cluster import Members, bootstrap_of, brokers_of, size_of
from farandole.stack.jars import Depot, enough_disk
from farandole.stack.progress import Progress
from farandole.stack.servers import KAFKA, REGISTRY, JavaKind, java, member_name
from farandole.stack.state import Server, StateFile, locked

PATIENCE = 90.0  # seconds for a server to answer; a busy machine of two cores needs up to twenty
_TAKEN = ("Address already in use", "in use by another process", "Failed to bind")
_BINDS = 3  # a port that was free can be taken before the server gets there


class Stack:
    """The servers of one state folder: Kafka, the registry and, on request, PostgreSQL.

    Two folders are two stacks, which run side by side. Every method may be called from any process: what
    runs is known from the state file, and a server is only ever stopped by its pid *and* start time. Without
    `usual_ports` it leaves 9092, 8081 and 5432 to others.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        depot: Depot | None = None,
        progress: Progress | None = None,
        usual_ports: bool = True,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._usual_ports = usual_ports
        self._depot = depot or Depot.of_environment()
        self._progress = progress or Progress()
        self._state = StateFile(self.folder)
        self._given_up = Event()

    @property
    def bootstrap_servers(self) -> str:
        """The brokers' addresses. Raises StackError when no Kafka was ever started here."""
        return bootstrap_of(brokers_of(self._state)) or self._known("kafka").address

    @property
    def registry_url(self) -> str:
        """The registry's Confluent-compatible API. Raises StackError when none was ever started here."""
        return self._known("registry").address

    @property
    def postgres_url(self) -> str:
        """The SQLAlchemy URL of PostgreSQL's database ``farandole``. Raises StackError when there is none."""
        return self._known("postgres").address

    def up(
        self,
        *,
        with_postgres: bool = False,
        brokers: int = 0,
        kafka_port: int = 0,
        registry_port: int = 0,
        properties: Mapping[str, str] | None = None,
    ) -> list[Server]:
        """Start what does not run yet, side by side, and wait until each answers.

        A port of 0 means the one it had last time, else the usual one, else any free one. `brokers` is 1 or 3;
        0 means as many as there were, else 1. `properties` are the brokers' own and are kept for later starts;
        an empty value takes one away. Raises StackError.
        """
        java()
        size = size_of(self._state, brokers)
        with self._locked(), self._progress, ThreadPoolExecutor(3, "farandole-up") as pool:
            for number in range(1, size + 1):
                self._may_have(member_name(number), "client", kafka_port if number == 1 else 0, properties or {})
            self._may_have("registry", "http", registry_port, {})
            of_all = dict.fromkeys(range(1, size + 1), properties or {})
            work: list[Future[list[Server]]] = [
                pool.submit(self.start_brokers, size, port=kafka_port, properties=of_all),
                pool.submit(lambda: [self.start_registry(port=registry_port)]),
                *([pool.submit(lambda: [self.start_postgres()])] if with_postgres else ()),
            ]
            try:
                return [server for each in work for server in each.result()]
            except BaseException:
                self._given_up.set()
                raise

    def down(self) -> list[str]:
        """Stop everything that runs here; the names of what was stopped. Data and ports are kept."""
        with self._locked():
            running = [server for server in self._state.servers().values() if is_running(server)]
            with ThreadPoolExecutor(5, "farandole-down") as pool:
                list(pool.map(lambda server: self.stop(server.name), running))
            for pid, started in process.left_over(java(), self.folder):  # somebody was interrupted before he noted it
                process.stop(pid, started)
            return [server.name for server in running]

    def status(self) -> list[tuple[Server, bool]]:
        """Every server known here, and whether it runs."""
        return [(server, is_running(server)) for server in self._state.servers().values()]

    def start_kafka(self, *, port: int = 0, properties: Mapping[str, str] | None = None) -> Server:
        """Start the broker alone, or find it running; of several, the first."""
        if len(brokers_of(self._state)) > 1:
            return self.start_broker(1)
        return self._start(KAFKA, {"client": port}, properties)

    def start_brokers(
        self, brokers: int = 0, *, port: int = 0, properties: Mapping[int, Mapping[str, str]] | None = None
    ) -> list[Server]:
        """Start all brokers, or find them running; `properties` by the number of the broker."""
        size, told = size_of(self._state, brokers), properties or {}
        if size == 1:
            return [self.start_kafka(port=port, properties=told.get(1))]
        members = Members(self.folder, self._state, usual_ports=self._usual_ports)
        alive = {server.name for server in brokers_of(self._state) if is_running(server)}
        return members.start(size, self._start, port, told, alive)

    def start_broker(self, number: int) -> Server:
        """Start one broker of several again, or find it running."""
        return self._start(Members(self.folder, self._state, usual_ports=False).one(number), {}, None)

    def start_registry(self, *, port: int = 0, properties: Mapping[str, str] | None = None) -> Server:
        """Start the registry alone, or find it running."""
        return self._start(REGISTRY, {"http": port}, properties)

    def start_postgres(self, *, port: int = 0) -> Server:
        """Start PostgreSQL, or find it running."""
        known = self._state.get("postgres")
        if known and is_running(known):
            return known
        enough_disk(self.folder)
        self._progress.say("postgres", "starting")
        server = postgres.start(self.folder / "postgres", self._ports(known, postgres.USUAL, {"sql": port})["sql"])
        self._state.put(server)
        self._progress.say("postgres", f"ready at {server.address}")
        return server

    def stop_kafka(self) -> None:
        """Stop the broker cleanly; all of several."""
        brokers = brokers_of(self._state)
        with ThreadPoolExecutor(len(brokers) or 1, "farandole-down") as pool:
            list(pool.map(lambda broker: self.stop(broker.name), brokers))

    def stop_registry(self) -> None:
        """Stop the registry cleanly."""
        self.stop("registry")

    def stop(self, name: str, *, grace: float = 20.0) -> None:
        """Stop one server cleanly, by SIGKILL after `grace` seconds. Nothing happens if it does not run."""
        if server := self._state.get(name):
            polite = postgres.POLITE if name == "postgres" else signal.SIGTERM
            process.stop(server.pid, server.started, polite=polite, grace=grace)
            self._forget(name)

    def kill(self, name: str) -> None:
        """SIGKILL one server: what a crash looks like."""
        if server := self._state.get(name):
            process.stop(server.pid, server.started, polite=signal.SIGKILL)
            self._forget(name)

    def _forget(self, name: str) -> None:
        if server := self._state.get(name):
            self._state.put(replace(server, pid=0, started=0.0))

    def _start(self, kind: JavaKind, wanted: Mapping[str, int], properties: Mapping[str, str] | None) -> Server:
        known = self._state.get(kind.name)
        if known and is_running(known):
            self._await(kind, known, 0)
            return known
        enough_disk(self.folder)
        before = known.properties if known else {}
        kept = {name: value for name, value in {**before, **(properties or {})}.items() if value}
        for left in reversed(range(_BINDS)):
            ports = self._ports(known, kind.usual, wanted)
            said = process.set_aside(self._log(kind.name))
            server = self._spawn(kind, ports, kept)
            self._state.put(replace(server, properties=before))  # now: whoever interrupts us can still stop it
            try:
                self._await(kind, server, said)
            except _PortTakenError:
                if not left or any(wanted.values()):
                    raise
                known = None
                continue
            self._state.put(server)  # only now: properties that it died of are not kept
            self._progress.say(kind.name, f"ready at {server.address}")
            return server
        raise AssertionError  # the last try returns or raises

    def _spawn(self, kind: JavaKind, ports: Mapping[str, int], properties: dict[str, str]) -> Server:
        launch = kind.launch(self.folder / kind.name, ports, properties, self._depot, self._progress)
        log = self._log(kind.name)
        self._progress.say(kind.name, "starting")
        pid, started = process.spawn(launch.argv, log, launch.env)
        return Server(kind.name, kind.address(ports), dict(ports), pid, started, str(log), properties=properties)

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _await(self, kind: JavaKind, server: Server, said: int) -> None:
        """Wait until it answers; `said` is how long its log was before it started."""
        clock = SystemClock()
        end = clock.monotonic() + PATIENCE
        log = Path(server.log)
        # its own ports first: an answer could be that of a neighbour who took the port a moment before it did
        while not (process.listens(server.pid, server.ports.values()) and kind.ready(server.ports)):
            if not is_running(server):
                self._forget(kind.name)
                raise self._died(kind, log, said)
            if clock.monotonic() > end or self._given_up.is_set():
                raise StackError(
                    f"{kind.name} runs (pid {server.pid}) but did not answer within {PATIENCE:g} s:\n"
                    f"{process.last_lines(log)}",
                    place=str(log),
                    hint="`farandole up` waits for it again; `farandole down` stops it",
                )
            time.sleep(0.05)

    def _died(self, kind: JavaKind, log: Path, said: int) -> StackError:
        taken = any(word in process.last_lines(log, 300, said) for word in _TAKEN)
        return (_PortTakenError if taken else StackError)(
            f"{kind.name} died at its start; the last lines of its log:\n{process.last_lines(log, since=said)}",
            place=str(log),
            hint=f"its data is in {self.folder / kind.name}; `farandole doctor` checks the machine",
        )

    def _ports(self, known: Server | None, usual: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
        asked = {use: port for use, port in wanted.items() if port}
        process.free_ports(asked, insist=True)
        likes = known.ports if known else usual if self._usual_ports else {}
        return process.free_ports({use: asked.get(use) or likes.get(use, 0) for use in usual})

    def _may_have(self, name: str, use: str, port: int, properties: Mapping[str, str]) -> None:
        """Refuse what was asked for and cannot be had, before anything is started."""
        known = self._state.get(name)
        if not (known and is_running(known)):
            process.free_ports({use: port} if port else {}, insist=True)
        elif port not in (0, known.ports[use]) or not properties.items() <= known.properties.items():
            other = "other properties" if port in (0, known.ports[use]) else f"port {known.ports[use]}"
            raise StackError(
                f"{name} runs already, with {other}",
                place=known.address,
                hint="`farandole down` first, then the same `farandole up` again",
            )

    def _known(self, name: str) -> Server:
        if server := self._state.get(name):
            return server
        raise StackError(f"no {name} was started here", place=str(self.folder), hint="farandole up")

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.folder / "stack.lock", lambda text: self._progress.say("stack", text))


class _PortTakenError(StackError):
    pass


def is_running(server: Server) -> bool:
    """Whether that very process runs."""
    return process.is_alive(server.pid, server.started)
