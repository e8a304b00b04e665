"""Where a partition starts when its committed offset is not what was left: nothing is skipped or re-run in silence."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.topics import own_schemas
from farandole.topology.accept import accept
from tests.integration.runtime_world import until


@pytest.fixture
def settled(world):
    """A world in which Double (or Again) has settled ten events on each of two partitions, and is stopped."""

    def settle(pipeline="Double"):
        world.create(pipeline)
        world.send(range(10), partition=0)
        world.send(range(10, 20), partition=1)
        world.drain(pipeline)
        world.module.done.clear()
        return world

    return settle


def set_offset(world, pipeline, offset, metadata=None, partition=0):
    at = TopicPartition(world.module.SENT, partition, offset)
    if metadata is not None:
        at = TopicPartition(world.module.SENT, partition, offset, metadata)
    asked = ConsumerGroupTopicPartitions(world.group(pipeline), [at])
    for future in world.admin.alter_consumer_group_offsets([asked]).values():
        future.result()


def offset_of(world, pipeline, partition=0):
    return world.committed(pipeline)[(world.module.SENT, partition)]


def inputs(service):
    """The partitions of its inputs, without those of its retry topic."""
    return [o for o in service.worker.owned.values() if not o.topic.startswith("retry.")]


def test_our_own_commits_carry_a_mark(settled):
    world = settled()
    offset, metadata = offset_of(world, "Double")
    assert offset == 10
    assert metadata.startswith("farandole/1 ")


def test_a_service_that_is_drained_but_for_a_stopped_partition_ends_with_an_error(settled):
    world = settled()
    world.send(range(20, 30), partition=0)
    set_offset(world, "Double", 15, "farandole/1 10 1 99")  # a mark of ours, of a transaction that nobody knows of
    world.send([70], partition=1)
    process = world.start("Double", "--until-drained")
    assert process.wait(60) == 1
    assert world.done() == ["double 70"]
    assert "not everything is settled, partitions are stopped" in world.log()
    assert "ledger.incomplete" in world.log()


def test_a_rewind_that_is_ignored_goes_on_from_where_it_was(settled):
    world = settled("Again")
    set_offset(world, "Again", 0)
    world.send([50], partition=0)
    world.drain("Again")
    assert world.module.done == [("double", 50)]
    assert world.facts("Again")["rewind.ignored"]["position"] == "10"
    assert len(world.outputs()) == 21


def test_an_offset_of_ours_below_the_position_is_a_regression_and_runs_nothing_again(settled):
    world = settled()
    _, mark = offset_of(world, "Double")
    set_offset(world, "Double", 4, mark)
    world.drain("Double")
    assert world.module.done == []
    assert world.facts("Double")["offset.regressed"]["committed"] == "4"
    assert offset_of(world, "Double")[0] == 10


def test_a_jump_forward_is_refused_and_every_record_is_settled(settled):
    world = settled()
    world.send(range(20, 30), partition=0)
    set_offset(world, "Double", 20)
    service = world.run("Double")
    until(lambda: len(world.outputs()) == 30)
    world.wait_drained("Double")
    service.stop()
    assert world.facts("Double")["offset.fast_forward.refused"]["committed"] == "20"
    assert world.outputs() == [2 * n for n in range(30)]


def test_offsets_that_are_gone_are_an_expiry_and_it_goes_on(settled):
    world = settled()
    for future in world.admin.delete_consumer_groups([world.group("Double")]).values():
        future.result()
    world.send([60], partition=0)
    world.drain("Double")
    assert world.module.done == [("double", 60)]
    assert world.facts("Double")["offset.expired"]["committed"] == "none"


def test_records_that_retention_ate_are_a_gap_with_its_exact_range(settled):
    world = settled()
    world.send(range(20, 30), partition=0)  # offsets 10 to 19
    for future in world.admin.delete_records([TopicPartition(world.module.SENT, 0, 15)]).values():
        future.result()
    world.drain("Double")
    gap = world.facts("Double")["data.gap"]
    assert (gap["from"], gap["to"]) == ("10", "15")
    assert (gap["topic"], gap["partition"]) == (world.module.SENT, "0")
    assert sorted(n for _, n in world.module.done) == [25, 26, 27, 28, 29]


def test_records_that_retention_eats_under_a_running_service_are_a_gap_too(world):
    world.partitions = 1
    world.create("Slow")
    service = world.run("Slow")
    until(lambda: any(o.phase == "running" for o in inputs(service)))
    world.module.gate.clear()
    world.send(range(5000))  # more than a window: the partition is held
    until(lambda: any(len(o.window) >= 2000 for o in inputs(service)))
    held = until(lambda: next(o.seen for o in inputs(service)))
    for future in world.admin.delete_records([TopicPartition(world.module.SENT, 0, held + 500)]).values():
        future.result()
    world.module.gate.set()
    world.wait_drained("Slow")
    service.stop()
    gap = world.facts("Slow")["data.gap"]
    assert int(gap["to"]) == held + 500
    assert held <= int(gap["from"]) < held + 500
    lost = int(gap["to"]) - int(gap["from"])
    assert world.outputs() == [2 * n for n in range(5000) if not int(gap["from"]) <= n < int(gap["to"])]
    assert len(world.runs("Slow", "done")) == 5000 - lost


def test_a_log_that_ends_before_what_was_settled_stops_until_a_person_accepts_it_and_nothing_runs_twice(
    settled, monkeypatch
):
    """As after a restore from an older copy: records come at offsets that were settled once."""
    monkeypatch.setattr("farandole.watch.LOOK", 0.5)
    world = settled()
    engine = sa.create_engine(world.database)
    with engine.begin() as conn:
        beyond = "UPDATE position SET next_offset = 15 WHERE topic = ? AND partition = 0"
        assert conn.exec_driver_sql(beyond, (world.module.SENT,)).rowcount == 1
    world.send([20, 21, 22], partition=0)
    service = world.run("Double")
    line = until(lambda: next(iter(world.said("partition.stopped")), None))
    assert line["why"].endswith(f"farandole topology accept {world.module.SENT} --at 0:15")
    service.stop()
    world.send(range(23, 30), partition=0)  # now it is long enough, and what came below would be passed over
    service = world.run("Double")
    until(lambda: len(world.said("partition.stopped")) == 2)
    assert world.module.done == []

    control = Control(world.bootstrap, Codec(world.registry, own_schemas()))
    accept(Admin(world.bootstrap), control, world.module.SENT, actor="ann", reason="restored", cuts=[(0, 15)])
    until(lambda: len(world.outputs()) == 30, 40)
    world.wait_drained("Double")
    service.stop()

    assert world.outputs() == [2 * n for n in range(30)]
    assert sorted(n for _, n in world.module.done) == list(range(20, 30))
    told = world.facts("Double")["topic.accepted"]
    assert (told["actor"], told["reason"], told["partition"]) == ("ann", "restored", "0")
    with engine.connect() as conn:
        asked = "SELECT next_offset, cut FROM position WHERE topic = ? AND partition = 0"
        assert conn.exec_driver_sql(asked, (world.module.SENT,)).one() == (20, None)
    engine.dispose()
    world.module.done.clear()
    world.drain("Double")
    assert world.module.done == []


def test_a_mark_of_ours_ahead_of_the_ledger_stops_and_names_what_has_no_outcome(settled):
    world = settled()
    world.send(range(20, 30), partition=0)
    set_offset(world, "Double", 15, "farandole/1 10 1 99")
    service = world.run("Double")
    until(lambda: "ledger.incomplete" in world.facts("Double"))
    assert world.facts("Double")["ledger.incomplete"]["missing"] == "10,11,12,13,14"
    service.stop()
    assert world.module.done == []
