"""Two signals make one run: once per complete set, whoever saw its last event, and never in silence otherwise."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict

import pytest

from farandole.errors import BrokerUnreachable
from farandole.kafka.sink import Session
from farandole.store import open_store
from tests.integration.runtime_world import until


def send_pairs(world, pairs, *, times=1, seed=1, sides=("LEFT", "RIGHT")):
    told = [(side, n) for n in pairs for side in sides] * times
    random.Random(seed).shuffle(told)
    for side, n in told:
        topic = getattr(world.module, side)
        value = world.frame(topic, {"pair": f"p{n}", "n": n})
        world.put(topic, value, f"p{n}", world.headers(f"{side}-{n}"))
    world.flush()


def ids_of(run):
    return {t["event_id"] for t in run["triggers"]}


def told_of_members(world):
    """What the ledger says of each event that had to wait for another, in its order."""
    told = defaultdict(list)
    for entry in world.entries("Pairs"):
        if entry["state"] in ("waiting", "joined"):
            told[entry["id"]].append(entry["state"])
    return list(told.values())


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_set_is_run_after_the_ledger_has_its_first_event_as_waiting_though_that_cannot_be_committed_for_long(
    world, stack, database, monkeypatch
):
    if database == "postgresql":
        world.database = stack.postgres_url()
    publish, away = Session.publish, threading.Event()

    def at_times(session, records, commit, *rest):
        if away.is_set() and records and commit and commit.topic == world.module.LEFT:
            raise BrokerUnreachable("no answer", place="test")
        publish(session, records, commit, *rest)

    monkeypatch.setattr(Session, "publish", at_times)
    world.create("Pairs")
    service = world.run("Pairs")
    away.set()
    send_pairs(world, [1], sides=["LEFT"])
    until(service.worker.store.waiting.waiting)
    send_pairs(world, [1, 2], sides=["RIGHT"])
    end = time.monotonic() + 2
    until(lambda: time.monotonic() > end or world.records(world.module.PAIRED))

    away.clear()
    world.wait_drained("Pairs")

    assert [v["pair"] for v in world.values(world.module.PAIRED)] == ["p1"]
    assert sorted(told_of_members(world)) == [["waiting"], ["waiting", "joined"]]
    assert until(lambda: [s.signals for s in service.worker.store.waiting.waiting()]) == [("right",)]


def begin(world):
    """One set, so that what a pipeline tells when it begins is told."""
    world.create("Pairs")
    world.quick_session("Pairs")
    send_pairs(world, [0])
    world.drain("Pairs")
    assert told_of_members(world) == [["waiting", "joined"]]


@pytest.mark.parametrize("point", ["txn.begun", "txn.committed", "settle.before_commit", "settle.after_commit"])
def test_a_set_is_run_once_and_its_first_event_told_once_though_the_process_dies_in_telling_it(world, point):
    world.partitions = 1
    begin(world)
    dying = world.start("Pairs", FARANDOLE_KILL_AT=point)
    send_pairs(world, [1], sides=["LEFT"])
    assert dying.wait(60) == -9
    assert len(world.runs("Pairs", "waiting")) == (point != "txn.begun")

    send_pairs(world, [1], times=2)
    world.start("Pairs")

    until(lambda: len(world.runs("Pairs", "done")) == 2, 60, world.log)
    world.wait_drained("Pairs")
    assert [v["pair"] for v in world.values(world.module.PAIRED)] == ["p0", "p1"]
    assert told_of_members(world) == [["waiting", "joined"]] * 2


def test_a_successor_learns_from_the_ledger_that_an_event_behind_an_open_one_waits(world):
    """Its offset could not pass, SQL was not told, and what would complete its set is held until it is."""
    world.partitions = 1
    begin(world)
    world.hold.touch()
    dying = world.start("Pairs", RUNTIME_SLOW="p1", FARANDOLE_KILL_AT="settle.before_commit:2")
    send_pairs(world, [1], sides=["RIGHT"])
    until(lambda: world.runs("Pairs", "waiting"), 60, world.log)
    send_pairs(world, [1], sides=["LEFT"])  # completes a set whose run takes long
    send_pairs(world, [2], sides=["LEFT"])  # waits behind it
    assert dying.wait(60) == -9
    assert len(world.runs("Pairs", "waiting")) == 2

    send_pairs(world, [2], sides=["RIGHT"])
    world.start("Pairs", RUNTIME_SLOW="p1")

    until(lambda: [v["pair"] for v in world.values(world.module.PAIRED)] == ["p0", "p2"], 60, world.log)
    world.hold.unlink()
    world.wait_drained("Pairs")
    assert sorted(v["pair"] for v in world.values(world.module.PAIRED)) == ["p0", "p1", "p2"]
    assert told_of_members(world) == [["waiting", "joined"]] * 3


@pytest.mark.parametrize(("database", "kills"), [("sqlite", 5), ("postgresql", 2)])
def test_each_complete_set_is_one_run_with_all_its_events_though_an_instance_is_killed_again_and_again(
    world, stack, database, kills
):
    if database == "postgresql":
        world.database = stack.postgres_url()
    world.create("Pairs")
    world.quick_session("Pairs")
    mortal, _ = world.start("Pairs"), world.start("Pairs")
    for kill in range(kills):
        until(lambda process=mortal: world.owns(process), 60, world.log)
        send_pairs(world, range(kill * 20, kill * 20 + 20), times=3, seed=kill)
        until(lambda before=kill * 20: len(world.records(world.module.PAIRED)) > before, 60, world.log)
        mortal.kill()
        mortal.wait()
        mortal = world.start("Pairs")
    world.wait_drained("Pairs", 60)
    met = Counter(v["pair"] for v in world.values(world.module.PAIRED))
    assert met == Counter(f"p{n}" for n in range(20 * kills))
    ids = Counter(dict(m.headers())["ce_id"] for m in world.records(world.module.PAIRED))
    assert max(ids.values()) == 1
    runs = world.runs("Pairs", "done")
    assert len(runs) == 20 * kills
    for run in runs:
        n = run["triggers"][0]["event_id"].rpartition("-")[2]
        assert ids_of(run) == {f"{world.name}-LEFT-{n}", f"{world.name}-RIGHT-{n}"}
    assert world.runs("Pairs", "waiting") == []
    assert world.why("Pairs") == []


def test_an_event_whose_partner_is_missing_waits_and_says_for_what(world):
    world.create("Pairs")
    send_pairs(world, [1, 2])
    send_pairs(world, [3], sides=["LEFT"])
    world.drain("Pairs")
    [waiting] = world.runs("Pairs", "waiting")
    assert ids_of(waiting) == {f"{world.name}-LEFT-3"}
    assert waiting["detail"] == {"missing": "right"}
    store = open_store(world.database, world.group("Pairs"))
    assert [(s.state, s.signals) for s in store.waiting.waiting()] == [("open", ("left",))]
    store.close()


def test_a_set_is_completed_by_another_instance_after_the_first_has_gone(world):
    world.create("Pairs")
    send_pairs(world, range(10), sides=["LEFT"])
    world.drain("Pairs")
    send_pairs(world, range(10), sides=["RIGHT"])
    world.drain("Pairs")
    assert len(world.runs("Pairs", "done")) == 10
    assert world.runs("Pairs", "waiting") == []
    assert sorted(v["n"] for v in world.values(world.module.PAIRED)) == [2 * n for n in range(10)]


def test_events_of_a_join_that_waited_too_long_are_letters_whole_and_count_as_dead(world):
    world.create("Pairs")
    world.module = world.load(RUNTIME_WITHIN="2s")
    send_pairs(world, [1], sides=["LEFT"])
    send_pairs(world, [2], sides=["RIGHT"])
    service = world.run("Pairs")
    letters = until(lambda: found if len(found := world.letters("Pairs")) == 2 else None)
    until(lambda: len(world.runs("Pairs", "dead")) == 2)
    send_pairs(world, [1], sides=["LEFT"])  # told again, too late
    world.wait_drained("Pairs")
    until(lambda: not service.worker.store.waiting.waiting())
    service.stop()
    by_side = {m.key(): dict(m.headers()) for m in letters}
    assert {h["farandole-dlq-reason"] for h in by_side.values()} == {b"join.expired"}
    assert {h["farandole-dlq-stage"] for h in by_side.values()} == {b"join"}
    assert b"right did not come within 2 s" in by_side[b"p1"]["__dlq.errors.message"]
    assert b"left did not come within 2 s" in by_side[b"p2"]["__dlq.errors.message"]
    assert by_side[b"p1"]["ce_id"].decode() == f"{world.name}-LEFT-1"
    assert {m.value() for m in letters} == {
        m.value() for side in ("LEFT", "RIGHT") for m in world.records(getattr(world.module, side))
    }
    assert [r["state"] for r in world.runs("Pairs")] == ["dead", "dead"]  # in the place of the entry that says waiting
    assert len(world.letters("Pairs")) == 2
    assert world.records(world.module.PAIRED) == []


def test_a_late_partner_waits_for_a_set_of_its_own(world):
    world.create("Pairs")
    world.module = world.load(RUNTIME_WITHIN="1s")
    send_pairs(world, [1], sides=["LEFT"])
    service = world.run("Pairs")
    until(lambda: len(world.letters("Pairs")) == 1)
    send_pairs(world, [1], sides=["RIGHT"])
    until(lambda: len(world.letters("Pairs")) == 2)
    until(lambda: not service.worker.store.waiting.waiting())
    service.stop()
    assert world.records(world.module.PAIRED) == []
    assert sorted(r["state"] for r in world.runs("Pairs")) == ["dead", "dead"]


@pytest.mark.parametrize("point", ["txn.begun:2", "settle.before_commit:2"])
def test_an_expiry_is_told_once_though_the_process_dies_in_it(world, point):
    world.partitions = 1
    begin(world)
    send_pairs(world, [1], sides=["LEFT"])
    dying = world.start("Pairs", RUNTIME_WITHIN="1s", FARANDOLE_KILL_AT=point)
    assert dying.wait(60) == -9
    assert sorted(told_of_members(world)) == [["waiting"], ["waiting", "joined"]]
    world.start("Pairs", RUNTIME_WITHIN="1s")
    until(lambda: world.runs("Pairs", "dead"), 60, world.log)
    send_pairs(world, [2])
    until(lambda: len(world.values(world.module.PAIRED)) == 2, 30, world.log)
    assert len(world.letters("Pairs")) == 1
    assert len(world.runs("Pairs", "dead")) == 1


@pytest.mark.soak
def test_the_others_of_a_set_whose_last_event_kills_the_process_wait_on_and_expire(world):
    """Four deaths until it is set aside; its partner must not stand in a set that nobody will ever run."""
    world.partitions = 1
    world.create("Pairs")
    world.quick_session("Pairs")
    send_pairs(world, [1], sides=["LEFT"])
    process = world.start("Pairs", RUNTIME_DEADLY="p1", RUNTIME_WITHIN="60s")
    until(lambda: world.runs("Pairs", "waiting"))
    send_pairs(world, [1], sides=["RIGHT"])
    deaths = 0
    while not world.letters("Pairs"):
        if process.poll() is not None:
            assert process.returncode == -9
            deaths, process = deaths + 1, world.start("Pairs", RUNTIME_DEADLY="p1", RUNTIME_WITHIN="60s")
        assert deaths <= 4
        time.sleep(0.2)
    until(lambda: len(world.letters("Pairs")) == 2, 90, world.log)
    assert sorted(dict(m.headers())["farandole-dlq-reason"] for m in world.letters("Pairs")) == [
        b"decode.killed-process", b"join.expired",
    ]  # fmt: skip
    assert world.runs("Pairs", "waiting") == []
