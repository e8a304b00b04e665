"""How fast is one hop, topic to topic, exactly once: by hand, Quix Streams, Faust, Farandole.

Run it from the repository's root with a broker and a registry (``farandole up``, or KAFKA_BOOTSTRAP_SERVERS
and SCHEMA_REGISTRY_URL):

    python -m bench.hop                                  # all four, 20,000 records, 10 s at 200 events/s
    python -m bench.hop --only hand,farandole --records 100000

Every contender reads the same Avro records from a topic of 6 partitions in a process of its own, one at a
time. Throughput is counted where it matters, by a read_committed reader of the output, from the first
records it sees to the last; a hop's latency is from the moment a record is produced to the moment that
reader has it. Quix Streams and Faust live in an environment of their own (.farandole/bench-env, made with
uv on the first run), because they hold confluent-kafka and others below the versions that Farandole needs.
They run without a dedup table, which is to their favour. A contender that gives nothing in its time is
ended, and the table says so. RESULTS.md has figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.contenders import wire
from farandole.kafka.admin import Admin
from farandole.kafka.registry import Registry
from farandole.settings import load_settings

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent / "contenders"
PEERS = ROOT / ".farandole" / "bench-env"
PEER_PACKAGES = ("quixstreams==3.28.1", "faust-streaming==0.15.3", "fastavro>=1.13")
PARTITIONS = 6
WARM = 6
"""Seconds of paced events before those that are measured: every contender compiles and caches at first."""
ACCOUNTS = 1000
EVENTS = {"cleanup.policy": "delete", "retention.ms": "86400000", "message.timestamp.type": "CreateTime"}
LETTERS = {**EVENTS, "message.timestamp.type": "LogAppendTime"}
CONTROL = {**LETTERS, "cleanup.policy": "compact"}
LEDGER = {**LETTERS, "cleanup.policy": "compact,delete", "retention.ms": "34560000000"}


@dataclass
class Contender:
    """How one of them is started."""

    name: str
    title: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Figures:
    """What was seen of one contender; None where it gave nothing."""

    rate: float | None = None
    cpu_ms: float | None = None  # its CPU time per 1,000 records, start-up apart: says most on a busy machine
    lost: int = 0
    twice: int = 0
    transactional: bool = False
    latencies: list[float] = field(default_factory=list)  # milliseconds
    late: int = 0  # records of the latency run that never came
    remark: str = ""


def contenders() -> dict[str, Contender]:
    peer, own = str(PEERS / "bin" / "python"), sys.executable
    worker = ["worker", "-l", "error", "--without-web"]
    run = ["-m", "farandole", "run", "bench.contenders.farandole_hop:Hop", "--log-level", "warning"]
    found = [
        Contender("hand", "by hand (the limit)", [own, str(HERE / "hand.py")]),
        Contender("quix", "Quix Streams", [peer, str(HERE / "quix.py")]),
        Contender("faust", "Faust", [peer, str(HERE / "faust_hop.py"), *worker]),
        Contender("farandole", "Farandole", [own, *run]),
    ]
    return {contender.name: contender for contender in found}


class Track:
    """The servers, and the records of one bench."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        settings = load_settings()
        self.options, self.folder = options, folder
        self.bootstrap, self.registry_url = settings.bootstrap(), settings.registry()
        self.admin, self.registry = Admin(self.bootstrap), Registry(self.registry_url)
        self.run = uuid.uuid4().hex[:6]
        self.note = "n" * 100

    def close(self) -> None:
        self.registry.close()

    def topic(self, name: str, schema: dict) -> int:
        self.admin.create(name, partitions=PARTITIONS, replication=1, settings=EVENTS)
        return self.registry.register(f"{name}-value", schema)

    def producer(self) -> Producer:
        return Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 0, "partitioner": "murmur2_random"})

    def produce(self, producer: Producer, topic: str, schema_id: int, seq: int) -> None:
        account = f"account-{seq % ACCOUNTS}"
        record = {
            "seq": seq,
            "sent_ns": time.time_ns(),
            "account": account,
            "amount": float(seq),
            "note": self.note,
        }
        headers = wire.envelope(topic, f"{topic}/{seq}")
        producer.produce(topic, wire.ask(schema_id, record), account, headers=headers)

    def preload(self) -> tuple[str, int]:
        """The records of the throughput runs: the same topic for everybody."""
        topic = f"bench.hop-{self.run}.asked.v1"
        schema_id = self.topic(topic, wire.ASKED)
        producer = self.producer()
        for seq in range(self.options.records):
            self.produce(producer, topic, schema_id, seq)
            if seq % 1000 == 0:
                producer.poll(0)
        producer.flush()
        return topic, schema_id

    def reader(self, topic: str) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"reader-{topic}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 5,
            }
        )
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        return consumer

    def start(self, contender: Contender, asked: str, answered: str, answered_id: int) -> subprocess.Popen:
        """Its process, its topics and, for Farandole, its schemas and database: all of it new."""
        group = f"hop-{contender.name}-{uuid.uuid4().hex[:6]}"
        folder = self.folder / group
        schemas = folder / "schemas"
        schemas.mkdir(parents=True)
        (schemas / f"{asked}.avsc").write_text(json.dumps(wire.ASKED))
        (schemas / f"{answered}.avsc").write_text(json.dumps(wire.ANSWERED))
        if contender.name == "farandole":
            self.own_topics(group)
        env = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "SCHEMA_REGISTRY_URL": self.registry_url,
            "HOP_GROUP": group,
            "HOP_ASKED": asked,
            "HOP_ANSWERED": answered,
            "HOP_ANSWERED_ID": str(answered_id),
            "HOP_FOLDER": str(folder),
            "FARANDOLE_SCHEMAS": str(schemas),
            "FARANDOLE_DATABASE_URL": f"sqlite:///{folder}/farandole.db",
            **contender.env,
        }
        log = (folder / "log.txt").open("wb")
        with log:
            return subprocess.Popen(contender.command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)

    def own_topics(self, group: str) -> None:
        ledger = "farandole.ledger.v1"
        for topic in (f"retry.{group}", f"dlq.{group}"):
            self.admin.create(topic, partitions=PARTITIONS, replication=1, settings=LETTERS)
        self.admin.create(ledger, partitions=12, replication=1, settings=LEDGER)
        self.admin.create("farandole.control.v1", partitions=1, replication=1, settings=CONTROL)
        schema = json.loads((ROOT / "schemas" / "avro" / f"{ledger}.avsc").read_text())
        self.registry.register(f"{ledger}-value", schema)


def throughput(track: Track, contender: Contender, asked: str, found: Figures) -> None:
    answered = f"bench.hop-{track.run}-{contender.name}.answered.v1"
    answered_id = track.topic(answered, wire.ANSWERED)
    reader = track.reader(answered)
    process = track.start(contender, asked, answered, answered_id)
    wanted, values, first = track.options.records, [], 0
    began = last = busy_before = busy = 0.0
    deadline = time.monotonic() + track.options.patience
    while len(values) < wanted and time.monotonic() < deadline and process.poll() is None:
        got = [message.value() for message in reader.consume(5000, timeout=0.02) if not message.error()]
        if got and not values:
            first, began, busy_before = len(got), time.monotonic(), cpu_seconds(process.pid)
        if got:
            last, busy = time.monotonic(), cpu_seconds(process.pid)
            values += got
    values += [message.value() for message in reader.consume(wanted, timeout=1.0) if not message.error()]
    ended = stop(process)
    seen = Counter(wire.read_answered(value)["seq"] for value in values)
    found.lost, found.twice = wanted - len(seen), sum(seen.values()) - len(seen)
    if len(values) > first and last > began:
        found.rate = (len(values) - first) / (last - began)
        found.cpu_ms = (busy - busy_before) * 1e6 / (len(values) - first)
    ends = track.admin.ends([(answered, number) for number in range(PARTITIONS)], committed=False)
    found.transactional = sum(ends.values()) > len(values)
    found.remark = ended or ("" if values else f"gave nothing in {track.options.patience:g} s")
    reader.close()


def latency(track: Track, contender: Contender, found: Figures, silent: float = 0) -> None:
    """Paced events. Of a share `silent` of them no answer is waited for."""
    asked = f"bench.hop-{track.run}-{contender.name}.paced.v1"
    answered = f"bench.hop-{track.run}-{contender.name}.echoed.v1"
    asked_id, answered_id = track.topic(asked, wire.ASKED), track.topic(answered, wire.ANSWERED)
    came: dict[int, float] = {}
    done = threading.Event()
    reader = track.reader(answered)

    def read() -> None:
        while not done.is_set():
            message = reader.poll(0.1)
            if message is not None and not message.error():
                now, record = time.time_ns(), wire.read_answered(message.value())
                came.setdefault(record["seq"], (now - record["sent_ns"]) / 1e6)

    thread = threading.Thread(target=read)
    thread.start()
    process = track.start(contender, asked, answered, answered_id)
    producer = track.producer()
    interval, warm, measured = (
        1 / track.options.rate,
        WARM * track.options.rate,
        track.options.seconds * track.options.rate,
    )
    seq, deadline = 0, time.monotonic() + track.options.patience
    while not came and time.monotonic() < deadline and process.poll() is None:  # until it is there
        track.produce(producer, asked, asked_id, seq)
        producer.poll(0.2)
        seq += 1
    if came:
        start, begin = seq + warm, time.monotonic()
        for number in range(warm + measured):
            producer.poll(max(0.0, begin + number * interval - time.monotonic()))
            while time.monotonic() < begin + number * interval:  # poll() returns early when a report comes
                producer.poll(0.0005)
            track.produce(producer, asked, asked_id, seq + number)
        producer.flush()
        deadline = time.monotonic() + 15
        awaited = measured - round(measured * silent)
        while len([n for n in came if n >= start]) < awaited and time.monotonic() < deadline:
            time.sleep(0.05)
        found.latencies = [milliseconds for n, milliseconds in came.items() if n >= start]
        found.late = awaited - len(found.latencies)
    ended = stop(process)
    found.remark = found.remark or ended or ("" if came else f"gave nothing in {track.options.patience:g} s")
    done.set()
    thread.join()
    reader.close()


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process until now; 0 where the system does not tell (it is Linux that does)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def stop(process: subprocess.Popen) -> str:
    """End it, by its id; a remark if it did not end as it should."""
    if process.poll() is not None:
        return f"ended by itself with {process.returncode}"
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "did not stop on SIGTERM within 20 s"
    return ""


def peers() -> None:
    """The environment of Quix Streams and Faust, made once."""
    if (PEERS / "bin" / "python").exists():
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subprocess.run(["uv", "venv", "--quiet", "--python", version, str(PEERS)], check=True)
    command = ["uv", "pip", "install", "--quiet", "--python", str(PEERS / "bin" / "python"), *PEER_PACKAGES]
    subprocess.run(command, check=True)


def table(figures: dict[str, Figures], all_of_them: dict[str, Contender]) -> str:
    limit, own = figures.get("hand"), figures.get("farandole")
    lines = [
        "| contender | records/s | x by hand | Farandole is | CPU ms per 1,000 | hop p50 | hop p99 | lost | twice | in transactions | remark |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in figures.items():
        p50, p99 = "-", "-"
        if len(found.latencies) > 1:
            cuts = statistics.quantiles(found.latencies, n=100)
            p50, p99 = f"{cuts[49]:.1f} ms", f"{cuts[98]:.1f} ms"
        cells = [
            all_of_them[name].title,
            f"{found.rate:,.0f}" if found.rate else "-",
            ratio(found.rate, limit.rate if limit else None),
            ratio(own.rate if own else None, found.rate),
            f"{found.cpu_ms:.0f}" if found.cpu_ms else "-",
            p50,
            p99,
            str(found.lost + found.late),
            str(found.twice),
            "yes" if found.transactional else "no",
            found.remark,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratio(value: float | None, of: float | None) -> str:
    return f"{value / of:.2f} x" if value and of else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rate", type=int, default=200, help="events per second of the latency run")
    parser.add_argument("--seconds", type=int, default=10, help="length of the latency run")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds after which a contender is ended")
    parser.add_argument("--only", default="hand,quix,faust,farandole")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    everybody = contenders()
    names = options.only.split(",")
    if {"quix", "faust"} & set(names):
        peers()
    with tempfile.TemporaryDirectory(prefix="hop-") as folder:
        track = Track(options, Path(folder))
        asked, _ = track.preload()
        figures: dict[str, Figures] = {}
        for name in names:
            figures[name] = Figures()
            print(f"{everybody[name].title}: throughput …", file=sys.stderr, flush=True)
            throughput(track, everybody[name], asked, figures[name])
            print(f"{everybody[name].title}: latency …", file=sys.stderr, flush=True)
            latency(track, everybody[name], figures[name])
            for log in sorted(Path(folder).glob(f"hop-{name}-*/log.txt")):
                if text := log.read_text(errors="replace").strip():
                    print(f"--- {log.parent.name}\n{text[-1500:]}", file=sys.stderr)
        track.close()
    print(
        f"{options.records:,} records, {PARTITIONS} partitions; {options.seconds} s at {options.rate} events/s; "
        f"{os.cpu_count()} cores (load {load:.1f} before, {os.getloadavg()[0]:.1f} after), Python {platform.python_version()}\n"
    )
    print(table(figures, everybody))


if __name__ == "__main__":
    main()
