"""A world of pipelines that did not run, for `farandole why` and `farandole close`."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farandole.find import find_declaration
from farandole.kafka.admin import Admin
from farandole.settings import load_settings
from farandole.topics import EXPECTATIONS, TICKS, own_schemas
from farandole.topology.desired import read_desired
from services.projector.service import main as project
from tests.integration.runtime_world import ROOT, World, until

MODULE = Path(__file__).with_name("why_pipelines.py")
FIRST = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
SCHEDULES = "schedules:\n  nightly: {cron: 30 2 * * *, zone: UTC, since: 2026-01-01, interval: day}\n"


_NONE = ("Pipeline", "Nowhere")  # for the latter no topic is made


class Why(World):
    """A world of the pipelines of this test, with days of its own for each case."""

    days = 0

    def load(self, **environment):
        alias = f"why_pipelines_{self.name}"
        before = dict(os.environ)
        os.environ.update({"RUNTIME_WORLD": self.name, **environment})
        try:
            spec = importlib.util.spec_from_file_location(alias, MODULE)
            module = sys.modules[alias] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        finally:
            os.environ.clear()
            os.environ.update(before)
        return module

    def day(self) -> datetime:
        """A day that no other case is about."""
        type(self).days += 1
        return FIRST + timedelta(days=7 * (self.days - 1))

    def sent(self, feed: str, day: datetime, kind: str = "good", *, key: str = "", topic: str = "") -> str:
        """An event about a day; its id."""
        topic = topic or self.module.SENT
        told = {"feed": feed, "key": key or f"{feed}-{day:%m%d}", "kind": kind}
        value = {**told, "interval": {"start": day, "end": day + timedelta(days=1)}}
        identity = f"{feed}-{kind}-{day:%m%d}-{time.monotonic_ns()}"
        self.put(topic, self.frame(topic, value), told["key"], self.headers(identity))
        self.flush()
        return f"{self.name}-{identity}"

    def ran(self, pipeline: str, *states: str):
        """Run it until a run of it stands in one of the states, or until all is read; then stop."""
        service = self.run(pipeline)
        if states:
            until(lambda: any(run["state"] in states for run in self.runs(pipeline)), 20)
        self.wait_drained(pipeline)
        service.stop()

    def projected(self):
        project(load_settings(), threading.Event(), until_drained=True)


@contextmanager
def why_world(stack, folder: Path) -> Iterator[Why]:
    """The world, with its topics, in a folder that is the working directory meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        made = Why(stack.bootstrap_servers, stack.registry_url, folder / "world", partitions=1)
        for name, value in made.environment().items():
            patch.setenv(name, value)
        patch.setenv("FARANDOLE_DATABASE_URL", f"sqlite:///{folder}/{{pipeline}}.db")
        patch.chdir(folder)
        (folder / "topology").mkdir()
        (folder / "topology/schedules.yaml").write_text(SCHEDULES)
        for name, manifest in made.module.CHAIN.items():
            (folder / "services" / name).mkdir(parents=True)
            (folder / "services" / name / "pipeline.yaml").write_text(manifest)
        for one in read_desired(ROOT, []).topics:
            if one.name in (EXPECTATIONS, TICKS):
                made.registry.register(f"{one.name}-value", _schema(one.name))
                Admin(made.bootstrap).create(one.name, partitions=1, replication=1, settings=one.settings)
        classes = [n for n, one in vars(made.module).items() if hasattr(one, "declaration") and n not in _NONE]
        made.create(*classes, *(find_declaration(name) for name in made.module.CHAIN if name != "ticked"))
        try:
            yield made
        finally:
            made.close()


def _schema(topic):
    own = own_schemas()
    return own[topic] if topic in own else json.loads((ROOT / f"schemas/avro/{topic}.avsc").read_text())
