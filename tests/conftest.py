"""What every test may ask for: real servers, started by the project's own launcher.

``FARANDOLE_STACK=external`` takes the servers that KAFKA_BOOTSTRAP_SERVERS and SCHEMA_REGISTRY_URL name
(and FARANDOLE_TEST_POSTGRES_URL, if there is one) instead of starting any; ``containers`` starts them in
Docker, and skips where Docker does not answer.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from farandole.errors import StackError
from farandole.stack.launcher import Stack

QUICK = {"group.consumer.session.timeout.ms": "3000", "group.consumer.heartbeat.interval.ms": "1000"}
"""Who was killed is missed after three seconds: the chaos tests wait for that dozens of times."""


class Servers:
    """The servers of one test session. Each starts when it is first asked for, and not before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mode = os.environ.get("FARANDOLE_STACK", "local")
        self.launcher = Stack(folder, usual_ports=False)  # for tests that stop and start single servers of this session
        self._databases = Stack(
            folder / "databases", usual_ports=False
        )  # apart, so that the launcher's settings name no database

    @cached_property
    def bootstrap_servers(self) -> str:
        """The broker's address."""
        if self.mode == "containers":
            return self._contained["kafka"]
        if self.mode == "external":
            return os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        return self.launcher.start_kafka(properties=QUICK).address

    @cached_property
    def registry_url(self) -> str:
        """The registry's Confluent-compatible API (v7)."""
        if self.mode == "containers":
            return self._contained["registry"]
        if self.mode == "external":
            return os.environ["SCHEMA_REGISTRY_URL"]
        return self.launcher.start_registry().address

    def postgres_url(self) -> str:
        """A database of its own, empty, for whoever asks: an SQLAlchemy URL."""
        import psycopg

        name = self.unique("test").replace("-", "_")
        parts = urlsplit(self._postgres)
        with psycopg.connect(urlunsplit(parts._replace(scheme="postgresql")), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return urlunsplit(parts._replace(path=f"/{name}"))

    @cached_property
    def _postgres(self) -> str:
        if self.mode == "external" and (url := os.environ.get("FARANDOLE_TEST_POSTGRES_URL")):
            return url
        return self._databases.start_postgres().address

    @cached_property
    def _contained(self) -> dict[str, str]:
        from farandole.stack import containers

        try:
            return {server.name: server.address for server in containers.up(self.folder)}
        except StackError as error:
            pytest.skip(f"FARANDOLE_STACK=containers: {error.message}")

    def unique(self, prefix: str) -> str:
        """A name that no other test has, for topics, groups and subjects."""
        return f"{prefix}-{uuid.uuid4().hex[:10]}"

    def environment(self) -> dict[str, str]:
        """The variables by which a process of ours finds these servers."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": self.registry_url,
            "FARANDOLE_STATE": str(self.folder),
        }

    def down(self) -> None:
        """Stop what was started."""
        if "_contained" in self.__dict__:
            from farandole.stack import containers

            containers.down(self.folder)
        self.launcher.down()
        self._databases.down()


@contextmanager
def own_servers() -> Iterator[Servers]:
    """Servers of one's own, until the end of the block."""
    # not pytest's own folder: that is closed to PostgreSQL's user each time another session of pytest begins
    with tempfile.TemporaryDirectory(prefix="farandole-test-", ignore_cleanup_errors=True) as place:
        servers = Servers(Path(place) / ".farandole")
        try:
            yield servers
        finally:
            servers.down()


@pytest.fixture(scope="session")
def stack():
    with own_servers() as servers:
        yield servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.stack)
