"""A world for one test of the runtime: topics, pipelines and a database of its own, and an outside view of them.

What is asserted is read with plain clients: records by a consumer of its own, lag by the broker's count.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import fastavro
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from farandole.declaration import Declaration
from farandole.find import find_resources
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition, ledger_schema
from farandole.resources import Resources
from farandole.service import worker_of
from farandole.settings import load_settings
from farandole.topics import AUDIT, CONTROL, own_schemas

ROOT = Path(__file__).parents[2]
PIPELINES = Path(__file__).with_name("runtime_pipelines.py")

said: list[dict[str, Any]] = []
"""Every line that services in this process have logged."""


def _keep(_logger: Any, _method: str, line: dict[str, Any]) -> Any:
    said.append(line)
    raise structlog.DropEvent


def until(told: Callable[[], Any], timeout: float = 30.0, why: Callable[[], Any] = str) -> Any:
    """What `told` gives, as soon as it is true. Raises AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (found := told()):
        assert time.monotonic() < end, f"not within {timeout} s: {why()}"
        time.sleep(0.02)
    return found


class Service:
    """One instance of a pipeline, in a thread of this process."""

    def __init__(self, world: World, declaration: Declaration, **settings: Any) -> None:
        structlog.configure(processors=[_keep])
        self.world, self.declaration = world, declaration
        self.resources = Resources(find_resources(declaration))
        self.worker = worker_of(declaration, self.resources, world.settings(**settings))
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.worker.serve()
        except BaseException as error:
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """As SIGTERM does. Raises what the service died of."""
        self.worker.stopping.set()
        self._thread.join(45)
        assert not self._thread.is_alive(), "it does not stop"
        self.resources.close()
        if self.error is not None:
            raise self.error


@dataclass
class World:
    """Names, addresses and what was started. `partitions` is the number of partitions of each topic."""

    bootstrap: str
    registry_url: str
    folder: Path
    partitions: int = 2
    name: str = field(default_factory=lambda: "w" + uuid.uuid4().hex[:9])
    services: list[Service] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = f"sqlite:///{self.folder}/books.db"
        self.file = self.folder / "done.txt"
        self.hold = self.folder / "hold"
        self.avro = self.folder / "avro"
        self.avro.mkdir(exist_ok=True)
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        self.registry = Registry(self.registry_url)
        self.producer = Producer(
            {"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random", "linger.ms": 1, "log_level": 0}
        )
        self.module = self.load()
        self.ids: dict[str, int] = {}
        self._ledger_start: dict[int, int] = {}
        self._tails: dict[Any, Tail] = {}

    def load(self, **environment: str) -> ModuleType:
        """A copy of the pipelines, with this world's topics."""
        alias = f"runtime_pipelines_{self.name}_{uuid.uuid4().hex[:4]}"
        before = dict(os.environ)
        os.environ.update({"RUNTIME_WORLD": self.name, **environment})
        try:
            spec = importlib.util.spec_from_file_location(alias, PIPELINES)
            module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
            sys.modules[alias] = module
            spec.loader.exec_module(module)  # type: ignore[union-attr]
        finally:
            os.environ.clear()
            os.environ.update(before)
        return module

    # ---- making

    def create(self, *pipelines: str) -> None:
        """The topics and subjects that these pipelines need."""
        declarations = [self.declaration(p) for p in pipelines]
        topics = {
            t: self.partitions for d in declarations for t in (*d.topics, *d.emits, d.dead_letter_topic, d.retry_topic)
        }
        self.create_topics(topics)
        for d in declarations:
            for topic in (*d.topics, *d.emits):
                self.register(topic)
        self._ledger_start = self._ends(LEDGER_TOPIC)

    def create_topics(self, topics: dict[str, int]) -> None:
        there = self.admin.list_topics(timeout=15).topics
        wanted = [NewTopic(name, count, 1) for name, count in topics.items() if name not in there]
        if LEDGER_TOPIC not in there:
            wanted.append(NewTopic(LEDGER_TOPIC, 12, 1, config={"cleanup.policy": "compact,delete"}))
            self.registry.register(f"{LEDGER_TOPIC}-value", ledger_schema())
        for topic, policy in ((CONTROL, "compact"), (AUDIT, "delete")):
            if topic not in there:
                settings = {"cleanup.policy": policy, "message.timestamp.type": "LogAppendTime"}
                wanted.append(NewTopic(topic, 1, 1, config=settings))
            self.registry.register(f"{topic}-value", own_schemas()[topic])
        for future in self.admin.create_topics(wanted).values():
            future.result()
        self.registry.register(f"{LEDGER_TOPIC}-value", ledger_schema())

    def quick_session(self, pipeline: str) -> None:
        """Let the broker miss a killed member of this group after three seconds."""
        settings = {"consumer.session.timeout.ms": "3000", "consumer.heartbeat.interval.ms": "1000"}
        entries = [ConfigEntry(n, v, incremental_operation=AlterConfigOpType.SET) for n, v in settings.items()]
        asked = ConfigResource(ResourceType.GROUP, self.group(pipeline), incremental_configs=entries)
        for future in self.admin.incremental_alter_configs([asked]).values():
            future.result()

    def register(self, topic: str, schema: Any = None) -> int:
        """The id of a topic's schema; a schema of the test's own is registered beside it."""
        own = self.module.SCHEMAS[topic]
        (self.avro / f"{topic}.avsc").write_text(json.dumps(own))
        number = self.registry.register(f"{topic}-value", schema or own)
        if schema is None:
            self.ids[topic] = number
        return number

    def declaration(self, pipeline: str | Declaration) -> Declaration:
        found = getattr(self.module, pipeline) if isinstance(pipeline, str) else pipeline
        return getattr(found, "declaration", found)

    def group(self, pipeline: str) -> str:
        return self.declaration(pipeline).name

    # ---- sending

    def frame(self, topic: str, value: Any, *, schema: Any = None, schema_id: int | None = None) -> bytes:
        """A record in Confluent's wire format."""
        out = BytesIO()
        out.write(b"\x00" + (self.ids[topic] if schema_id is None else schema_id).to_bytes(4, "big"))
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema or self.module.SCHEMAS[topic]), value)
        return out.getvalue()

    def put(
        self,
        topic: str,
        value: bytes | None,
        key: str | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
        partition: int = -1,
    ) -> None:
        """One record, as it is."""
        while True:
            try:
                self.producer.produce(
                    topic, value, None if key is None else key.encode(), partition, headers=list(headers)
                )
            except BufferError:
                self.producer.poll(0.1)
            else:
                return

    def number(self, n: int, *, kind: str = "good", amount: Any = 1, key: str | None = None) -> dict[str, Any]:
        return {"n": n, "key": key or f"k{n % 17}", "kind": kind, "amount": amount}

    def send(
        self,
        numbers: Iterable[int],
        *,
        kind: str = "good",
        amount: Any = 1,
        identity: str | None = None,
        partition: int = -1,
    ) -> None:
        """Numbers with an id of their own each."""
        topic = self.module.SENT
        for n in numbers:
            told = self.number(n, kind=kind, amount=amount)
            self.put(topic, self.frame(topic, told), told["key"], self.headers(identity or f"n{n}"), partition)
        self.flush()

    def headers(self, identity: str) -> list[tuple[str, bytes]]:
        return [("ce_id", f"{self.name}-{identity}".encode()), ("ce_source", b"/test")]

    def flush(self) -> None:
        assert self.producer.flush(60) == 0

    # ---- running

    def settings(self, **own: Any) -> Any:
        os.environ["FARANDOLE_SCHEMAS"] = str(self.avro)
        given = {
            "kafka_bootstrap_servers": self.bootstrap,
            "schema_registry_url": self.registry_url,
            "database_url": self.database,
            "state_dir": self.folder,
            "stack": "external",
        }
        return load_settings(**{**given, **own})

    def run(self, pipeline: str | Declaration, **settings: Any) -> Service:
        """One instance in this process, until the test ends."""
        service = Service(self, self.declaration(pipeline), **settings)
        self.services.append(service)
        return service

    def drain(self, pipeline: str | Declaration, **settings: Any) -> None:
        """One instance until everything that was there is settled."""
        service = self.run(pipeline, **settings)
        self.wait_drained(pipeline)
        service.stop()

    def environment(self, **own: str) -> dict[str, str]:
        return {
            **os.environ,
            "RUNTIME_WORLD": self.name,
            "RUNTIME_FILE": str(self.file),
            "RUNTIME_HOLD": str(self.hold),
            "FARANDOLE_STACK": "external",
            "FARANDOLE_STATE": str(self.folder),
            "FARANDOLE_SCHEMAS": str(self.avro),
            "FARANDOLE_DATABASE_URL": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "SCHEMA_REGISTRY_URL": self.registry_url,
            **own,
        }

    def start(self, pipeline: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """One instance as a process of its own; what it says goes to :attr:`log`."""
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "farandole", "run", f"tests.integration.runtime_pipelines:{pipeline}", *options],
                cwd=ROOT,
                env=self.environment(**environment),
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    @property
    def log_file(self) -> Path:
        return self.folder / "service.log"

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def owns(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether a process has taken partitions over."""
        return any(f'-{process.pid}"' in line and '"partitions.taken"' in line for line in self.log().splitlines())

    def done(self) -> list[str]:
        """What steps of processes did, a line for each."""
        return self.file.read_text().splitlines() if self.file.exists() else []

    def close(self) -> None:
        """Stop all that was started here, by id."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.module.gate.set()
        for service in self.services:
            service.worker.stopping.set()
        for service in self.services:
            service._thread.join(45)
        for tail in self._tails.values():
            tail.close()
        self.registry.close()
        said.clear()
        structlog.reset_defaults()

    # ---- looking, from outside

    def said(self, event: str, pipeline: str | None = None) -> list[dict[str, Any]]:
        """What services in this process have logged under a name."""
        groups = {s.declaration.name for s in self.services} if pipeline is None else {self.group(pipeline)}
        return [line for line in said if line["event"] == event and line.get("pipeline") in groups]

    def committed(self, pipeline: str | Declaration) -> dict[tuple[str, int], tuple[int, str | None]]:
        declaration = self.declaration(pipeline)
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": declaration.name, "log_level": 0})
        try:
            wanted = [TopicPartition(t, p) for t in declaration.topics for p in range(self.partitions)]
            found = until(lambda: patiently(lambda: consumer.committed(wanted, 10)))
            return {(c.topic, c.partition): (c.offset, c.metadata) for c in found}
        finally:
            consumer.close()

    def lag(self, pipeline: str | Declaration) -> int:
        """By the broker's own count: what stands between the committed offsets and the ends."""
        ends = {(t, p): end for t in self.declaration(pipeline).topics for p, end in self._ends(t).items()}
        return sum(ends[at] - max(offset, 0) for at, (offset, _) in self.committed(pipeline).items())

    def wait_drained(self, pipeline: str | Declaration, timeout: float = 40.0) -> None:
        """Until its lag is 0."""
        until(
            lambda: self.lag(pipeline) == 0,
            timeout,
            lambda: f"lag {self.lag(pipeline)}\n{said[-5:]}\n{self.log()[-2000:]}",
        )

    def _ends(self, topic: str) -> dict[int, int]:
        return ends(self.bootstrap, topic)

    def records(self, topic: str) -> list[Message]:
        """Every committed record of a topic, so far."""
        if topic not in self._tails:
            self._tails[topic] = Tail(self.bootstrap, topic, dict.fromkeys(self._ends(topic), 0))
        return self._tails[topic].read()

    def values(self, topic: str) -> list[Any]:
        return [self.decode(topic, m.value()) for m in self.records(topic)]

    def outputs(self) -> list[int]:
        """The doubled numbers, sorted."""
        return sorted(v["n"] for v in self.values(self.module.DOUBLED))

    def letters(self, pipeline: str) -> list[Message]:
        return self.records(self.declaration(pipeline).dead_letter_topic)

    def why(self, pipeline: str) -> list[tuple[str, str]]:
        """The stage and the text of each dead letter."""
        headers = [dict(m.headers()) for m in self.letters(pipeline)]
        return [(h["farandole-dlq-stage"].decode(), h["__dlq.errors.message"].decode()) for h in headers]

    def decode(self, topic: str, value: bytes | None) -> Any:
        schema = ledger_schema() if topic == LEDGER_TOPIC else self.module.SCHEMAS[topic]
        return fastavro.schemaless_reader(BytesIO((value or b"")[5:]), fastavro.parse_schema(schema), None)

    def entries(self, pipeline: str) -> list[dict[str, Any]]:
        """The ledger's entries of a pipeline, in order."""
        group = self.group(pipeline)
        if group not in self._tails:
            at = ledger_partition(group, len(self._ledger_start))
            self._tails[group] = Tail(self.bootstrap, LEDGER_TOPIC, {at: self._ledger_start[at]})
        read = (self.decode(LEDGER_TOPIC, m.value()) for m in self._tails[group].read())
        return [entry for entry in read if entry["pipeline"] == group]

    def runs(self, pipeline: str, state: str = "") -> list[dict[str, Any]]:
        """The last entry of each run, or of those in one state."""
        stands = {entry["id"]: entry for entry in self.entries(pipeline) if entry["kind"] == "run"}
        return [e for e in stands.values() if state in ("", e["state"])]

    def facts(self, pipeline: str) -> dict[str, dict[str, str]]:
        """What was out of the ordinary: every pipeline begins somewhere."""
        told = [e for e in self.entries(pipeline) if e["kind"] == "fact" and e["fact"] != "partition.began"]
        return {e["fact"]: e["detail"] for e in told}

    def filtered(self, pipeline: str) -> dict[str, int]:
        """How many records were filtered, by reason."""
        counted: dict[str, set[Any]] = {}
        for entry in self.entries(pipeline):
            for why, offsets in (entry["span"] or {"filtered": {}})["filtered"].items():
                counted.setdefault(why, set()).update(
                    (entry["span"]["topic"], entry["span"]["partition"], o) for o in offsets
                )
        return {why: len(offsets) for why, offsets in counted.items()}


class Ends:
    """Asks for the end of each partition of a topic, records of open transactions included."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        asked = {
            "bootstrap.servers": bootstrap,
            "group.id": "nobody",
            "log_level": 0,
            "isolation.level": "read_uncommitted",
        }
        self._consumer, self._topic = Consumer(asked), topic

    def now(self) -> dict[int, int]:
        """The end of each partition."""
        count = len(self._consumer.list_topics(self._topic, 10).topics[self._topic].partitions)
        return {p: self._end(TopicPartition(self._topic, p)) for p in range(count)}

    def _end(self, partition: TopicPartition) -> int:
        return until(lambda: patiently(lambda: self._consumer.get_watermark_offsets(partition, 10)))[1]

    def close(self) -> None:
        self._consumer.close()


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """The end of each partition, asked once."""
    with closing(Ends(bootstrap, topic)) as asked:
        return asked.now()


_PASSES = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError._TIMED_OUT,
}


def patiently(ask):
    """The answer, or None while a broker that has just started does not know who leads."""
    try:
        return ask()
    except KafkaException as error:
        if error.args[0].code() not in _PASSES:
            raise
        return None


class Tail:
    """A plain consumer that keeps what it has read of a topic."""

    def __init__(self, bootstrap: str, topic: str, offsets: dict[int, int]) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": uuid.uuid4().hex,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        self._ends, self._next = Ends(bootstrap, topic), offsets
        self._consumer.assign([TopicPartition(topic, p, at) for p, at in offsets.items()])
        self._records: list[Message] = []

    def read(self) -> list[Message]:
        """Everything up to the end as it is now.

        A commit is acknowledged before its markers stand on every partition: what is undecided is waited for.
        """
        goal = self._ends.now()
        deadline = time.monotonic() + 20
        while any(at < goal[p] for p, at in self._next.items()) and time.monotonic() < deadline:
            for m in self._consumer.consume(1000, 0.1):
                if m.error() is None:
                    self._records.append(m)
                    self._next[m.partition()] = m.offset() + 1
                else:
                    self._next[m.partition()] = max(self._next[m.partition()], m.offset())
        return self._records

    def close(self) -> None:
        self._consumer.close()
        self._ends.close()
