"""A zombie: stopped in the middle of a run, past its session, and woken when another instance has taken its partitions."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.world import World

pytestmark = pytest.mark.chaos

MOMENTS = {
    "step.running": "Events",  # user code is about to run
    "txn.outputs_produced": "Events",  # outputs stand in an open transaction
    "txn.offsets_sent": "Events",  # and the offset with them
    "sql.before_commit": "Rows",  # effect, outbox and dedup row in an open SQL transaction
    "sql.committed": "Rows",  # SQL has decided, and Kafka was not told
    "effect.acked": "Calls",  # the effect has been acknowledged, and is not yet noted
    "settle.before_commit": "Calls",  # Kafka knows, and SQL was not told
}
"""The moments at which it stands still, each with the class of commit that has it."""


def state_of(pid: int) -> str:
    """As the kernel tells it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait(told, timeout: float, what: str) -> None:
    end = time.monotonic() + timeout
    while not told():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def walk(world: World, moment: str) -> None:
    """One instance stands still at the moment; another does the work; then the first wakes up."""
    [pipeline] = world.pipelines
    world.produce(150, bad=0)
    # the first transaction of each of four partitions says where it begins, and carries nothing
    zombie = world.start(pipeline, FARANDOLE_STOP_AT=f"{moment}:{5 if moment.startswith('txn.') else 3}")
    wait(lambda: state_of(zombie.pid) == "T", 60, f"{moment} was never passed")
    before = world.said("partitions.taken")
    world.start(pipeline)
    # a zombie that stands in a transaction of SQL holds its partition's row: its successor waits, until it wakes up or
    # the database lets go of it, which takes a minute
    wait(
        lambda: world.said("partitions.taken") > before or world.said("takeover.waits"),
        60,
        f"nobody came to take over from a zombie at {moment}",
    )
    world.produce(50, bad=0, seed=2)
    time.sleep(2)  # its successor is in the middle of the work
    zombie.send_signal(signal.SIGCONT)
    world.produce(50, bad=0, seed=3)
    world.wait_drained(120)
    assert zombie.poll() is None, "it died of waking up"
    world.stop()


@pytest.mark.timeout(400)
def test_a_zombie_that_wakes_at_any_moment_changes_nothing(stack, tmp_path: Path):
    worlds = {}
    for moment, pipeline in MOMENTS.items():
        # a file that a process which stands still has locked is locked for all: there nobody can take over at all
        database = f"sqlite:///{tmp_path}/{moment}.db" if pipeline == "Events" else stack.postgres_url()
        world = World(
            stack.bootstrap_servers, stack.registry_url, tmp_path / moment, database, (pipeline,), partitions=2
        )
        world.create()
        worlds[moment] = world
    try:
        with ThreadPoolExecutor(len(worlds)) as threads:
            list(threads.map(walk, worlds.values(), worlds))
    finally:
        for world in worlds.values():
            world.stop()
    verdicts = {moment: world.judged(*world.pipelines) for moment, world in worlds.items()}
    assert verdicts == {moment: [] for moment in worlds}
