"""Answers that are lost: to the end of a transaction, and to a COMMIT. Nobody guesses how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Cluster
from tests.chaos.proxy import HOST, Proxy, commit_in_sql, end_of_transaction, first
from tests.chaos.world import World

pytestmark = pytest.mark.chaos


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Proxy]:
    port = int(cluster.stack.postgres_url.rpartition(":")[2].partition("/")[0])
    proxy = Proxy(port).start()
    yield proxy
    proxy.stop()


def wait(told, timeout: float, what: str) -> None:
    end = time.monotonic() + timeout
    while not told():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def test_the_answer_to_a_commit_in_sql_is_lost_and_the_row_is_looked_for(cluster: Cluster, database: Proxy, tmp_path):
    url = cluster.postgres_url(f"answers_{tmp_path.name[-8:]}".replace("-", "_"))
    world = World(cluster.bootstrap, cluster.registry_url, tmp_path, url, ("Rows",))
    world.create()
    behind = url.replace(url.rpartition("@")[2].partition("/")[0], f"{HOST}:{database.port}")
    world.start("Rows", FARANDOLE_DATABASE_URL=behind)
    world.produce(100)
    world.wait_at_work()
    for _ in range(5):
        trapped = database.trapped
        database.trap = first(commit_in_sql, 3)
        world.produce(60, seed=len(world.kinds))
        wait(lambda t=trapped: database.trapped > t, 30, "no commit came by")
        time.sleep(0.5)
    database.well()
    world.wait_drained(90)
    world.stop()
    assert database.trapped >= 5
    assert world.judged("Rows") == []


def test_the_answer_to_the_end_of_a_transaction_is_lost_and_the_offset_is_asked_for(cluster: Cluster, tmp_path: Path):
    world = World(cluster.bootstrap, cluster.registry_url, tmp_path, f"sqlite:///{tmp_path}/books.db", ("Events",))
    world.create()
    world.start("Events", KAFKA_BOOTSTRAP_SERVERS=cluster.proxied)
    world.produce(100)
    world.wait_at_work()
    for _ in range(5):
        trapped = sum(proxy.trapped for proxy in cluster.proxies)
        for proxy in cluster.proxies:
            proxy.trap = first(end_of_transaction)
        world.produce(100, seed=len(world.kinds))
        wait(lambda t=trapped: sum(p.trapped for p in cluster.proxies) > t, 60, "no end of a transaction came by")
    cluster.well()
    world.wait_drained(120)
    world.stop()
    assert world.judged("Events") == []
