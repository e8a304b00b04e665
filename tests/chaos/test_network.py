"""A network of its own for one instance, which is cut off from everything and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos import proxy
from tests.chaos.conftest import Cluster
from tests.chaos.proxy import Proxy
from tests.chaos.world import World

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parents[2]


def ip(*words: str) -> None:
    """One command of `ip`, or a skip that says why not."""
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("network namespaces need the command `ip`")
    if done.returncode:
        pytest.skip(f"no network namespace here: `ip {' '.join(words)}` says {done.stderr.strip()}")


@dataclass
class Elsewhere:
    """A network namespace whose loopback leads to the same servers, over one cable."""

    name: str
    cable: str

    def plug(self, *, out: bool) -> None:
        ip("link", "set", self.cable, "down" if out else "up")


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[Elsewhere]:
    name, near, far = f"farandole-{os.getpid()}", f"fn{os.getpid()}"[:15], f"ff{os.getpid()}"[:15]
    here, there = "10.199.77.1", "10.199.77.2"
    ports = [each.port for each in cluster.proxies]
    ports += [urlsplit(url).port for url in (cluster.registry_url, cluster.stack.postgres_url)]
    ip("netns", "add", name)
    relay, doors = None, []
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        ip("link", "set", far, "netns", name)
        ip("addr", "add", f"{here}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("netns", "exec", name, "ip", "addr", "add", f"{there}/30", "dev", far)
        for link in (far, "lo"):
            ip("netns", "exec", name, "ip", "link", "set", link, "up")
        doors = [Proxy(port, port, at=here).start() for port in ports]
        words = [sys.executable, proxy.__file__, here, *map(str, ports)]
        relay = subprocess.Popen(["ip", "netns", "exec", name, *words])
        yield Elsewhere(name, near)
    finally:
        if relay is not None:
            relay.kill()
            relay.wait()
        for door in doors:
            door.stop()
        subprocess.run(["ip", "link", "del", near], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.timeout(300)
@pytest.mark.soak  # connections that a relay keeps open come back as slowly as TCP repeats itself: up to two minutes
@pytest.mark.parametrize("pipeline", ["Rows", "Calls"])
def test_an_instance_cut_off_from_everything_is_replaced_and_changes_nothing_when_it_is_back(
    cluster: Cluster, elsewhere: Elsewhere, tmp_path: Path, pipeline: str
):
    database = cluster.postgres_url(f"elsewhere_{os.getpid()}_{pipeline.lower()}")
    world = World(cluster.bootstrap, cluster.registry_url, tmp_path, database, (pipeline,))
    world.create()
    try:
        alone = world.start(pipeline, "ip", "netns", "exec", elsewhere.name, KAFKA_BOOTSTRAP_SERVERS=cluster.proxied)
        world.produce(300)
        world.wait_at_work()
        time.sleep(2)  # it is in the middle of the work
        elsewhere.plug(out=True)
        other = world.start(pipeline)
        world.produce(100, seed=2)
        world.wait_drained(120)  # by the other: within its session, and the database's patience with the first
        elsewhere.plug(out=False)
        world.produce(100, seed=3)
        other.terminate()
        other.wait(60)
        world.wait_drained(120)  # by the first, which found its way back
        assert alone.poll() is None
    finally:
        world.stop()
    assert world.judged(pipeline) == []
