"""Several clocks on the real broker, killed while they tell: the ticks that stand are the ones that were declared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farandole.event import RawRecord
from farandole.kafka.admin import Admin
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.schemagen import load_schemas
from farandole.sources.timetable import read_timetable
from farandole.topics import TICKS
from farandole.topology.desired import read_desired
from tests.integration.moved_clock import MovedClock
from tests.integration.runtime_world import until

ROOT = Path(__file__).parents[2]
# in spring a night of New York and one of Paris lack these times, in autumn they come twice
TIMETABLE = """
schedules:
  {0}-paris: {{cron: 30 2 * * *, zone: Europe/Paris, since: 2026-03-01}}
  {0}-new-york: {{cron: 30 2 * * *, zone: America/New_York, since: 2026-03-01}}
  {0}-early: {{cron: 30 1 * * *, zone: America/New_York, since: 2026-03-01, interval: day}}
  {0}-hourly: {{cron: 0 * * * *, zone: Europe/Paris, since: 2026-10-24}}
"""
STARTS, ENDS = "2026-10-24T12:00+00:00", datetime(2026, 11, 2, tzinfo=UTC)
SPEED = 8 * 3600  # a night passes in a second


class Clocks:
    """Processes that tell one timetable, and the topic as anybody may read it."""

    def __init__(self, stack, folder: Path, text: str) -> None:
        self.name = stack.unique("clock")
        self.file = folder / "schedules.yaml"
        self.file.write_text(text.format(self.name))
        self.schedules = read_timetable(self.file)
        self.bootstrap, self.folder = stack.bootstrap_servers, folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FARANDOLE_")},
            **stack.environment(),
            "FARANDOLE_STACK": "external",
            "FARANDOLE_SCHEDULES": str(self.file),
            "PYTHONPATH": str(ROOT),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        with TopicReader(self.bootstrap, TICKS) as reader:
            self.begin = reader.ends()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"clock-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests/integration/moved_clock.py"), *arguments],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def records(self) -> list[RawRecord]:
        with TopicReader(self.bootstrap, TICKS) as reader:
            found = [r for batch in reader.read(self.begin, until=reader.ends()) for r in batch]
        return [r for r in found if (r.key or b"").decode() in self.schedules]

    def events(self) -> dict[str, set[bytes | None]]:
        """The values that stand under each id."""
        found: defaultdict[str, set[bytes | None]] = defaultdict(set)
        for record in self.records():
            found[(dict(record.headers)["ce_id"] or b"").decode()].add(record.value)
        return found

    def declared(self, end: datetime) -> set[str]:
        return {t.id for s in self.schedules.values() for t in s.ticks(s.since - timedelta(seconds=1), end)}

    def logs(self) -> str:
        return "\n".join(log.read_text()[-1500:] for log in self.folder.glob("clock-*.log"))


@pytest.fixture
def clocks(stack, tmp_path):
    registry = Registry(stack.registry_url)
    registry.register(f"{TICKS}-value", load_schemas(ROOT / "schemas/avro")[TICKS])
    registry.close()
    wanted = next(topic for topic in read_desired(ROOT, []).topics if topic.name == TICKS)
    Admin(stack.bootstrap_servers).create(
        TICKS, partitions=wanted.partitions, replication=wanted.replication, settings=wanted.settings
    )
    made: list[Clocks] = []

    def make(text: str) -> Clocks:
        made.append(Clocks(stack, tmp_path, text))
        return made[-1]

    yield make
    for process in (p for one in made for p in one.processes if p.poll() is None):
        process.kill()
        process.wait()


def test_of_three_clocks_two_are_killed_and_the_ticks_of_both_changes_are_the_declared_ones(clocks):
    ticking = clocks(TIMETABLE)
    moved = STARTS, str(time.time() + 3), str(SPEED)
    clock = MovedClock(*moved)
    one, two, three = (ticking.start(*moved) for _ in range(3))

    def told(count: int) -> Callable[[], bool]:
        return lambda: len(ticking.events()) >= count

    until(told(300), 90, ticking.logs)  # it still tells what was due since spring
    one.kill()
    until(lambda: clock.now() > datetime(2026, 10, 27, tzinfo=UTC) and told(300)(), 90, ticking.logs)
    two.kill()
    until(lambda: clock.now() > ENDS and ticking.declared(ENDS) <= ticking.events().keys(), 120, ticking.logs)
    three.terminate()
    assert three.wait(40) == 0, ticking.logs()

    ended = clock.now()
    events, declared = ticking.events(), ticking.declared(ENDS)
    assert {i for i in events if i in declared} == declared
    assert events.keys() <= ticking.declared(ended)
    assert {len(values) for values in events.values()} == {1}, "two that say the same thing say it in the same bytes"
    assert len(declared) == 3 * 246 + 219  # days from 1 March to 1 November; hours of nine days and two


def test_a_clock_that_is_killed_again_and_again_goes_on_from_the_topic(clocks):
    ticking = clocks("schedules:\n  {0}: {{cron: 0 * * * *, zone: Europe/Paris, since: 2026-10-01}}\n")
    moved = STARTS, str(time.time()), "1"
    for number in range(1, 4):
        process = ticking.start(*moved)
        until(lambda least=100 * number: len(ticking.events()) >= least, 60, ticking.logs)
        process.kill()
        process.wait()

    last = ticking.start(*moved, "--until-drained")

    assert last.wait(90) == 0, ticking.logs()
    nominal = [(dict(r.headers)["ce_time"] or b"").decode() for r in ticking.records()]
    assert ticking.events().keys() == ticking.declared(datetime.fromisoformat(STARTS))
    assert nominal == sorted(nominal)
    assert len(nominal) - len(set(nominal)) <= 3, "at most the one that was on its way is told twice"


def test_the_list_shows_the_last_tick_that_stands_in_the_topic(clocks):
    ticking = clocks("schedules:\n  {0}: {{cron: 0 0 * * *, zone: UTC, since: 2026-10-20}}\n")
    assert ticking.start(STARTS, str(time.time()), "1", "--until-drained").wait(60) == 0, ticking.logs()

    done = subprocess.run(
        [sys.executable, "-m", "farandole", "schedules", "list", "-o", "json"],
        cwd=ROOT, env=ticking.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip

    (row,) = json.loads(done.stdout)
    assert row["last"] == "2026-10-24T00:00:00.000Z"
    assert row["due"] == "2026-10-25T00:00:00.000Z"
