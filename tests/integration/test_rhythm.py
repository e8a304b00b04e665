"""The Faust app on a real broker: killed, told twice, and with its table dropped, it comes to the same days."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient

from farandole.cli import cli
from farandole.completion import Completion, remembered
from farandole.event import Interval, Record
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.topics import RHYTHM, TELEMETRY, own_schemas
from farandole.topology.desired import read_desired
from tests.integration.runtime_world import until

ROOT = Path(__file__).parents[2]
APP = "farandole-rhythm"
DAYS, START = 30, datetime(2026, 10, 1, tzinfo=UTC)


def completions(pipeline: str) -> list[Completion]:
    """A month in which every day's data were done about twenty past six on the day after."""
    found = []
    for n in range(DAYS):
        about = Interval(START + timedelta(days=n), START + timedelta(days=n + 1))
        at = about.end + timedelta(hours=6, minutes=20 + n % 5)
        found += [Completion(f"{pipeline} {n}", pipeline, at, interval=about)]
        found += [Completion(f"{pipeline} {n} replayed", pipeline, at + timedelta(hours=9), 1, interval=about)]
    return found


class Learning:
    """The app as a process of its own, and the topics before and after it."""

    def __init__(self, stack, folder: Path) -> None:
        self.folder, self.bootstrap = folder, stack.bootstrap_servers
        registry, self.admin = Registry(stack.registry_url), Admin(self.bootstrap)
        for one in read_desired(ROOT, []).topics:
            if one.name in (TELEMETRY, RHYTHM):
                registry.register(f"{one.name}-value", own_schemas()[one.name])
                self.admin.create(one.name, partitions=one.partitions, replication=1, settings=one.settings)
        self.codec = Codec(registry, own_schemas(), trusted=own_schemas())
        self.environment = {**os.environ, **stack.environment(), "FARANDOLE_STACK": "external", "PYTHONPATH": str(ROOT)}
        self.environment["FARANDOLE_STATE"] = str(folder / "state")

    def tell(self, told: list[Completion]) -> None:
        value = lambda one: self.codec.encode(TELEMETRY, one.record())  # noqa: E731
        Emitter(self.bootstrap).send(Record(TELEMETRY, one.pipeline.encode(), value(one), []) for one in told)

    def start(self, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "farandole", "run", "rhythm", *options]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=log, stdout=log)

    def drain(self) -> None:
        assert self.start("--until-drained").wait(90) == 0, (self.folder / "log").read_text()[-3000:]

    def days(self, *pipelines: str) -> dict[tuple[str, str], dict[str, int]]:
        found = {}
        with TopicReader(self.bootstrap, RHYTHM) as reader:
            for batch in reader.read(reader.starts(), until=reader.ends()):
                for raw in batch:
                    row = self.codec.decode(RHYTHM, raw.value)
                    if row["pipeline"] in pipelines:
                        found[row["pipeline"], row["day"]] = row["came"]
        return found

    def forget(self) -> None:
        """As a person would who wants all of it anew: the table's changelog and the group are deleted."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for gone in admin.delete_topics([f"{APP}-came-changelog"]).values():
            gone.result(30)
        until(lambda: not self.admin.topics([f"{APP}-came-changelog"]), 30)
        for gone in admin.delete_consumer_groups([APP]).values():
            gone.result(30)


def expected(told: list[Completion]) -> dict[tuple[str, str], dict[str, int]]:
    days: dict[tuple[str, str], dict[str, int]] = {}
    for one in told:
        if not one.epoch:
            days[one.pipeline, one.day] = remembered(days.get((one.pipeline, one.day), {}), one)
    return days


@pytest.mark.timeout(300)
def test_killed_told_twice_and_with_its_table_dropped_it_learns_the_same_days(stack, tmp_path, monkeypatch):
    learning = Learning(stack, tmp_path)
    names = [stack.unique("mart") for _ in range(3)]
    told = [one for name in names for one in completions(name)]
    learning.tell(told[: len(told) // 2])
    running = learning.start()
    until(lambda: learning.days(*names), 60, lambda: (tmp_path / "log").read_text()[-3000:])
    running.send_signal(signal.SIGKILL)
    running.wait()
    learning.tell([*told[len(told) // 2 :], *told[::3]])
    learning.drain()
    assert learning.days(*names) == expected(told)

    learning.forget()
    learning.drain()
    assert learning.days(*names) == expected(told)

    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FARANDOLE_STACK", "external")
    shown = CliRunner().invoke(cli, ["expect", "suggest", names[0], "--rhythm"])
    assert json.loads(shown.stdout)["expect"] == {
        "by": "06:25 UTC", "each": "day", "grace": "15m", "interval": "previous",
    }  # fmt: skip
