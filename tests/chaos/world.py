"""A world for one chaos run: topics of its own, a workload whose answer is known, and the instances that do it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import sqlalchemy as sa
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from farandole.kafka.registry import Registry
from farandole.store import open_store
from tests.chaos.checker import LEDGER, LEDGER_SCHEMA, Anomaly, History, Scene, Telling, collect, judge, patiently

ROOT = Path(__file__).parents[2]
KEYS = 997
CONTROL = "farandole.control.v1"

_NUMBER = [{"name": "n", "type": "long"}, {"name": "key", "type": "string"}]
_SENT = [*_NUMBER, {"name": "kind", "type": "string"}, {"name": "weight", "type": ["null", "long"]}]

EXPECTED = {
    "good": {"done"},
    "skip": {"filtered"},  # by its criterion
    "bad": {"dead"},  # its step fails, whenever it is asked
    "odd": {"dead"},  # its criterion cannot be told
    "garbage": {"dead"},  # bytes that are no event
    "huge": {"dead"},  # its output is refused
    "kill": {"dead"},  # it ends the process that has it in hand
}
"""What must become of an event of each kind."""

OUTPUT = {"Events": "doubled", "Rows": "stored", "Calls": "posted", "Pairs": "paired"}
INPUTS = {"Pairs": ("doubled", "stored")}
"""What a pipeline gives, and what it listens to if that is not what was sent."""


@dataclass
class World:
    """Names, addresses, what was sent, and what was started. `database` may hold ``{pipeline}``."""

    bootstrap: str
    registry_url: str
    folder: Path
    database: str
    pipelines: tuple[str, ...]
    partitions: int = 6
    name: str = field(default_factory=lambda: "w" + uuid.uuid4().hex[:8])
    kinds: dict[int, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    schemas: dict[str, Any] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    may_lose: bool = False
    """Whether the cluster itself may have lost events: two of three brokers were killed at once."""

    def __post_init__(self) -> None:
        self.received = self.folder / "received"
        self.log = self.folder / "service.log"

    # ---- names

    def topic(self, what: str) -> str:
        return f"chaos.{self.name}-number.{what}.v1"

    def group(self, pipeline: str) -> str:
        return f"chaos-{pipeline.lower()}-{self.name}"

    def inputs(self, pipeline: str) -> list[str]:
        return [self.topic(what) for what in INPUTS.get(pipeline, ("sent",))]

    def url(self, pipeline: str) -> str:
        return self.database.replace("{pipeline}", self.group(pipeline))

    # ---- before it begins

    def create(self) -> None:
        """Topics, subjects, and the table of the effect."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.received.touch()
        self.log.touch()
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        there = admin.list_topics(timeout=20).topics
        names = [self.topic(what) for what in ("sent", *OUTPUT.values())]
        names += [f"{kind}.{self.group(p)}" for p in self.pipelines for kind in ("dlq", "retry")]
        wanted = [NewTopic(t, self.partitions, -1) for t in names]
        if LEDGER not in there:
            wanted.append(NewTopic(LEDGER, 12, -1, config={"cleanup.policy": "compact,delete"}))
        if CONTROL not in there:
            wanted.append(NewTopic(CONTROL, 1, -1, config={"cleanup.policy": "compact"}))
        for future in admin.create_topics(wanted, operation_timeout=30).values():
            future.result()
        self._register()
        if "Rows" in self.pipelines:
            store = open_store(self.url("Rows"), self.group("Rows"))
            number = "integer primary key" if self.database.startswith("sqlite") else "bigserial primary key"
            with store.engine.begin() as connection:
                connection.exec_driver_sql(f"create table if not exists effect (seq {number}, n bigint)")
            store.close()

    def _register(self) -> None:
        registry = Registry(self.registry_url)
        registry.register(f"{LEDGER}-value", LEDGER_SCHEMA)
        avro = self.folder / "avro"
        avro.mkdir(exist_ok=True)
        for what in ("sent", *OUTPUT.values()):
            topic, fields = self.topic(what), _SENT if what == "sent" else _NUMBER
            schema = {"type": "record", "name": f"Number{what.title()}", "namespace": "chaos", "fields": fields}
            (avro / f"{topic}.avsc").write_text(json.dumps(schema))
            self.ids[topic] = registry.register(f"{topic}-value", schema)
            self.schemas[topic] = fastavro.parse_schema(schema)
        registry.close()

    # ---- the workload

    def produce(self, count: int, *, twice: float = 0.1, seed: int = 1, pace: float = 0, **shares: float) -> None:
        """`count` distinct events with ids, some told again at other offsets, of other kinds than good by `shares`.

        Every hundredth number has no record key. `pace` is how many are sent in a second; 0 is as fast as can be.
        """
        luck, producer = random.Random(seed), self._producer()
        late: list[int] = []
        start = len(self.kinds)
        began = time.monotonic()
        for sent, n in enumerate(range(start, start + count)):
            self.kinds[n] = _kind(luck.random(), {"bad": 0.0005, "skip": 0.01, **shares})
            self._send(producer, n)
            if luck.random() < twice:
                late.append(n)
            if len(late) > 200:
                self._send(producer, late.pop(luck.randrange(len(late))))
            if pace and (ahead := began + sent / pace - time.monotonic()) > 0:
                producer.poll(0)
                time.sleep(ahead)
        luck.shuffle(late)
        for n in late:
            self._send(producer, n)
        assert producer.flush(240) == 0

    def tell(self, n: int, kind: str = "", *, times: int = 1) -> None:
        """One event, as often as asked."""
        self.kinds[n] = kind or self.kinds.get(n, "good")
        producer = self._producer()
        for _ in range(times):
            self._send(producer, n)
        assert producer.flush(30) == 0

    def again(self, numbers: Iterable[int]) -> None:
        """These numbers told again, in this order."""
        producer = self._producer()
        for n in numbers:
            self._send(producer, n)
        assert producer.flush(60) == 0

    def storm(self, count: int, *, times: int, seed: int = 1) -> None:
        """`count` distinct events, each told so often, in no order, under any record key or none, on any partition."""
        luck, producer = random.Random(seed), self._producer()
        start = len(self.kinds)
        self.kinds.update(dict.fromkeys(range(start, start + count), "good"))
        told = [n for n in range(start, start + count) for _ in range(times)]
        luck.shuffle(told)
        for n in told:
            key = luck.choice((None, b"k%d" % luck.randrange(5)))
            producer.produce(
                self.topic("sent"), self.value(n), key, luck.randrange(self.partitions), headers=self._told(n)
            )
            producer.poll(0)
        assert producer.flush(60) == 0

    def numbers(self, *kinds: str) -> set[int]:
        return {n for n, kind in list(self.kinds.items()) if kind in kinds}

    def _producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "enable.idempotence": True,
                "log_level": 0,
            }
        )

    def value(self, n: int) -> bytes:
        """The bytes of a number, as its kind has them."""
        kind, topic = self.kinds[n], self.topic("sent")
        if kind == "garbage":
            return b"no event, but number %d" % n
        out = BytesIO()
        out.write(b"\x00" + self.ids[topic].to_bytes(4, "big"))
        weight = None if kind == "odd" else 1
        record = {"n": n, "key": f"k{n % KEYS}", "kind": kind, "weight": weight}
        fastavro.schemaless_writer(out, self.schemas[topic], record)
        return out.getvalue()

    def _told(self, n: int) -> list[tuple[str, bytes]]:
        return [
            ("ce_id", f"{self.name}-{n}".encode()),
            ("ce_source", b"/chaos"),
            ("ce_type", self.topic("sent").encode()),
            ("chaos", f"{self.kinds[n]} {n}".encode()),  # so that the checker need not decode what cannot be decoded
        ]

    def _send(self, producer: Producer, n: int) -> None:
        key = None if n % 100 == 7 else f"k{n % KEYS}".encode()
        while True:
            try:
                producer.produce(self.topic("sent"), self.value(n), key, headers=self._told(n))
            except BufferError:
                producer.poll(0.1)
            else:
                return

    # ---- instances

    def start(self, pipeline: str, *before: str, **environment: str) -> subprocess.Popen[bytes]:
        """One instance, as a process of its own; `before` is a command that starts it in its place."""
        env = {
            **os.environ,
            "CHAOS_WORLD": self.name,
            "CHAOS_RECEIVER": str(self.received),
            "FARANDOLE_STACK": "external",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "SCHEMA_REGISTRY_URL": self.registry_url,
            "FARANDOLE_DATABASE_URL": self.database,
            "FARANDOLE_SCHEMAS": str(self.folder / "avro"),
            **environment,
        }
        command = [*before, sys.executable, "-m", "farandole", "run", f"tests.chaos.pipelines:{pipeline}"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def said(self, event: str) -> int:
        """How often the instances have said so."""
        return self.log.read_text().count(f'"event": "{event}"') if self.log.exists() else 0

    def wait_at_work(self, timeout: float = 60) -> None:
        """Until an instance of each pipeline has taken partitions over."""
        end = time.monotonic() + timeout
        wanted = {self.group(pipeline) for pipeline in self.pipelines}
        while wanted:
            assert time.monotonic() < end, f"{wanted} did not begin: see {self.log}"
            time.sleep(0.2)
            lines = [line for line in self.log.read_text().splitlines() if '"partitions.taken"' in line]
            wanted = {group for group in wanted if not any(f'"{group}"' in line for line in lines)}

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

    # ---- what can be seen of it

    def lag(self, pipeline: str) -> int:
        """By the broker's own count."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": self.group(pipeline), "log_level": 0}
        )  # asks, and joins nothing
        try:
            partitions = [TopicPartition(t, p) for t in self.inputs(pipeline) for p in range(self.partitions)]
            total = 0
            for committed in patiently(lambda: consumer.committed(partitions, 10)):
                low, high = consumer.get_watermark_offsets(committed, 10)
                total += high - (committed.offset if committed.offset >= 0 else low)
            return total
        finally:
            consumer.close()

    def wait_drained(self, patience: float, pipelines: Iterable[str] = ()) -> None:
        """Until nothing is left to do, by one look at all: what has no lag yet may be fed by one that has.

        Raises AssertionError when nothing has moved for `patience` seconds.
        """
        end, names = time.monotonic() + patience, list(pipelines or self.pipelines)
        before: dict[str, int] = {}
        left = names
        while left:
            with contextlib.suppress(KafkaException):  # a broker is away
                lags = {name: self.lag(name) for name in names}
                if lags != before:
                    before, end = lags, time.monotonic() + patience
                left = [name for name in names if not self._is_drained(name, lags[name])]
            if time.monotonic() > end:
                for process in self.processes:
                    process.send_signal(signal.SIGUSR1)
                time.sleep(1)
                raise AssertionError(
                    f"nothing moves, and there are {before} left of {left}: see {self.log} and its stacks"
                )
            time.sleep(0.3)

    def _is_drained(self, pipeline: str, lag: int) -> bool:
        """Lag 0; where inputs were written by transactions, their markers stand behind the last record."""
        return lag <= (self.partitions * len(self.inputs(pipeline)) if pipeline in INPUTS else 0)

    def scene(self, pipeline: str) -> Scene:
        inputs = dict.fromkeys(self.inputs(pipeline), self._answered if pipeline in INPUTS else _sent)
        outputs = {self.topic(OUTPUT[pipeline]): lambda m: self.decode(m.topic(), m.value())["n"] // 2}
        return Scene(self.bootstrap, self.url(pipeline), self.group(pipeline), inputs, outputs)

    def history(self, pipeline: str, **known: Any) -> History:
        """What the checker sees of a pipeline."""
        known = {"expected": EXPECTED, **known}
        if pipeline == "Calls":
            lines = (line.split() for line in self.received.read_text().splitlines())
            known |= {"calls": [(key, int(n)) for key, n in lines], "effect": "idempotent"}
        if pipeline == "Rows":
            engine = sa.create_engine(self.url(pipeline))
            with engine.connect() as connection:
                known["effects"] = [
                    int(row[0]) for row in connection.exec_driver_sql("select n from effect order by seq")
                ]
            engine.dispose()
        return collect(self.scene(pipeline), **known)

    def judged(self, pipeline: str, **known: Any) -> list[Anomaly]:
        """The checker's verdict; and that it saw everything that was sent, or at least all that the cluster kept."""
        history = self.history(pipeline, **known)
        if pipeline not in INPUTS:
            sent = self.topic("sent")
            ends = Counter({number: end for (topic, number), (_, end) in history.ends.items() if topic == sent})
            assert Counter(at[1] for at, *_ in history.landed) == ends, "the checker did not see all"
            lost = set(self.kinds) - {landed.what for landed in history.landed}
            assert not lost or self.may_lose, f"sent, and not in the log: {sorted(lost)}"
            if lost:
                print(f"the cluster has lost {sorted(lost)}")
        assert len(history.outputs) > 0, "nothing came out at all"
        return judge(history)

    def decode(self, topic: str, value: bytes) -> Any:
        return fastavro.schemaless_reader(BytesIO(value[5:]), self.schemas[topic], self.schemas[topic])

    def _answered(self, message: Message) -> Telling:
        number = self.decode(message.topic(), message.value())["n"] // 2
        return Telling(dict(message.headers())["ce_id"].decode(), "good", number)


def _kind(roll: float, shares: dict[str, float]) -> str:
    for kind, share in shares.items():
        if roll < share:
            return kind
        roll -= share
    return "good"


def _sent(message: Message) -> Telling:
    headers = dict(message.headers())
    kind, n = headers["chaos"].decode().split()
    # what cannot be read has no idempotency key but its position: told twice, it is two letters
    place = f"@{message.partition()}/{message.offset()}" if kind in {"garbage", "odd"} else ""
    return Telling(headers["ce_id"].decode() + place, kind, int(n))
