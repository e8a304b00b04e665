"""Producers and consumers that know nothing of Farandole: kcat from Debian, and the plain Confluent client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from io import BytesIO

import fastavro
import httpx2
import pytest

from tests.integration.runtime_world import until

KCAT = shutil.which("kcat") or shutil.which("kafkacat")
needs_kcat = pytest.mark.skipif(KCAT is None, reason="kcat is not installed: apt-get install kcat")

PLAIN_PRODUCER = """
import os, sys
from confluent_kafka import SerializingProducer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import StringSerializer

topic = sys.argv[1]
registry = SchemaRegistryClient({"url": os.environ["SCHEMA_REGISTRY_URL"]})
value = AvroSerializer(registry, conf={"auto.register.schemas": False, "use.latest.version": True})
producer = SerializingProducer({
    "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
    "key.serializer": StringSerializer(),
    "value.serializer": value,
})
for n in range(20):
    producer.produce(topic, key=f"k{n}", value={"n": n, "key": f"k{n}", "kind": "good", "amount": None})
assert producer.flush(30) == 0
assert not [name for name in sys.modules if name.startswith("farandole")]
"""


def kcat(world, *arguments, **more):
    command = [KCAT, "-b", world.bootstrap, "-q", *arguments]
    return subprocess.run(command, capture_output=True, timeout=30, check=True, **more).stdout


@needs_kcat
def test_a_record_of_kcat_without_any_header_is_an_event_with_a_derived_id(world):
    world.create("Double")
    file = world.folder / "record.avro"
    file.write_bytes(world.frame(world.module.SENT, world.number(21)))
    kcat(world, "-P", "-t", world.module.SENT, "-k", "k4", str(file))
    world.drain("Double")
    [run] = world.runs("Double", "done")
    [origin] = run["triggers"]
    assert origin["derived"]
    assert origin["event_id"] == f"pos:{origin['topic_id']}/{origin['partition']}/{origin['offset']}"
    [output] = world.records(world.module.DOUBLED)
    assert world.decode(world.module.DOUBLED, output.value()) == {"n": 42, "key": "k4"}
    assert dict(output.headers())["ce_causationid"].decode() == origin["event_id"]


@needs_kcat
def test_kcat_reads_an_output_and_the_registry_has_the_schema_that_it_names(world):
    """Debian builds kcat without its Avro reader, so kcat gives the bytes, and the id in them leads to the schema."""
    world.create("Double")
    world.send([21])
    world.drain("Double")
    told = b"".join(
        kcat(world, "-C", "-t", world.module.DOUBLED, "-p", str(p), "-o", "beginning", "-e", "-f", "%s")
        for p in range(world.partitions)
    )
    magic, number = told[0], int.from_bytes(told[1:5], "big")
    answer = httpx2.get(f"{world.registry_url}/schemas/ids/{number}", trust_env=False).json()
    schema = fastavro.parse_schema(json.loads(answer["schema"]))
    assert magic == 0
    assert fastavro.schemaless_reader(BytesIO(told[5:]), schema, None) == {"n": 42, "key": "k4"}


@needs_kcat
def test_kcat_shows_the_envelope_of_an_output_in_its_headers(world):
    world.create("Double")
    world.send([21])
    world.drain("Double")
    [output] = world.records(world.module.DOUBLED)
    told = kcat(
        world, "-C", "-t", world.module.DOUBLED, "-p", str(output.partition()), "-o", "beginning", "-e", "-f", "%k|%h"
    ).decode()
    key, _, headers = told.partition("|")
    got = dict(pair.split("=", 1) for pair in headers.split(","))
    assert key == "k4"
    assert got["ce_specversion"] == "1.0"
    assert got["ce_type"] == world.module.DOUBLED
    assert got["ce_id"].encode() == dict(output.headers())["ce_id"]


def test_the_plain_client_with_its_own_serializer_feeds_a_pipeline(world):
    world.create("Double")
    subprocess.run(
        [sys.executable, "-c", PLAIN_PRODUCER, world.module.SENT],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": world.bootstrap, "SCHEMA_REGISTRY_URL": world.registry_url},
        cwd=world.folder, check=True, timeout=60,
    )  # fmt: skip
    world.drain("Double")
    assert world.outputs() == [2 * n for n in range(20)]
    assert all(t["derived"] for run in world.runs("Double", "done") for t in run["triggers"])


def test_a_record_without_key_that_carries_an_id_runs_once_though_it_is_told_on_two_partitions(world):
    world.create("Double")
    told = world.frame(world.module.SENT, world.number(5))
    for partition in range(world.partitions):
        world.put(world.module.SENT, told, None, world.headers("n5"), partition)
    world.flush()
    service = world.run("Double")
    world.wait_drained("Double")
    until(lambda: world.outputs() == [10])
    service.stop()
    assert world.outputs() == [10]
    assert len(world.said("keys.not-local")) == 1
    assert [r["state"] for r in world.runs("Double")] == ["done"]
