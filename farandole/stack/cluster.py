"""Several brokers on one machine: one cluster, each member broker and controller at once.

A cluster is made with its size and keeps it: the replication of its internal topics follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from farandole.errors import StackError
from farandole.stack import process
from farandole.stack.servers import KAFKA, Cluster, JavaKind, cluster_id, member, member_name
from farandole.stack.state import Server, StateFile

SIZES = (1, 3)
"""How many brokers a stack may have: with two, the loss of either would be the loss of both."""

Start = Callable[[JavaKind, Mapping[str, int], Mapping[str, str] | None], Server]
"""Starts one server on these ports, with these properties, and waits until it answers."""


def brokers_of(state: StateFile) -> list[Server]:
    """The brokers that were ever started here, in order."""
    servers = state.servers()
    return [servers[name] for n in range(1, max(SIZES) + 1) if (name := member_name(n)) in servers]


def bootstrap_of(brokers: list[Server]) -> str:
    """What a client is told: every broker's address."""
    return ",".join(broker.address for broker in brokers)


def size_of(state: StateFile, asked: int) -> int:
    """How many brokers there are to be: as many as before. Raises StackError where another number is asked for."""
    known = len(brokers_of(state))
    if known and asked not in (0, known):
        raise StackError(
            f"this stack was made with {known} broker{'s' if known > 1 else ''}, and keeps that number",
            place=str(state.path),
            hint="name another folder for another stack: FARANDOLE_STATE=.farandole-3 farandole up --brokers 3",
        )
    return known or asked or 1


class Members:
    """The brokers of one cluster in one state folder."""

    def __init__(self, folder: Path, state: StateFile, *, usual_ports: bool) -> None:
        self._folder, self._state, self._usual_ports = folder, state, usual_ports

    def start(
        self, size: int, start: Start, port: int, properties: Mapping[int, Mapping[str, str]], alive: set[str]
    ) -> list[Server]:
        """Start those that do not run, side by side: alone none of them can answer."""
        kinds = dict(self._kinds(size, port, alive))
        work = []
        with ThreadPoolExecutor(size, "farandole-brokers") as pool:
            for number, kind in kinds.items():
                server = self._state.get(kind.name)
                assert server is not None  # noqa: S101 - its ports were just put there
                work.append(pool.submit(start, kind, server.ports, properties.get(number)))
        return [each.result() for each in work]

    def one(self, number: int) -> JavaKind:
        """A member as it was last started. Raises StackError where there is none of that number."""
        brokers = brokers_of(self._state)
        if not 1 <= number <= len(brokers):
            raise StackError(f"there is no broker {number} here", place=str(self._folder), hint="farandole up")
        return KAFKA if len(brokers) == 1 else member(number, self._cluster(brokers))

    def _cluster(self, brokers: list[Server]) -> Cluster:
        voters = {number: broker.ports["controller"] for number, broker in enumerate(brokers, 1)}
        return Cluster(voters, cluster_id(self._folder / "cluster.id"))

    def _kinds(self, size: int, port: int, alive: set[str]) -> Iterator[tuple[int, JavaKind]]:
        """Each member, once the ports of all are chosen: each must know where the others' controllers listen."""
        for number in range(1, size + 1):
            name = member_name(number)
            known = self._state.get(name)
            if name in alive:
                continue
            usual = KAFKA.usual["client"] if self._usual_ports and number == 1 else 0
            likes = known.ports if known else {"client": usual, "controller": 0}
            ports = process.free_ports({**likes, **({"client": port} if port and number == 1 else {})})
            if alive and known and ports["controller"] != known.ports["controller"]:
                raise StackError(
                    f"port {known.ports['controller']} of {name} is taken, and the others look for it there",
                    place=known.address,
                    hint="`farandole down`, then `farandole up`: all of them then learn where it is",
                )
            fresh = Server(name, KAFKA.address(ports), ports)
            self._state.put(replace(known, address=fresh.address, ports=ports) if known else fresh)
        cluster = self._cluster(brokers_of(self._state))
        for number in range(1, size + 1):
            yield number, member(number, cluster)
