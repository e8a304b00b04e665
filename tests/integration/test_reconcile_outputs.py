"""Events that a run has emitted and that are gone come back under their own ids, or a person is told why not."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

from confluent_kafka import TopicPartition

from farandole.reconciler.cluster import Limits
from tests.integration.runtime_world import Tail, ends, until
from tests.integration.test_reconcile import reconciler
from tests.integration.test_reconcile import retries as committed
from tests.integration.test_runtime_joins import send_pairs


def sweep(world, pipeline, **limits):
    with reconciler(world, pipeline) as one:
        (swept,) = one.sweep(Limits(**limits))
    return swept


def gone(swept):
    """What a sweep says of outputs that are gone."""
    return [one.says for one in swept.findings.standing if one.kind == "outputs-gone"]


def emitted(world, topic):
    """Id and value of each event of a topic, by how often it stands there now."""
    with closing(Tail(world.bootstrap, topic, dict.fromkeys(ends(world.bootstrap, topic), 0))) as tail:
        return Counter((dict(r.headers())["ce_id"], r.value()) for r in tail.read())


def delete(world, topic, partition, count):
    """The first events of a partition are gone, as `kafka-delete-records` takes them; what they were."""
    before = emitted(world, topic)
    first = [r for r in world.records(topic) if r.partition() == partition][count]
    for future in world.admin.delete_records([TopicPartition(topic, partition, first.offset())]).values():
        future.result()
    lost = before - emitted(world, topic)
    assert lost.total() == count, "the test has deleted something else"
    return before, lost


def work(world, pipeline):
    """One instance, until it has settled its retry topic."""
    topic = world.declaration(pipeline).retry_topic
    service, asked = world.run(pipeline), ends(world.bootstrap, topic)
    until(lambda: all(committed(world, pipeline).get((topic, p), (0,))[0] >= end for p, end in asked.items()))
    service.stop()


def retries(world, pipeline):
    return len(world.records(world.declaration(pipeline).retry_topic))


def doubled(world, *, count=200):
    world.create("Double")
    world.send(range(count))
    world.drain("Double")


def test_outputs_that_are_gone_come_back_under_their_ids_and_nothing_else_is_told_anew(world):
    doubled(world)
    before, _ = delete(world, world.module.DOUBLED, 0, 7)
    ran = Counter(world.module.done)
    entries = world.entries("Double")

    first = sweep(world, "Double")

    assert (first.repairs, first.whole) == (7, False)
    (says,) = gone(first)
    assert says.startswith("7 events that 7 runs have emitted are not there")
    second = sweep(world, "Double")
    assert (second.repairs, len(gone(second)), retries(world, "Double")) == (0, 1, 7), "it is under way"
    work(world, "Double")
    assert emitted(world, world.module.DOUBLED) == before
    third = sweep(world, "Double")
    assert (gone(third), third.whole, len(third.findings.ended)) == ([], True, 1)
    assert (third.repairs, retries(world, "Double")) == (0, 7)
    told = world.entries("Double")[len(entries) :]
    assert Counter(e["fact"] for e in told if e["kind"] == "fact") == {"output.repaired": 7}
    assert not [e for e in told if e["kind"] == "run"], "a run is told anew"
    assert (Counter(world.module.done) - ran).total() == 7, "more ran than what is gone"


def test_a_set_whose_output_is_gone_is_computed_again_with_all_its_events(world):
    world.create("Pairs")
    send_pairs(world, range(20))
    world.drain("Pairs")
    before, _ = delete(world, world.module.PAIRED, 0, 3)

    assert sweep(world, "Pairs").repairs == 3
    work(world, "Pairs")

    assert emitted(world, world.module.PAIRED) == before
    assert sweep(world, "Pairs").whole
    assert len(world.runs("Pairs", "done")) == 20


def test_where_the_code_gives_something_else_by_now_nothing_is_published_and_a_person_is_told(world):
    doubled(world, count=20)
    before, lost = delete(world, world.module.DOUBLED, 0, 2)
    sweep(world, "Double")
    world.module = world.load(RUNTIME_FACTOR="3")
    for times in (1, 2, 3, 3):
        work(world, "Double")
        assert retries(world, "Double") == 2 * times
        swept = sweep(world, "Double")

    assert emitted(world, world.module.DOUBLED) == before - lost
    assert "asked for 3 times, and they did not come" in gone(swept)[0]
    fact = world.facts("Double")["output.nondeterministic"]
    assert fact["differ"] in {identity.decode() for identity, _ in lost}


def test_a_run_that_fails_when_it_is_computed_again_stays_done_and_leaves_no_letter(world):
    world.create("Deployed")
    world.send(range(20))
    world.drain("Deployed")
    delete(world, world.module.DOUBLED, 0, 2)
    sweep(world, "Deployed")
    world.module.deployed["broken"] = True

    work(world, "Deployed")

    assert world.letters("Deployed") == []
    assert (len(world.runs("Deployed", "done")), world.runs("Deployed", "dead")) == (20, [])
    assert "amount" in world.facts("Deployed")["output.not-repaired"]["error"]
    world.module.deployed["broken"] = False
    assert sweep(world, "Deployed").repairs == 2
    work(world, "Deployed")
    assert sweep(world, "Deployed").whole


def test_a_run_with_effects_is_never_computed_again_and_a_person_is_told(world):
    world.create("Rows")
    with sqlite3.connect(f"{world.folder}/books.db") as books:
        books.execute("CREATE TABLE effect (n BIGINT)")
    world.send(range(20))
    world.drain("Rows")
    delete(world, world.module.DOUBLED, 0, 2)

    swept = sweep(world, "Rows")

    assert (swept.repairs, retries(world, "Rows")) == (0, 0)
    assert "its effects stand and must not be repeated" in gone(swept)[0]


def test_more_than_a_sweep_repairs_is_found_again_until_somebody_allows_it(world):
    doubled(world, count=400)
    delete(world, world.module.DOUBLED, 0, 120)
    for _ in range(2):
        swept = sweep(world, "Double")
        assert (swept.repairs, retries(world, "Double")) == (0, 0)
        assert gone(swept) == ["the outputs of 120 runs are not there, and a sweep repairs 100 at most"]

    assert sweep(world, "Double", most=120).repairs == 120
