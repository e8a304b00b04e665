"""The laws under fire: SIGKILL at random moments and at each named point, and a zombie that wakes too late."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from farandole.points import POINTS
from farandole.store import open_store
from tests.chaos.world import World, judge

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


def prepared(world: World) -> World:
    """Topics, subjects, and the table of the effect."""
    world.create()
    if world.pipeline == "Rows":
        store = open_store(world.database, world.group)
        with store.engine.begin() as connection:
            connection.exec_driver_sql("create table if not exists effect (n bigint)")
        store.close()
    return world


@pytest.fixture
def world(request, stack, database: str, tmp_path: Path) -> Iterator[World]:
    made = prepared(World(stack, tmp_path, request.param, database))
    try:
        yield made
    finally:
        made.stop()


def settled(world: World) -> Counter[bytes]:
    engine = sa.create_engine(world.database)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select key from dedup where pipeline = :group"), {"group": world.group})
        found = Counter(bytes(row[0]) for row in rows)
    engine.dispose()
    return found


def effects(world: World) -> Counter[int] | None:
    """What was done: rows in our database, or distinct keys that the receiver outside was sent."""
    if world.pipeline == "Calls":
        lines = {tuple(line.split()) for line in (world.folder / "received").read_text().splitlines()}
        return Counter(int(n) for _, n in lines)
    if world.pipeline == "Rows":
        engine = sa.create_engine(world.database)
        with engine.connect() as connection:
            found = Counter(int(row[0]) for row in connection.exec_driver_sql("select n from effect"))
        engine.dispose()
        return found
    return None


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("world", "database"),
    [
        ("Events", "sqlite"),
        ("Events", "postgresql"),
        ("Rows", "postgresql"),
        ("Calls", "sqlite"),
        pytest.param("Rows", "sqlite", marks=pytest.mark.soak),
        pytest.param("Calls", "postgresql", marks=pytest.mark.soak),
    ],
    indirect=True,
)
def test_each_effect_happens_once_under_random_kills_and_a_zombie(world: World):
    luck = random.Random(20)
    count = int(os.environ.get("CHAOS_EVENTS", EVENTS[world.pipeline]))
    sender = threading.Thread(target=world.produce, args=(count,))
    sender.start()
    alive = [world.start(), world.start()]

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
        alive[victim] = world.start()
    alive[0].kill()
    alive[0] = world.start()
    sender.join()

    world.wait_drained(300)
    world.stop()
    judge(world, settled(world), effects(world))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_kill_at_each_named_point_loses_and_repeats_nothing(stack, database: str, tmp_path: Path):
    worlds = [prepared(World(stack, tmp_path / name, name, database)) for name in POINTS_OF]
    try:
        with ThreadPoolExecutor(len(worlds)) as threads:
            missed = list(threads.map(kill_at_each_point, worlds))
    finally:
        for world in worlds:
            world.stop()
    assert missed == [[], [], []], "points that were never passed"
    for world in worlds:
        judge(world, settled(world), effects(world))


def kill_at_each_point(world: World) -> list[str]:
    """One instance after another, each killed at another point while events come in; then one that lives."""
    missed = []
    for number, name in enumerate(POINTS_OF[world.pipeline]):
        nth = 1 if name.startswith(("assign", "revoke")) else 2 + number % 2
        process = world.start(FARANDOLE_KILL_AT=f"{name}:{nth}")
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            world.produce(12, bad=0.01, seed=world.sent)
            time.sleep(0.25)
            if name.startswith("revoke") and time.monotonic() > deadline - 24:
                process.terminate()
        if process.poll() != -signal.SIGKILL:
            missed.append(name)
            process.kill()
            process.wait()
    world.start()
    world.wait_drained(60)
    return missed
