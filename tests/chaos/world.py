"""A world for one chaos run: topics of its own, a producer that tells some events twice, and a judge outside.

The judge imports nothing of the runtime: it reads topics with a plain consumer and tables with plain SQL.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from farandole.kafka.registry import Registry

ROOT = Path(__file__).parents[2]
LEDGER = "farandole.ledger.v1"
LEDGER_SCHEMA = json.loads((ROOT / "farandole/avro/farandole.ledger.v1.avsc").read_text())

_PASSES = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)
_KEY = {"name": "key", "type": "string"}
_NUMBER = {"name": "n", "type": "long"}
SENT = {
    "type": "record",
    "name": "NumberSent",
    "namespace": "chaos",
    "fields": [_NUMBER, _KEY, {"name": "kind", "type": "string"}],
}
DOUBLED = {"type": "record", "name": "NumberDoubled", "namespace": "chaos", "fields": [_NUMBER, _KEY]}


@dataclass
class World:
    """Names, addresses and what was sent."""

    stack: Any
    folder: Path
    pipeline: str  # Events, Rows or Calls
    database: str
    partitions: int = 6
    name: str = field(default_factory=lambda: "w" + uuid.uuid4().hex[:8])
    good: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    sent: int = 0
    ids: dict[str, int] = field(default_factory=dict)
    schemas: dict[str, Any] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def group(self) -> str:
        return f"chaos-{self.pipeline.lower()}-{self.name}"

    @property
    def input(self) -> str:
        return f"chaos.{self.name}-number.sent.v1"

    @property
    def output(self) -> str:
        return f"chaos.{self.name}-number.doubled.v1"

    def create(self) -> None:
        """Topics and subjects."""
        self.folder.mkdir(parents=True, exist_ok=True)
        admin = AdminClient({"bootstrap.servers": self.stack.bootstrap_servers})
        there = admin.list_topics(timeout=10).topics
        wanted = [NewTopic(t, self.partitions, 1) for t in (self.input, self.output, f"dlq.{self.group}")]
        if LEDGER not in there:
            wanted.append(NewTopic(LEDGER, 12, 1, config={"cleanup.policy": "compact,delete"}))
        for future in admin.create_topics(wanted).values():
            future.result()
        registry = Registry(self.stack.registry_url)
        registry.register(f"{LEDGER}-value", LEDGER_SCHEMA)
        avro = self.folder / "avro"
        avro.mkdir(exist_ok=True)
        for topic, schema in ((self.input, SENT), (self.output, DOUBLED)):
            (avro / f"{topic}.avsc").write_text(json.dumps(schema))
            self.ids[topic] = registry.register(f"{topic}-value", schema)
            self.schemas[topic] = fastavro.parse_schema(schema)
        registry.close()

    def produce(
        self, count: int, *, twice: float = 0.1, bad: float = 0.0005, skip: float = 0.01, seed: int = 1
    ) -> None:
        """`count` distinct events with ids, some told twice at other offsets, some to be filtered, some that die."""
        luck = random.Random(seed)
        producer = Producer(
            {"bootstrap.servers": self.stack.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 5}
        )
        late: list[tuple[int, bytes]] = []
        start = self.sent
        for n in range(start, start + count):
            roll = luck.random()
            kind = "bad" if roll < bad else "skip" if roll < bad + skip else "good"
            {"bad": self.bad, "skip": self.skipped, "good": self.good}[kind].add(n)
            out = BytesIO()
            out.write(b"\x00" + self.ids[self.input].to_bytes(4, "big"))
            fastavro.schemaless_writer(out, self.schemas[self.input], {"n": n, "key": f"k{n % 997}", "kind": kind})
            self._send(producer, n, out.getvalue())
            if luck.random() < twice:
                late.append((n, out.getvalue()))
            if len(late) > 200:
                self._send(producer, *late.pop(luck.randrange(len(late))))
        for n, value in late:
            self._send(producer, n, value)
        producer.flush(60)
        self.sent = start + count

    def tell(self, n: int, kind: str) -> None:
        """One event, as it stands."""
        producer = Producer({"bootstrap.servers": self.stack.bootstrap_servers, "partitioner": "murmur2_random"})
        out = BytesIO()
        out.write(b"\x00" + self.ids[self.input].to_bytes(4, "big"))
        fastavro.schemaless_writer(out, self.schemas[self.input], {"n": n, "key": f"k{n % 997}", "kind": kind})
        self._send(producer, n, out.getvalue())
        producer.flush(30)

    def _send(self, producer: Producer, n: int, value: bytes) -> None:
        headers = [("ce_id", f"{self.name}-{n}".encode()), ("ce_source", b"/chaos"), ("ce_type", self.input.encode())]
        while True:
            try:
                producer.produce(self.input, value, f"k{n % 997}".encode(), headers=headers)
            except BufferError:
                producer.poll(0.1)
            else:
                return

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """One instance, as a process of its own."""
        env = {
            **os.environ,
            "CHAOS_WORLD": self.name,
            "CHAOS_RECEIVER": str(self.folder / "received"),
            "FARANDOLE_STACK": "external",
            "KAFKA_BOOTSTRAP_SERVERS": self.stack.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": self.stack.registry_url,
            "FARANDOLE_DATABASE_URL": self.database,
            "FARANDOLE_SCHEMAS": str(self.folder / "avro"),
            **environment,
        }
        with (self.folder / "service.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "farandole", "run", f"tests.chaos.pipelines:{self.pipeline}"],
                cwd=ROOT,
                env=env,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """Every process that was started here, by id."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def lag(self) -> int:
        """By the broker's own count."""
        consumer = Consumer({"bootstrap.servers": self.stack.bootstrap_servers, "group.id": self.group})
        try:
            partitions = [TopicPartition(self.input, p) for p in range(self.partitions)]
            total = 0
            for committed in self._committed(consumer, partitions):
                low, high = consumer.get_watermark_offsets(committed, 10)
                total += high - (committed.offset if committed.offset >= 0 else low)
            return total
        finally:
            consumer.close()

    def _committed(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """A broker that has just started does not know yet who coordinates the group."""
        deadline = time.monotonic() + 20
        while True:
            try:
                return consumer.committed(partitions, 10)
            except KafkaException as error:
                if error.args[0].code() not in _PASSES or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def wait_drained(self, timeout: float) -> None:
        """Until the group's lag is 0. Raises AssertionError with the end of the log."""
        end = time.monotonic() + timeout
        while self.lag():
            if time.monotonic() > end:
                log = (self.folder / "service.log").read_text()[-3000:]
                raise AssertionError(f"lag {self.lag()} after {timeout} s\n{log}")
            time.sleep(0.3)

    def read(self, topic: str) -> list[Any]:
        """Every committed record of a topic, by a plain consumer; what is undecided yet is waited for."""
        properties = {"bootstrap.servers": self.stack.bootstrap_servers, "group.id": uuid.uuid4().hex}
        asking = Consumer({**properties, "isolation.level": "read_uncommitted"})
        count = len(asking.list_topics(topic, 10).topics[topic].partitions)
        ends = {p: asking.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in range(count)}
        asking.close()
        consumer = Consumer({**properties, "enable.partition.eof": True, "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, p, 0) for p in range(count)])
        records, at = [], dict.fromkeys(range(count), 0)
        deadline = time.monotonic() + 90
        while any(at[p] < end for p, end in ends.items()):
            assert time.monotonic() < deadline, f"{topic} is undecided: {at} of {ends}"
            for message in consumer.consume(1000, 0.5):
                at[message.partition()] = message.offset() + (0 if message.error() else 1)
                if not message.error():
                    records.append(message)
        consumer.close()
        return records

    def decode(self, topic: str, value: bytes) -> Any:
        schema = fastavro.parse_schema(LEDGER_SCHEMA) if topic == LEDGER else self.schemas[topic]
        return fastavro.schemaless_reader(BytesIO(value[5:]), schema, schema)

    def ledger(self) -> tuple[dict[str, list[Any]], int]:
        """The entries of this pipeline's runs by run id, and the number of filtered records."""
        runs: dict[str, list[Any]] = {}
        filtered: set[tuple[int, int]] = set()
        for message in self.read(LEDGER):
            entry = self.decode(LEDGER, message.value())
            if entry["pipeline"] != self.group:
                continue
            if entry["kind"] == "run":
                runs.setdefault(entry["id"], []).append(entry)
            elif entry["span"]:
                for offsets in entry["span"]["filtered"].values():
                    filtered |= {(entry["span"]["partition"], o) for o in offsets}
        return runs, len(filtered)


def judge(world: World, rows: Counter[bytes], effects: Counter[int] | None = None) -> None:
    """The laws: every id has one outcome, no output twice, order per key, one row per key, bytes of letters whole."""
    outputs = world.read(world.output)
    ids = Counter(dict(m.headers())["ce_id"] for m in outputs)
    numbers = Counter(world.decode(world.output, m.value())["n"] for m in outputs)
    assert [i for i, n in ids.items() if n > 1] == [], "an output id twice"
    assert set(numbers) == {2 * n for n in world.good}, "lost or invented outputs"
    assert max(numbers.values()) == 1, "an effect twice"
    letters = world.read(f"dlq.{world.group}")
    dead = Counter(world.decode(world.input, m.value())["n"] for m in letters)
    assert dead == Counter(world.bad), "dead letters"
    runs, filtered = world.ledger()
    states = Counter(entries[-1]["state"] for entries in runs.values())
    assert states == Counter(done=len(world.good), dead=len(world.bad)) - Counter(), states
    assert all(len(entries) == 1 for entries in runs.values()), "a run has two settled entries"
    assert filtered >= len(world.skipped), (filtered, len(world.skipped))
    assert len(world.good) + len(world.bad) + len(world.skipped) == world.sent
    assert sum(rows.values()) == len(rows) == len(world.good), "one dedup row per key"
    by_key: dict[bytes, list[int]] = {}
    for message in sorted(outputs, key=lambda m: (m.partition(), m.offset())):
        by_key.setdefault(message.key(), []).append(world.decode(world.output, message.value())["n"])
    assert all(numbers == sorted(numbers) for numbers in by_key.values()), "order of a record key"
    if effects is not None:
        assert effects == Counter(world.good), "effects"
