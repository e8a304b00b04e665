"""Those that watch over others watch each other: real processes on a real broker, and one after the other is killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from farandole.beat import ROLES
from farandole.cli import cli
from farandole.clock import SystemClock
from farandole.kafka.admin import Admin
from farandole.kafka.beats import Beats
from farandole.kafka.codec import Codec
from farandole.kafka.expectations import Tail
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.service import schemas
from farandole.topics import BEATS, own_schemas
from farandole.topology.desired import read_desired
from tests.integration.runtime_world import until
from tests.integration.test_sentinel import Receiver

ROOT = Path(__file__).parents[2]
PIPELINE = "listens"
DECLARED = f"""
pipeline: {PIPELINE}
about: A pipeline that has nothing to do but to listen.
since: now
when: {{file: {{event: lake.file.landed.v1}}}}
steps: [{{call: builtins:print}}]
"""


class House:
    """A repository with the four services and one pipeline; each is a process of its own."""

    def __init__(self, stack, folder: Path) -> None:
        self.folder, self.receiver = folder, Receiver()
        for role in (*ROLES, PIPELINE):
            (folder / "services" / role).mkdir(parents=True)
        for role in ROLES:
            shutil.copy(ROOT / f"services/{role}/service.py", folder / f"services/{role}/service.py")
        (folder / f"services/{PIPELINE}/pipeline.yaml").write_text(DECLARED)
        (folder / "topology").mkdir()
        (folder / "topology/schedules.yaml").write_text("schedules: {}\n")
        self.environment = {
            **os.environ,
            **stack.environment(),
            "FARANDOLE_STACK": "external",
            "FARANDOLE_STATE": str(folder / "state"),
            "FARANDOLE_SCHEMAS": str(ROOT / "schemas/avro"),
            "FARANDOLE_DATABASE_URL": f"sqlite:///{folder}/{{pipeline}}.db",
            "FARANDOLE_ALERT_ROUTES": f"json://127.0.0.1:{self.receiver.server_port}/alerts",
            "FARANDOLE_BEAT_EVERY": "1s",
            "PYTHONPATH": str(ROOT),
        }
        registry, admin = Registry(stack.registry_url), Admin(stack.bootstrap_servers)
        known = {**schemas(), **own_schemas()}
        for one in read_desired(ROOT, []).topics:
            registry.register(f"{one.name}-value", known[one.name])
            admin.create(one.name, partitions=one.partitions, replication=1, settings=one.settings)
        for name in (f"retry.{PIPELINE}", f"dlq.{PIPELINE}"):
            admin.create(name, partitions=1, replication=1, settings={})
        self.running: dict[str, subprocess.Popen] = {}
        self.reader = TopicReader(stack.bootstrap_servers, BEATS)
        self.beats = Beats(Tail(self.reader), Codec(registry, {}, trusted=own_schemas()), SystemClock())

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def start(self, role: str) -> None:
        with self.log(role).open("a") as log:
            self.running[role] = subprocess.Popen(
                [sys.executable, "-m", "farandole", "run", role], cwd=self.folder, env=self.environment, stderr=log
            )

    def kill(self, *roles: str) -> None:
        for role in roles:
            self.running[role].kill()
            self.running[role].wait()

    def beating(self) -> set[str]:
        return {beat.role for beat in self.beats.read() if not beat.ended and beat.stands(self.beats.now)}

    def said(self, role: str, event: str, of: str) -> bool:
        lines = (json.loads(line) for line in self.log(role).read_text().splitlines() if line.startswith("{"))
        return any(line["event"] == event and line.get("role") == of for line in lines)

    def titles(self, word: str) -> list[str]:
        return [one["title"] for one in self.receiver.received if one["title"].startswith(word)]

    def close(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(30)
        self.receiver.shutdown()
        self.receiver.server_close()
        self.reader.close()


@pytest.fixture
def house(stack, tmp_path):
    made = House(stack, tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(180)
def test_whichever_of_them_are_killed_the_others_and_the_pipelines_say_so_and_people_are_told_once(house, monkeypatch):
    for role in (*ROLES, PIPELINE):
        house.start(role)
    until(lambda: house.beating() == {*ROLES}, 60)
    for gone in (("sentinel", "clock"), ("reconciler", "projector")):
        others = {*ROLES, PIPELINE} - {*gone}
        house.kill(*gone)
        until(lambda g=gone, o=others: all(house.said(one, "watcher.silent", r) for one in o for r in g), 40)
        for role in gone:
            house.start(role)
        until(lambda g=gone, o=others: all(house.said(one, "watcher.back", r) for one in o for r in g), 40)
    assert house.running[PIPELINE].poll() is None
    until(lambda: len(house.titles("BACK")) >= len(ROLES), 15)
    for word in ("SILENT", "BACK"):  # one that a busy machine starves for two beats is silent once more, and told anew
        titles = house.titles(word)
        assert {title.partition(",")[0] for title in titles} == {f"{word} {role}" for role in ROLES}
        assert len(set(titles)) == len(titles), "people were told twice"

    for name in ("FARANDOLE_DATABASE_URL", "FARANDOLE_STATE", "KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL"):
        monkeypatch.setenv(name, house.environment[name])
    house.kill("reconciler")
    until(lambda: stopped() == [("reconciler", "watcher.silent")], 30)
    house.start("reconciler")
    until(lambda: stopped() == [], 30)


def stopped() -> list[tuple[str, str]]:
    shown = json.loads(CliRunner().invoke(cli, ["status", "-o", "json"]).stdout)
    return [(one["pipeline"], one["why"]) for one in shown["stopped"] if one["pipeline"] in ROLES]  # others may be, too
