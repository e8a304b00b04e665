"""What a run is, seen from outside: its outputs, its entry, its steps, its end."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.integration.runtime_world import until


def test_numbers_are_doubled_each_once_and_the_ledger_has_an_entry_for_each(world):
    world.create("Double")
    world.send(range(50))
    world.send(range(10))  # told again
    world.send([100, 101], kind="skip")
    world.drain("Double")
    assert world.outputs() == [2 * n for n in range(50)]
    assert len(world.runs("Double", "done")) == len(world.runs("Double")) == 50
    assert world.filtered("Double") == {"not (kind != 'skip')": 2}


def test_an_output_names_its_run_its_cause_and_its_story(world):
    world.create("Double")
    told = world.number(1)
    headers = [
        *world.headers("n1"),
        ("ce_correlationid", b"story"),
        ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
    ]
    world.put(world.module.SENT, world.frame(world.module.SENT, told), "k1", headers)
    world.flush()
    world.drain("Double")
    [output], [run] = world.records(world.module.DOUBLED), world.runs("Double")
    got = dict(output.headers())
    assert got["ce_runid"].decode() == run["id"]
    assert got["ce_causationid"] == dict(headers)["ce_id"]
    assert got["ce_correlationid"] == b"story"
    assert got["traceparent"].startswith(b"00-" + b"a" * 32)
    assert output.key() == b"k1"
    assert [o["id"] for o in run["outputs"]] == [got["ce_id"].decode()]
    assert [(t["topic"], t["event_id"], t["derived"]) for t in run["triggers"]] == [
        (world.module.SENT, f"{world.name}-n1", False)
    ]


def test_the_same_id_with_other_content_is_a_letter_and_leaves_the_first_effect_alone(world):
    world.create("Double")
    world.send([1], identity="same")
    service = world.run("Double")
    world.wait_drained("Double")
    world.send([2], identity="same")
    world.wait_drained("Double")
    service.stop()
    [letter] = world.letters("Double")
    got = dict(letter.headers())
    assert got["farandole-dlq-stage"] == b"dedup"
    assert got["farandole-dlq-exception-class"].endswith(b"KeyConflict")
    assert world.decode(world.module.SENT, letter.value())["n"] == 2
    assert world.outputs() == [2]
    assert sorted(r["state"] for r in world.runs("Double")) == ["dead", "done"]


def test_two_events_of_one_id_and_other_content_in_one_batch_are_a_run_and_a_letter(world):
    world.create("Double")
    world.send([1, 2], identity="same", partition=0)
    world.drain("Double")
    assert world.outputs() == [2]
    assert [dict(m.headers())["farandole-dlq-stage"] for m in world.letters("Double")] == [b"dedup"]


def test_a_criterion_that_cannot_be_told_is_a_letter_and_never_no(world):
    world.create("Large")
    world.send([1], amount=10)
    world.send([2], amount=1)
    world.send([3], amount="ten")
    world.send([4], amount=None)
    world.drain("Large")
    assert world.outputs() == [2]
    assert world.filtered("Large") == {"not (amount > 5)": 1}
    letters = world.letters("Large")
    assert sorted(world.decode(world.module.SENT, m.value())["n"] for m in letters) == [3, 4]
    assert {dict(m.headers())["farandole-dlq-stage"] for m in letters} == {b"match"}
    assert all(b"amount > 5" in dict(m.headers())["__dlq.errors.message"] for m in letters)


def test_since_now_ignores_what_was_there(world):
    world.create("Double")
    world.module = world.load(RUNTIME_SINCE="now")
    world.send([1, 2, 3])
    service = world.run("Double")
    until(lambda: service.worker.owned and all(o.phase == "running" for o in service.worker.owned.values()))
    world.send([4])
    until(lambda: world.outputs() == [8])
    service.stop()
    assert world.outputs() == [8]


def test_since_a_time_takes_from_then_on(world):
    world.create("Double")
    world.send([1, 2, 3])
    until(lambda: time.time() % 1 > 0.01)
    then = datetime.now(UTC)
    time.sleep(0.01)  # the broker keeps milliseconds
    world.send([4, 5])
    world.module = world.load(RUNTIME_SINCE=then.isoformat(timespec="milliseconds"))
    service = world.run("Double")
    until(lambda: world.outputs() == [8, 10])
    service.stop()
    assert world.outputs() == [8, 10]


def test_a_step_is_tried_again_in_place_and_the_entry_counts_the_attempts(world):
    world.create("Patient")
    world.send([7])
    world.drain("Patient")
    assert [d[:3] for d in world.module.done] == [("attempt", 7, 1), ("attempt", 7, 2), ("attempt", 7, 3)]
    assert len({key for *_, key in world.module.done}) == 1  # one key for all attempts
    [run] = world.runs("Patient")
    assert (run["state"], [s["attempts"] for s in run["steps"]]) == ("done", [3])


def test_a_step_that_fails_for_good_makes_its_event_a_letter_whole_and_its_neighbours_go_on(world):
    world.create("Double")
    world.send([1])
    world.send([2], kind="bad")
    world.send([3])
    world.drain("Double")
    assert world.outputs() == [2, 6]
    [letter], [sent] = world.letters("Double"), [m for m in world.records(world.module.SENT) if b"bad" in m.value()]
    got = dict(letter.headers())
    assert (letter.key(), letter.value(), letter.headers()[: len(sent.headers())]) == (
        sent.key(),
        sent.value(),
        sent.headers(),
    )
    assert (got["farandole-dlq-stage"], got["farandole-dlq-step"]) == (b"run", b"double")
    assert got["__dlq.errors.delivery.count"] == b"3"
    [dead] = world.runs("Double", "dead")
    assert dead["error"]["message"] == "number 2 is bad"


def test_a_caught_error_is_business_and_ends_with_its_event(world):
    world.create("Catching")
    world.send([1], kind="bad")
    world.send([2])
    world.drain("Catching")
    assert world.values(world.module.REFUSED) == [{"n": 1, "key": "k1", "why": "1 is no good number"}]
    assert world.outputs() == [4]
    assert world.letters("Catching") == []
    [run] = world.runs("Catching", "caught")
    assert (run["steps"][0]["state"], run["steps"][0]["attempts"]) == ("caught", 1)


def test_steps_in_a_row_hand_on_their_results_also_to_async_ones(world):
    world.create("Weighing")
    world.send([1, 2, 3])
    world.drain("Weighing")
    assert world.outputs() == [10, 20, 30]
    assert [[s["name"] for s in run["steps"]] for run in world.runs("Weighing", "done")] == [["weigh", "lift"]] * 3


def test_a_step_that_gave_its_result_is_not_asked_again_after_a_kill_in_the_next(world):
    world.create("Weighing")
    world.quick_session("Weighing")
    world.send([4])
    killed = world.start("Weighing", FARANDOLE_KILL_AT="step.running:2")
    assert killed.wait(60) == -9
    world.start("Weighing")
    world.wait_drained("Weighing")
    assert world.done() == ["weigh 4", "lift 4"]
    [run] = world.runs("Weighing", "done")
    assert [s["reused"] for s in run["steps"]] == [True, False]
    assert world.outputs() == [40]


def test_an_async_step_that_never_answers_is_tried_as_often_as_its_policy_says_and_given_up(world):
    world.create("Silent")
    world.send([1])
    world.drain("Silent")
    assert world.module.done == [("asked", 1)] * 2
    [letter] = world.letters("Silent")
    assert dict(letter.headers())["farandole-dlq-exception-class"] == b"TimeoutError"
    assert dict(letter.headers())["__dlq.errors.message"] == b"never_answers gave no result within 0.15 s"


def test_a_step_that_never_returns_is_given_up_and_does_not_keep_the_service_from_ending(world):
    world.create("Hanging")
    world.send([1])
    process = world.start("Hanging")
    world.wait_drained("Hanging")
    process.terminate()
    assert process.wait(20) == 0
    assert world.done() == ["asked 1"] * 2
    assert len(world.letters("Hanging")) == 1


def test_many_steps_that_never_return_leave_threads_for_others(world):
    world.create("Hanging")
    world.send(range(45))
    world.drain("Hanging")
    assert len(world.module.done) == 90
    messages = {dict(m.headers())["__dlq.errors.message"] for m in world.letters("Hanging")}
    assert messages == {b"never_returns gave no result within 0.15 s"}
    assert len(world.letters("Hanging")) == 45


def test_a_pipeline_that_writes_outside_and_does_not_say_how_does_not_start(world):
    world.create("Undeclared")
    process = world.start("Undeclared")
    assert process.wait(30) == 1
    assert "write_outside takes a Outside, which can write outside" in world.log()
    assert "declare effect= as one of idempotent" in world.log()


def test_a_decided_output_that_the_broker_refuses_stops_its_partition_with_a_fact_and_goes_out_once_it_is_taken(world):
    world.create("Rows")
    books = sqlite3.connect(world.folder / "books.db")
    books.execute("create table effect (n bigint)")
    books.commit()
    set_limit(world, "200")  # a marker of the transaction fits, the event does not
    world.send([7], partition=0)
    service = world.run("Rows")
    until(lambda: "output.refused" in world.facts("Rows"))
    fact = world.facts("Rows")["output.refused"]
    [run] = service.worker.store.inbox.unpublished([fact["run"]])
    assert (fact["topic"], fact["partition"], fact["at"]) == (world.module.SENT, "0", "0")
    assert fact["output"] == world.module.DOUBLED
    assert "too large" in fact["error"]
    [line] = world.said("output.refused")
    assert line["at"] == f"{world.module.SENT}[0]@0"
    assert run == fact["run"]
    service.stop()
    assert world.outputs() == []
    set_limit(world, "1000000")
    world.drain("Rows")
    assert world.outputs() == [14]
    assert books.execute("select n from effect").fetchall() == [(7,)]


def set_limit(world, size):
    """The largest batch that the output's topic takes."""
    entry = ConfigEntry("max.message.bytes", size, incremental_operation=AlterConfigOpType.SET)
    asked = ConfigResource(ResourceType.TOPIC, world.module.DOUBLED, incremental_configs=[entry])
    for future in world.admin.incremental_alter_configs([asked]).values():
        future.result()
