"""Faults by a seed, over pipelines of each class and a join of two: whatever goes wrong, the books balance after it.

Two seeds run always, the others up to twenty where there are minutes to spare; ``CHAOS_SEEDS=17:18`` is one of
them again, and ``CHAOS_KEEP=folder`` keeps what a red one leaves. Even seeds keep their books in SQLite, odd ones in
PostgreSQL. Each has servers of its own: what twenty of them leave on a broker fills it.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.chaos import faults
from tests.chaos.conftest import Cluster, kept_when_red, own_cluster
from tests.chaos.faults import Schedule
from tests.chaos.fleet import Fleet
from tests.chaos.world import World

pytestmark = pytest.mark.chaos

ALWAYS = (2, 7)
"""One for each database, and between them most kinds of faults; of the twenty they are the quickest."""
PIPELINES = {"Events": 2, "Rows": 2, "Calls": 1, "Pairs": 1}
SECONDS, LONGEST = 30, 120
FAULTS = 10  # at least, within the longest time: on a busy machine a server takes a minute to be there again
PACE = 40  # events in a second
SHARES = {"bad": 0.01, "skip": 0.05, "odd": 0.005, "garbage": 0.005}
PATIENCE = 100  # seconds without any progress once everything is well


def seeds() -> list[ParameterSet]:
    first, _, end = os.environ.get("CHAOS_SEEDS", "0:20").partition(":")
    marks = {seed: [] if seed in ALWAYS else [pytest.mark.soak] for seed in range(int(first), int(end))}
    return [pytest.param(seed, marks=some, id=f"seed-{seed}") for seed, some in marks.items()]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with own_cluster() as made:
        yield made


@pytest.fixture
def world(request, cluster: Cluster, tmp_path: Path) -> Iterator[World]:
    seed = request.param
    database = f"sqlite:///{tmp_path}/{{pipeline}}.db" if seed % 2 == 0 else cluster.postgres_url(f"seed_{seed}")
    made = World(cluster.bootstrap, cluster.registry_url, tmp_path, database, tuple(PIPELINES))
    made.create()
    yield made
    made.stop()


def faults_of(cluster: Cluster, world: World, fleet: Fleet, luck: random.Random) -> list[faults.Fault]:
    stack, proxies = cluster.stack, cluster.proxies
    some: list[faults.Fault] = [
        faults.Killed(fleet, luck),
        faults.KilledAtPoint(fleet, luck),
        faults.Frozen(fleet, luck),
        faults.Told(fleet, luck),
        faults.Scaled(fleet, luck),
        faults.BrokerKilled(stack, luck),
        faults.BrokerRestarted(stack, luck),
        faults.ControllerKilled(stack, luck),
        faults.TwoBrokersDown(stack, luck),
        faults.RegistryDown(stack),
        faults.Slow(proxies, luck),
        faults.Cut(proxies, luck),
        faults.Deaf(proxies, luck),
        faults.Silent(proxies, luck),
        faults.CommitAnswerLost(proxies, luck),
        # not of what cannot be read: that is a letter each time, and twenty of one cause stop the line, as they should
        faults.Storm(world.again, lambda: sorted(world.numbers("good", "bad", "skip")), luck),
    ]
    if world.database.startswith("sqlite"):
        files = [world.url(p).removeprefix("sqlite:///") for p in world.pipelines]
        return [*some, faults.FileLocked(files)]
    return [*some, faults.DatabaseDown(stack), faults.ConnectionsKilled(world.database)]


def suffer(cluster: Cluster, world: World, seed: int) -> str:
    """Load and faults, then quiet until everything has drained; how to do it again."""
    luck = random.Random(seed)
    fleet = Fleet(world, PIPELINES, KAFKA_BOOTSTRAP_SERVERS=cluster.proxied)
    schedule = Schedule(faults_of(cluster, world, fleet, luck), seed)
    over = threading.Event()

    def send() -> None:
        for part in itertools.count():
            world.produce(5 * PACE, pace=PACE, seed=100 * seed + part, **SHARES)
            if over.is_set():
                return

    sender = threading.Thread(target=send)
    began, took = time.monotonic(), {}
    again = f"CHAOS_SEEDS={seed}:{seed + 1} pytest -q -s tests/chaos/test_seeds.py"
    try:
        world.wait_at_work(180)
        took["at work"] = time.monotonic() - began
        sender.start()
        schedule.run(SECONDS, least=FAULTS, longest=LONGEST)
        over.set()
        world.may_lose = schedule.counts[faults.TwoBrokersDown.name] > 0
        took["faults"] = time.monotonic() - began
        cluster.well()
        sender.join(300)
        assert not sender.is_alive(), "not everything could be sent"
        world.wait_drained(PATIENCE)
        took["drained"] = time.monotonic() - began
    finally:
        over.set()
        fleet.stop()
        print(f"\nseed {seed}: {dict(schedule.counts)}, ends {dict(fleet.ends)}\nagain: {again}")
        print("\n".join(schedule.said))
        print({what: round(seconds) for what, seconds in took.items()})
    return again


@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", seeds(), indirect=True)
def test_whatever_goes_wrong_nothing_is_lost_doubled_or_out_of_order(request, cluster: Cluster, world: World):
    with kept_when_red(cluster, world.folder):
        again = suffer(cluster, world, seed=request.node.callspec.params["world"])
        verdict = {name: world.judged(name) for name in world.pipelines}
        assert verdict == {name: [] for name in world.pipelines}, f"again: {again}"
