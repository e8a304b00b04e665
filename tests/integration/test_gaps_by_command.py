"""`farandole gaps close`: a person knows of a gap, and the pipeline is complete again; the ledger says who and why."""

from __future__ import annotations

import json
import threading

import pytest
from click.testing import CliRunner
from confluent_kafka import TopicPartition

from farandole.cli import cli
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.ledger.database import open_projection
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.ledger.projector import Projector
from farandole.topics import own_schemas
from tests.integration.runtime_world import until


def ask(*arguments):
    told = CliRunner().invoke(cli, [*arguments], standalone_mode=False, catch_exceptions=False)
    return told.return_value, [json.loads(line) for line in told.stdout.splitlines()], told.stderr


@pytest.fixture
def projected(world, tmp_path, monkeypatch):
    """Have the ledger read to its end into the projection that the command line asks."""
    monkeypatch.chdir(tmp_path)
    for name, value in world.environment(FARANDOLE_ACTOR="ada").items():
        monkeypatch.setenv(name, value)
    url = f"sqlite:///{tmp_path}/{{pipeline}}.db"
    monkeypatch.setenv("FARANDOLE_DATABASE_URL", url)
    codec = Codec(world.registry, own_schemas())

    def project():
        database = open_projection(url.format(pipeline="projector"))
        with TopicReader(world.bootstrap, LEDGER_TOPIC) as reader:
            read = Projector(database, reader, lambda record: codec.decode(LEDGER_TOPIC, record.value, record.headers))
            read.run(threading.Event(), until_drained=True)
        database.close()

    return project


@pytest.fixture
def incomplete(world, projected):
    """A pipeline that lost the records 10 to 14 of one partition, and 10 to 12 of the other."""
    world.create("Double")
    for partition, until_offset in ((0, 15), (1, 13)):
        world.send(range(100 * partition, 100 * partition + 10), partition=partition)
        world.drain("Double")
        world.send(range(100 * partition + 10, 100 * partition + 20), partition=partition)
        place = TopicPartition(world.module.SENT, partition, until_offset)
        for future in world.admin.delete_records([place]).values():
            future.result()
    world.drain("Double")
    projected()
    return world


def test_a_gap_that_a_person_closes_is_told_with_who_and_why_and_its_pipeline_is_complete_again(incomplete, projected):
    world, group = incomplete, incomplete.group("Double")
    code, found, _ = ask("gaps", group)
    assert code == 3
    assert {(g["partition"], g["from"], g["to"]) for g in found} == {(0, 10, 15), (1, 10, 13)}
    first = next(g for g in found if g["partition"] == 0)

    code, [told], _ = ask("gaps", "close", first["id"], "--reason", "the producer told them again")
    assert (code, told["state"], told["actor"]) == (0, "closed", "ada")
    projected()

    assert [g["partition"] for g in ask("gaps", group)[1]] == [1]
    assert "is incomplete" in ask("runs", "list")[2]
    fact = until(lambda: world.facts("Double").get("gap.closed"))
    assert (fact["gap"], fact["actor"], fact["reason"]) == (first["id"], "ada", "the producer told them again")
    [act] = [a for a in ask("audit", group)[1] if a["act"] == "close"]
    assert (act["actor"], act["detail"]["gap"]) == ("ada", first["id"])

    assert ask("gaps", "close", "--pipeline", group, "--reason", "a test of ours")[0] == 0
    projected()
    assert ask("gaps", group)[:2] == (0, [])
    assert f"{group} is incomplete" not in ask("runs", "list")[2]
    why = {(g["partition"], g["state"], g["reason"]) for g in ask("gaps", group, "--all")[1]}
    assert why == {(0, "closed", "the producer told them again"), (1, "closed", "a test of ours")}

    world.module.done.clear()
    world.send([200], partition=0)  # who takes the partition over reads the fact in the ledger, and goes on
    world.drain("Double")
    assert world.module.done == [("double", 200)]


def test_a_gap_that_is_closed_already_keeps_who_closed_it(incomplete, projected):
    group = incomplete.group("Double")
    ask("gaps", "close", "--pipeline", group, "--reason", "first")
    projected()
    one = ask("gaps", group, "--all")[1][0]["id"]

    code, [told], _ = ask("gaps", "close", one, "--reason", "second")

    assert (code, told["reason"]) == (0, "first")
    assert incomplete.facts("Double")["gap.closed"]["reason"] == "first"
