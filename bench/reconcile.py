"""What a sweep costs: N events of one partition, an entry of the ledger for each, one in a thousand of them missing.

    python -m bench.reconcile 100000 1000000

Each size runs in a process of its own, so that the peak of its memory is its own. The sweep is the first one, which
reads the whole ledger; the second, which has all but the news behind it, stands beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from farandole import Pipeline, when
from farandole.errors import FarandoleError
from farandole.event import fact
from farandole.ids import event_key, run_id
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, Entry, ledger_partition, ledger_schema
from farandole.reconciler.reconciler import open_reconciler
from farandole.rewind import Mark
from farandole.settings import load_settings
from farandole.stack.launcher import Stack
from farandole.topics import own_schemas

EVERY = 1000
"""One event in so many has no outcome."""
PARTITIONS = 4
TOPIC = f"bench.{uuid.uuid4().hex[:8]}.v1"


@fact(TOPIC, key=("n",))
@dataclass(frozen=True, slots=True)
class Counted:
    """An event of the bench."""

    n: int

    @classmethod
    def of(cls, record: dict[str, Any]) -> Counted:
        return cls(**record)

    def record(self) -> dict[str, Any]:
        return {"n": self.n}


def keep(event: Counted) -> None:
    """Nothing is run here."""


class Kept(Pipeline):
    """The pipeline that is swept."""

    name = TOPIC.rpartition(".")[0].replace(".", "-")
    event = when(Counted)
    steps = [keep]  # noqa: RUF012 - as in every pipeline
    since = "beginning"


def main(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="farandole-bench-") as folder:
        stack = Stack(Path(folder), usual_ports=False)
        kafka, registry = stack.start_kafka(), stack.start_registry()
        told = {"KAFKA_BOOTSTRAP_SERVERS": kafka.address, "SCHEMA_REGISTRY_URL": registry.address}
        environment = {**os.environ, **told, "FARANDOLE_STACK": "external", "FARANDOLE_STATE": folder}
        try:
            print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
            print(
                "| events | ledger | first sweep | events/s | second sweep | peak memory | of it for the sweep | missing |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for size in sizes:
                asked = [sys.executable, "-m", "bench.reconcile", "--one", str(size)]
                done = subprocess.run(asked, env=environment, check=True, stdout=subprocess.PIPE, text=True)
                print(_row(json.loads(done.stdout.splitlines()[-1])), flush=True)
        finally:
            stack.down()


def _row(one: dict[str, Any]) -> str:
    return (
        f"| {one['events']:,} | {one['entries']:,} | {one['first']:.1f} s | {one['events'] / one['first']:,.0f} "
        f"| {one['second']:.2f} s | {one['peak']:.0f} MB | {one['grown']:.0f} MB | {one['missed']:,} |"
    )


def one(size: int) -> None:
    """Fill the topics, sweep twice, and print what that took."""
    settings = load_settings()
    registry = Registry(settings.registry())
    admin = AdminClient({"bootstrap.servers": settings.bootstrap(), "log_level": 0})
    declaration = Kept.declaration  # type: ignore[attr-defined]
    registry.register(f"{LEDGER_TOPIC}-value", ledger_schema())
    codec = Codec(registry, own_schemas(), trusted=own_schemas())
    names = [TOPIC, declaration.retry_topic, declaration.dead_letter_topic, LEDGER_TOPIC]
    there = admin.list_topics(timeout=15).topics
    for future in admin.create_topics([NewTopic(n, PARTITIONS, 1) for n in names if n not in there]).values():
        future.result()
    ours = Admin(settings.bootstrap())
    topic_id = ours.topic_ids([TOPIC])[TOPIC]
    entries = fill(settings.bootstrap(), codec, declaration.name, topic_id, size)
    ends = {(TOPIC, p): _of(p, size) for p in range(PARTITIONS)}
    seed(ours, declaration.name, ends)
    before = _peak()
    with open_reconciler(settings, [declaration]) as reconciler:
        first, missed = sweep(reconciler)
        second, _ = sweep(reconciler)
    peak = _peak()
    print(json.dumps({
        "events": size, "entries": entries, "first": first, "second": second,
        "peak": peak, "grown": peak - before, "missed": missed,
    }))  # fmt: skip


def seed(admin: Admin, group: str, ends: dict[tuple[str, int], int]) -> None:
    """Let the group stand there by its own word; a broker that has only just started knows no coordinator yet."""
    deadline = time.monotonic() + 60
    while {place: at.offset for place, at in admin.committed(group).items()} != ends:
        assert time.monotonic() < deadline, f"{group} has no offsets"
        with contextlib.suppress(FarandoleError):
            admin.seed(group, ends, str(Mark(0, 1, 1)))


def sweep(reconciler: Any) -> tuple[float, int]:
    began = time.monotonic()
    (swept,) = reconciler.sweep()
    return time.monotonic() - began, sum(found.missed for found in swept.found)


def fill(bootstrap: str, codec: Codec, pipeline: str, topic_id: str, size: int) -> int:
    """The events, and an entry for each but every thousandth."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "compression.type": "lz4",
            "enable.idempotence": True,
            "log_level": 0,
        }
    )
    at, count = ledger_partition(pipeline, PARTITIONS), 0
    for n, partition, offset in _places(size):
        headers = [("ce_id", f"n{n}".encode()), ("ce_source", b"/bench")]
        _put(producer, TOPIC, b"\x00\x00\x00\x00\x01\x02", b"%d" % n, partition, headers)
        if n % EVERY:
            entry = _entry(pipeline, topic_id, n, partition, offset)
            _put(producer, LEDGER_TOPIC, codec.encode(LEDGER_TOPIC, entry.record()), entry.key, at, [])
            count += 1
    producer.flush()
    return count


def _entry(pipeline: str, topic_id: str, n: int, partition: int, offset: int) -> Entry:
    key = event_key("/bench", f"n{n}")
    entry = Entry("run", pipeline, run_id(pipeline, 0, [key]), state="done", keys=[key])
    entry.triggers = [
        {
            "signal": "event",
            "topic": TOPIC,
            "topic_id": topic_id,
            "partition": partition,
            "offset": offset,
            "event_id": f"n{n}",
            "event_source": "/bench",
            "event_type": TOPIC,
            "digest": b"12345678",
            "derived": False,
        }
    ]
    return entry


def _places(size: int) -> Iterator[tuple[int, int, int]]:
    return ((n, n % PARTITIONS, n // PARTITIONS) for n in range(size))


def _of(partition: int, size: int) -> int:
    return (size - partition + PARTITIONS - 1) // PARTITIONS


def _put(producer: Producer, topic: str, value: bytes, key: bytes, partition: int, headers: Any) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition, headers=headers)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def _peak() -> float:
    """Megabytes that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
    else:
        main([int(text) for text in sys.argv[1:]] or [100_000, 1_000_000])
