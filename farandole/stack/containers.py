"""The same servers in containers, where Docker answers: ``FARANDOLE_STACK=containers``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farandole.clock import SystemClock
from farandole.errors import StackError
from farandole.stack import jars, postgres
from farandole.stack.process import HOST, free_ports
from farandole.stack.servers import BROKER, KAFKA, REGISTRY, Cluster, Kind, cluster_id
from farandole.stack.state import Server, StateFile, locked

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

IMAGES = {
    "kafka": f"apache/kafka:{jars.KAFKA.rpartition(':')[2]}",
    "registry": f"apicurio/apicurio-registry:{jars.REGISTRY.rpartition(':')[2]}",
    "postgres": "postgres:18",
}
PATIENCE = 180.0  # seconds; images may have to be pulled


def up(folder: Path, *, with_postgres: bool = False) -> list[Server]:
    """Start what does not run yet and wait until each answers. Raises StackError where Docker does not answer."""
    client = _docker()
    state = StateFile(folder)
    with locked(folder / "stack.lock", lambda _: None):
        servers = [_start(client, state, KAFKA, _kafka), _start(client, state, REGISTRY, _registry)]
        if with_postgres:
            servers.append(_start(client, state, _POSTGRES, _postgres))
        return servers


def down(folder: Path) -> list[str]:
    """Stop and remove the containers of this state folder; the names of what was stopped. Their data goes too."""
    client = _docker()
    state = StateFile(folder)
    stopped = []
    with locked(folder / "stack.lock", lambda _: None):
        for server in state.servers().values():
            if _runs(client, server):
                client.containers.get(server.container).remove(force=True, v=True)
                state.put(Server(server.name, server.address, server.ports))
                stopped.append(server.name)
    return stopped


def _docker() -> Any:
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # its reaper would end the stack with this process
    try:
        import docker  # type: ignore[import-untyped]

        client = docker.from_env()
        client.ping()
    except ImportError as error:
        raise StackError("containers need the package testcontainers", hint="pip install testcontainers") from error
    except docker.errors.DockerException as error:
        raise StackError(
            f"Docker does not answer: {error}",
            place="FARANDOLE_STACK",
            hint="start Docker, or leave FARANDOLE_STACK out: `farandole up` needs neither Docker nor Java",
        ) from error
    return client


def _start(client: Any, state: StateFile, kind: Kind, container: Callable[[dict[str, int]], DockerContainer]) -> Server:
    known = state.get(kind.name)
    if known and _runs(client, known):
        return known
    ports = free_ports({**kind.usual, **(known.ports if known else {})})
    started = container(ports).start()
    server = Server(kind.name, kind.address(ports), ports, container=started.get_wrapped_container().id)
    state.put(server)
    clock = SystemClock()
    end = clock.monotonic() + PATIENCE
    while not kind.ready(ports):
        if clock.monotonic() > end or not _runs(client, server):
            out, err = started.get_logs()
            tail = (out + err).decode(errors="replace")[-1200:]
            raise StackError(f"{kind.name} does not answer in its container; the end of its log:\n{tail}")
        time.sleep(0.2)
    return server


def _runs(client: Any, server: Server) -> bool:
    import docker

    try:
        return bool(server.container) and client.containers.get(server.container).status == "running"
    except docker.errors.NotFound:
        return False


def _container(image: str, ports: dict[int, int], env: dict[str, str]) -> DockerContainer:
    from testcontainers.core.container import DockerContainer

    made = DockerContainer(image)
    for name, value in env.items():
        made = made.with_env(name, value)
    for inside, outside in ports.items():
        made = made.with_bind_ports(inside, outside)
    return made


def _kafka(ports: dict[str, int]) -> DockerContainer:
    settings = {
        **BROKER,
        **Cluster({1: 9093}, cluster_id()).settings(),
        "node.id": "1",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listeners": f"PLAINTEXT://:{ports['client']},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports['client']}",
        "controller.quorum.voters": "1@localhost:9093",
    }
    env = {"KAFKA_" + name.upper().replace(".", "_"): value for name, value in settings.items()}
    return _container(IMAGES["kafka"], {ports["client"]: ports["client"]}, env)


def _registry(ports: dict[str, int]) -> DockerContainer:
    return _container(IMAGES["registry"], {8080: ports["http"]}, {"APICURIO_STORAGE_KIND": "sql"})


def _postgres(ports: dict[str, int]) -> DockerContainer:
    env = {"POSTGRES_HOST_AUTH_METHOD": "trust", "POSTGRES_DB": postgres.DATABASE}
    return _container(IMAGES["postgres"], {5432: ports["sql"]}, env)


def _postgres_ready(ports: Mapping[str, int]) -> bool:
    import psycopg

    try:
        psycopg.connect(host=HOST, port=ports["sql"], user="postgres", connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


_POSTGRES = Kind(
    "postgres", postgres.USUAL, _postgres_ready, lambda ports: postgres.url(ports["sql"], postgres.DATABASE)
)
