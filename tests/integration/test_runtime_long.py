"""Long work: no rebalance, no second execution; told to end in its middle; and a service that hangs."""

from __future__ import annotations

import json
import os
import time
from collections import Counter

import pytest
import sqlalchemy as sa

from tests.integration.runtime_world import until

QUICK_POLLS = json.dumps({"max.poll.interval.ms": "10000"})


def lines(world, event):
    """What services of this world said under a name."""
    told = (json.loads(line) for line in world.log().splitlines() if line.startswith("{"))
    return [line for line in told if line["event"] == event]


def one(world, n, *, kind="good", amount=0, key=None):
    told = world.number(n, kind=kind, amount=amount, key=key)
    world.put(world.module.SENT, world.frame(world.module.SENT, told), told["key"], world.headers(f"n{n}"))
    world.flush()


def test_a_service_whose_polling_thread_hangs_says_so_and_ends(world):
    world.create("Double")
    one(world, 1)
    process = world.start("Double", FARANDOLE_KAFKA=QUICK_POLLS)
    until(lambda: world.outputs() == [2], why=world.log)
    one(world, 2, kind="wedge")
    asked = time.monotonic()
    assert process.wait(45) == 1
    assert time.monotonic() - asked > 17
    (line,) = lines(world, "service.hangs")
    assert line["why"].startswith("its polling thread stands still: no poll in 20 s")
    assert "in of" in world.log()
    assert "Thread 0x" in world.log()


def long_work(world, seconds, **environment):
    """One key works for so long while others go on. One instance, one execution, no rebalance."""
    world.create("Long")
    process = world.start("Long", **environment)
    until(lambda: world.owns(process), why=world.log)
    one(world, 1, amount=seconds, key="long")
    until(lambda: "carry 1" in world.done(), why=world.log)
    end, n = time.monotonic() + seconds - 2, 10
    while time.monotonic() < end:
        one(world, n, key=f"k{n % 3}")
        until(lambda n=n: 2 * n in world.outputs(), 10, world.log)
        n += 1
        time.sleep(min(1.0, seconds / 100))
    assert 2 not in world.outputs()
    until(lambda: 2 in world.outputs(), 20, world.log)
    world.wait_drained("Long")

    assert process.poll() is None
    told = Counter(line["event"] for line in map(json.loads, world.log().splitlines()))
    assert told == {"partitions.taken": told["partitions.taken"]}, told
    assert sum(len(line["partitions"]) for line in lines(world, "partitions.taken")) == 2 * world.partitions
    assert Counter(world.done())["carry 1"] == 1
    assert Counter(world.done())["weigh 1"] == 1


@pytest.mark.soak
def test_a_step_longer_than_the_clients_interval_causes_no_rebalance_and_runs_once(world):
    long_work(world, 35, FARANDOLE_KAFKA=QUICK_POLLS)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_step_of_six_and_a_half_minutes_at_default_settings_causes_no_rebalance_and_runs_once(world):
    long_work(world, 390)


def test_told_to_end_in_a_long_step_it_ends_the_step_within_its_grace(world):
    world.create("Long")
    one(world, 1, amount=3)
    process = world.start("Long")
    until(lambda: "carry 1" in world.done(), why=world.log)
    process.terminate()
    assert process.wait(20) == 0
    assert world.done() == ["weigh 1", "carry 1", "carried 1"]
    assert world.outputs() == [2]


def test_a_step_longer_than_the_grace_is_handed_over_and_what_was_done_before_is_not_asked_again(world):
    world.create("Long")
    one(world, 1, amount=8)
    process = world.start("Long", FARANDOLE_SHUTDOWN_GRACE="1s")
    until(lambda: "carry 1" in world.done(), why=world.log)
    asked = time.monotonic()
    process.terminate()
    assert process.wait(20) == 0
    assert time.monotonic() - asked < 6
    assert world.outputs() == []
    world.start("Long")
    until(lambda: world.outputs() == [2], why=world.log)
    assert world.done() == ["weigh 1", "carry 1", "carry 1", "carried 1"]
    steps = world.runs("Long", "done")[0]["steps"]
    assert [(s["name"], s["reused"]) for s in steps] == [("weigh", True), ("carry", False)]
    world.wait_drained("Long")


# ---- isolated steps


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def attempts(world, kind):
    """The numbers of the attempts at records of a kind, and the processes that made them."""
    found = [line.split() for line in world.done() if line.startswith(f"{kind} ")]
    return [int(words[2]) for words in found], [int(words[3]) for words in found]


def test_what_kills_an_isolated_step_is_its_failure_and_never_the_services_end(world):
    world.create("Risky")
    process = world.start("Risky")
    for n, kind in enumerate(("exit", "crash", "sleep", "once"), 1):
        one(world, n, kind=kind, key=kind)
    until(lambda: len(world.letters("Risky")) == 3, 40, world.log)
    until(lambda: world.outputs() == [8], why=world.log)
    assert process.poll() is None

    why = {text.partition("\n")[0] for _, text in world.why("Risky")}
    assert why == {
        "the process of risk ended: exit code 3",
        "the process of risk ended: signal SIGSEGV",
        "risk gave no result within 2 s; its process was killed",
    }
    for kind in ("exit", "crash", "sleep", "once"):
        numbers, pids = attempts(world, kind)
        assert numbers == [1, 2], kind
        assert len(set(pids)) == 2
        if kind != "once":
            assert not any(map(alive, pids)), kind
    assert process.pid not in attempts(world, "once")[1]
    world.wait_drained("Risky")


@pytest.mark.parametrize("how", ["told", "told twice", "killed"])
def test_no_isolated_step_outlives_its_service(world, how):
    world.create("RiskyLong")
    process = world.start("RiskyLong", FARANDOLE_SHUTDOWN_GRACE="1s")
    one(world, 1)
    until(world.done, why=world.log)
    child = int(world.done()[0].split()[2])
    assert child != process.pid
    if how == "killed":
        process.kill()
    else:
        process.terminate()
        if how == "told twice":
            until(lambda: process.poll() is not None or process.terminate(), 5)
    assert process.wait(15) == {"told": 0, "told twice": 143, "killed": -9}[how]
    until(lambda: not alive(child), 5)
    assert world.outputs() == []


# ---- async steps


def cancelled(world):
    return [line for line in world.done() if line.startswith("cancelled")]


def test_an_async_step_is_cancelled_when_the_grace_of_shutdown_ends(world):
    world.create("Waits")
    process = world.start("Waits", FARANDOLE_SHUTDOWN_GRACE="1s")
    one(world, 1, amount=600)
    until(world.done, why=world.log)
    process.terminate()
    assert process.wait(15) == 0
    assert world.done() == ["begun 1", "cancelled 1"]
    assert world.outputs() == []


def test_an_async_step_is_cancelled_when_its_partition_goes_and_the_new_owner_runs_it(world, monkeypatch):
    monkeypatch.setattr("farandole.worker.REVOKE_GRACE", 0.5)
    world.create("Waits")
    for n in range(8):
        one(world, n, amount=600, key=f"k{n}")
    first = world.run("Waits")
    done = world.module.done
    until(lambda: len(done) == 8)
    second = world.run("Waits")
    until(lambda: any(what == "cancelled" for what, _ in done), 60)

    def again():
        begun = Counter(n for what, n in done if what == "begun")
        return {n for n, times in begun.items() if times == 2}

    until(lambda: again() == {n for what, n in done if what == "cancelled"}, 30, lambda: done)
    first.worker.lost(list(first.worker.owned))
    until(lambda: len({n for what, n in done if what == "cancelled"}) == 8, 10)
    for service in (first, second):
        service.worker.grace = 0.1


def test_a_lost_partition_sets_the_flag_of_a_step_and_frees_its_slot(world):
    world.create("Heeding")
    one(world, 1)
    service = world.run("Heeding")
    done = world.module.done
    until(lambda: ("begun", 1) in done)
    service.worker.lost(list(service.worker.owned))
    until(lambda: ("told to stop", 1) in done)


# ---- what steps do to their service


def test_whatever_a_step_raises_is_its_events_failure_and_the_service_lives_on(world):
    world.create("Raises")
    process = world.start("Raises")
    kinds = ("error", "base", "exit", "interrupt", "memory", "depth", "type")
    for n, kind in enumerate(kinds, 1):
        one(world, n, kind=kind, key=kind)
        one(world, 100 + n, key=kind)
    until(lambda: len(world.letters("Raises")) == len(kinds), 40, world.log)
    until(lambda: world.outputs() == [2 * (100 + n) for n in range(1, len(kinds) + 1)], why=world.log)
    assert process.poll() is None
    classes = {dict(m.headers())["farandole-dlq-exception-class"].decode() for m in world.letters("Raises")}
    assert classes >= {"ZeroDivisionError", "BaseException", "SystemExit", "KeyboardInterrupt", "MemoryError"}
    assert "RecursionError" in classes
    assert len(classes) == len(kinds), "each has its own"
    world.wait_drained("Raises")


def test_c_code_that_keeps_the_interpreter_for_longer_than_a_session_causes_no_rebalance(world):
    world.create("Raises")
    world.quick_session("Raises")
    process = world.start("Raises")
    until(lambda: world.owns(process), why=world.log)
    one(world, 1, kind="gil")
    until(lambda: world.outputs() == [2], 40, world.log)
    one(world, 2)
    until(lambda: world.outputs() == [2, 4], 20, world.log)
    told = Counter(line["event"] for line in map(json.loads, world.log().splitlines()))
    assert set(told) == {"partitions.taken"}
    assert sum(len(line["partitions"]) for line in lines(world, "partitions.taken")) == 2 * world.partitions
    assert Counter(world.done())["gil 1"] == 1


def test_a_hundred_steps_that_never_return_end_the_service_and_the_next_one_goes_on(world):
    world.create("Hanging")
    world.send(range(70))
    assert world.start("Hanging").wait(60) == 1
    (line,) = lines(world, "service.overrun")
    assert "calls were given up and still go on, the last one of never_returns" in line["why"]
    assert len(lines(world, "step.abandoned")) >= 100
    world.quick_session("Hanging")
    world.start("Hanging")
    until(lambda: len(world.letters("Hanging")) == 70, 60, world.log)
    world.wait_drained("Hanging")


TERM_POINTS = {
    "Weighing": ("assign.after_fence", "assign.after_init", "assign.after_tail", "intake.polled", "step.running",
                 "step.done", "txn.begun", "txn.outputs_produced", "txn.ledger_produced", "txn.offsets_sent",
                 "txn.commit_sent", "txn.committed", "settle.before_commit", "settle.after_commit"),
    "Rows": ("sql.before_commit", "sql.commit_sent", "sql.committed"),
    "BusyCalls": ("hold.written", "claim.after", "step.claimed", "effect.acked", "checkpoint.committed", "outbox.committed"),
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("pipeline", TERM_POINTS)
def test_told_to_end_at_any_point_it_ends_in_order_and_nothing_is_lost_or_doubled(world, pipeline):
    world.partitions = 1
    world.create(pipeline)
    if pipeline == "Rows":
        engine = sa.create_engine(world.database)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE effect (n BIGINT)")
    amount, sent = 4 if pipeline == "BusyCalls" else 0, 0
    for point in TERM_POINTS[pipeline]:
        process = world.start(pipeline, FARANDOLE_TERM_AT=point)
        until(lambda process=process: world.owns(process) or process.poll() is not None, why=world.log)
        for _ in range(5):
            one(world, sent, amount=amount)
            sent += 1
        asked = time.monotonic()
        assert process.wait(35) == 0, (point, world.log()[-2000:])
        assert time.monotonic() - asked < 30, point
    world.start(pipeline)
    factor = 10 if pipeline == "Weighing" else 2
    until(
        lambda: world.outputs() == [factor * n for n in range(sent)], 60, lambda: (world.outputs(), world.log()[-999:])
    )
    assert len(world.runs(pipeline, "done")) == sent
    world.wait_drained(pipeline)
    if pipeline == "Rows":
        with engine.connect() as connection:
            assert sorted(r[0] for r in connection.exec_driver_sql("SELECT n FROM effect")) == list(range(sent))
        engine.dispose()
