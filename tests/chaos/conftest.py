"""Three brokers with a proxy before each, a registry and a PostgreSQL, which chaos may treat as it likes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from farandole.stack import process
from farandole.stack.launcher import Stack
from tests.chaos.faults import patiently
from tests.chaos.proxy import HOST, Proxy
from tests.conftest import QUICK


@dataclass
class Cluster:
    """Servers of one's own. Services are given `proxied`; who looks on from outside takes `bootstrap`."""

    stack: Stack
    proxies: list[Proxy]

    @property
    def bootstrap(self) -> str:
        return self.stack.bootstrap_servers

    @property
    def proxied(self) -> str:
        return ",".join(f"{HOST}:{proxy.port}" for proxy in self.proxies)

    @property
    def registry_url(self) -> str:
        return self.stack.registry_url

    def postgres_url(self, name: str) -> str:
        """A new database of that name."""
        import psycopg

        parts = urlsplit(self.stack.postgres_url)
        with psycopg.connect(urlunsplit(parts._replace(scheme="postgresql")), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return urlunsplit(parts._replace(path=f"/{name}"))

    def well(self) -> None:
        """Everything up, every connection as good as new."""
        for proxy in self.proxies:
            proxy.well()
        patiently(partial(self.stack.up, with_postgres=True))


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    """Three brokers, a registry and a PostgreSQL, until the end of the block."""
    if os.environ.get("FARANDOLE_STACK", "local") != "local":
        pytest.skip("chaos kills its servers, so it takes none that are somebody else's")
    with tempfile.TemporaryDirectory(prefix="farandole-test-", ignore_cleanup_errors=True) as place:
        stack = Stack(Path(place) / ".farandole", usual_ports=False)
        behind = process.free_ports({str(number): 0 for number in (1, 2, 3)})
        proxies = [Proxy(port).start() for port in behind.values()]
        own = {
            number: {
                **QUICK,
                "listeners": f"PROXIED://{HOST}:{proxy.to}",
                "advertised.listeners": f"PROXIED://{HOST}:{proxy.port}",
                "listener.security.protocol.map": "PROXIED:PLAINTEXT",
            }
            for number, proxy in enumerate(proxies, 1)
        }
        try:
            stack.start_brokers(3, properties=own)
            stack.start_registry()
            stack.start_postgres()
            yield Cluster(stack, proxies)
        finally:
            stack.down()
            for proxy in proxies:
                proxy.stop()


@contextmanager
def kept_when_red(cluster: Cluster, folder: Path) -> Iterator[None]:
    """What a red block leaves goes to the folder ``CHAOS_KEEP``: the servers' logs, the instances' words and stacks."""
    try:
        yield
    except BaseException:
        if place := os.environ.get("CHAOS_KEEP"):
            cluster.stack.down()  # a log that is written to cannot be read to its end
            left = Path(tempfile.mkdtemp(prefix="red-", dir=place))
            shutil.copytree(folder, left / "world")
            shutil.copytree(cluster.stack.folder, left / "servers")
            print(f"kept: {left}")
        raise


@pytest.fixture(scope="session")
def three_brokers() -> Iterator[Cluster]:
    with own_cluster() as made:
        yield made


@pytest.fixture
def cluster(three_brokers: Cluster) -> Iterator[Cluster]:
    three_brokers.well()
    yield three_brokers
    three_brokers.well()
