"""The laws under fire: SIGKILL at random moments and at each named point, and a zombie that wakes too late."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farandole.points import POINTS
from tests.chaos.world import World

pytestmark = pytest.mark.chaos

EVENTS = {"Events": 100_000, "Rows": 10_000, "Calls": 10_000}
"""Distinct events by class; CHAOS_EVENTS overrides. (ii) and (iii) pay several SQL commits for each."""
KILLS = 20

_COMMON = ("assign.after_init", "assign.after_fence", "assign.after_tail", "intake.polled", "step.running")
_KAFKA = tuple(p for p in POINTS if p.startswith(("txn.", "settle.")))
POINTS_OF = {
    "Events": (*_COMMON, "step.done", *_KAFKA, "revoke.draining"),
    "Rows": (*_COMMON, "step.done", *(p for p in POINTS if p.startswith("sql.")), *_KAFKA),
    "Calls": (
        *_COMMON, "claim.after", "step.claimed", "effect.acked", "checkpoint.committed", "outbox.committed", *_KAFKA,
    ),
}  # fmt: skip


@pytest.fixture
def database(request, stack, tmp_path: Path) -> str:
    return stack.postgres_url() if request.param == "postgresql" else f"sqlite:///{tmp_path}/books.db"


def world_of(stack, folder: Path, pipeline: str, database: str) -> World:
    world = World(stack.bootstrap_servers, stack.registry_url, folder, database, (pipeline,))
    world.create()
    return world


@pytest.fixture
def world(request, stack, database: str, tmp_path: Path) -> Iterator[World]:
    made = world_of(stack, tmp_path, request.param, database)
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("world", ["Events", "Rows", "Calls"], indirect=True)
def test_each_effect_happens_once_under_random_kills_and_a_zombie(world: World):
    [pipeline] = world.pipelines
    luck = random.Random(20)
    count = int(os.environ.get("CHAOS_EVENTS", EVENTS[pipeline]))
    sender = threading.Thread(target=world.produce, args=(count,))
    sender.start()
    alive = [world.start(pipeline), world.start(pipeline)]

    for kill in range(KILLS):
        time.sleep(luck.uniform(1.5, 3.5))
        victim = luck.randrange(2)
        if kill == KILLS // 2:  # stopped past its session, it wakes up believing that it still owns its partitions
            alive[victim].send_signal(signal.SIGSTOP)
            time.sleep(9)
            alive[victim].send_signal(signal.SIGCONT)
            continue
        alive[victim].kill()
        alive[victim].wait()
        alive[victim] = world.start(pipeline)
    alive[0].kill()
    alive[0] = world.start(pipeline)
    sender.join()

    world.wait_drained(300)
    world.stop()
    assert world.judged(pipeline) == []


@pytest.mark.timeout(600)
def test_a_kill_at_each_named_point_loses_and_repeats_nothing(stack, tmp_path: Path):
    shared = (
        stack.postgres_url()
    )  # both databases side by side: most of the time is spent in waiting for sessions to end
    worlds = [
        world_of(stack, tmp_path / name / kind, name, url)
        for name in POINTS_OF
        for kind, url in (("sqlite", f"sqlite:///{tmp_path}/books.db"), ("postgresql", shared))
    ]
    try:
        with ThreadPoolExecutor(len(worlds)) as threads:
            missed = list(threads.map(kill_at_each_point, worlds))
    finally:
        for world in worlds:
            world.stop()
    assert missed == [[]] * len(worlds), "points that were never passed"
    assert [world.judged(*world.pipelines) for world in worlds] == [[]] * len(worlds)


def kill_at_each_point(world: World) -> list[str]:
    """One instance after another, each killed at another point while events come in; then one that lives."""
    [pipeline] = world.pipelines
    missed = []
    for number, name in enumerate(POINTS_OF[pipeline]):
        nth = 1 if name.startswith(("assign", "revoke")) else 2 + number % 2
        # on a busy machine one may be told to end before it has begun, and does not come to the point
        if not any(is_killed_at(world, pipeline, f"{name}:{nth}") for _ in range(3)):
            missed.append(name)
    world.start(pipeline)
    world.wait_drained(60)
    return missed


def is_killed_at(world: World, pipeline: str, point: str) -> bool:
    process = world.start(pipeline, FARANDOLE_KILL_AT=point)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        world.produce(12, bad=0.01, seed=len(world.kinds))
        time.sleep(0.25)
        if point.startswith("revoke") and time.monotonic() > deadline - 24:
            process.terminate()
    killed = process.poll() == -signal.SIGKILL
    process.kill()
    process.wait()
    return killed
