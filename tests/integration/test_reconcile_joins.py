"""A member of a set that never came to its pipeline is sent again, once, goes into its set, and the set runs once."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.dlq_office import Office
from tests.integration.runtime_world import until
from tests.integration.test_dlq_redrive import mended
from tests.integration.test_reconcile import lose, sweep
from tests.integration.test_runtime_joins import ids_of, send_pairs, told_of_members


def swept(world, **limits):
    """What a sweep says of each side."""
    sides = {world.module.LEFT: "left", world.module.RIGHT: "right"}
    return {sides[row["topic"]]: row for row in sweep(world, "Pairs", **limits)}


def met(world):
    """How often each set was run."""
    return Counter(v["pair"] for v in world.values(world.module.PAIRED))


def balanced(row):
    return row["landed"] == sum(row[name] for name in ("done", "waiting", "filtered", "duplicate", "dead", "missed"))


def test_every_set_is_run_once_after_one_sweep_though_members_were_skipped_and_the_next_sends_nothing(world):
    world.create("Pairs")
    send_pairs(world, range(10))
    world.drain("Pairs")
    send_pairs(world, range(10, 60))
    skipped = {"left": 0, "right": 0}
    for side, partition, count in (("left", 0, 6), ("left", 1, 3), ("right", 0, 4)):  # of some sets both
        lose(world, "Pairs", partition, count, topic=getattr(world.module, side.upper()))
        skipped[side] += count
    service = world.run("Pairs")
    world.wait_drained("Pairs")
    assert 10 < len(met(world)) < 60, "the test has lost nothing"

    first = swept(world)

    assert {side: (row["landed"], row["missed"], row["reemitted"]) for side, row in first.items()} == {
        side: (60, count, count) for side, count in skipped.items()
    }
    assert first["right"]["waiting"] > 0
    assert all(map(balanced, first.values()))
    until(lambda: len(met(world)) == 60)
    until(lambda: all(row["done"] == 60 for row in swept(world).values()))
    world.wait_drained("Pairs")
    second = swept(world)
    service.stop()
    assert met(world) == Counter(f"p{n}" for n in range(60))
    for run in world.runs("Pairs", "done"):
        n = run["triggers"][0]["event_id"].rpartition("-")[2]
        assert ids_of(run) == {f"{world.name}-LEFT-{n}", f"{world.name}-RIGHT-{n}"}
    assert {side: (row["landed"], row["done"], row["missed"], row["pending"]) for side, row in second.items()} == {
        "left": (60, 60, 0, 0),
        "right": (60, 60, 0, 0),
    }
    assert len(world.records(world.declaration("Pairs").retry_topic)) == sum(skipped.values())
    assert {tuple(states) for states in told_of_members(world)} == {("waiting", "joined")}


def test_a_member_that_is_sent_again_waits_for_a_partner_that_comes_later_and_is_not_sent_once_more(world):
    world.partitions = 1
    world.create("Pairs")
    send_pairs(world, range(3))
    world.drain("Pairs")
    send_pairs(world, [3], sides=["LEFT"])
    lose(world, "Pairs", 0, 1, topic=world.module.LEFT)
    service = world.run("Pairs")
    assert swept(world)["left"]["reemitted"] == 1
    until(lambda: swept(world)["left"]["waiting"] == 1)
    row = swept(world)["left"]
    assert (row["landed"], row["done"], row["waiting"], row["missed"], row["reemitted"]) == (4, 3, 1, 0, 0)

    send_pairs(world, [3], sides=["RIGHT"])

    until(lambda: len(met(world)) == 4)
    world.wait_drained("Pairs")
    service.stop()
    (run,) = [r for r in world.runs("Pairs", "done") if f"{world.name}-LEFT-3" in ids_of(r)]
    assert {t["topic"] for t in run["triggers"]} == {world.module.LEFT, world.module.RIGHT}
    row = swept(world)["left"]
    assert (row["landed"], row["done"], row["waiting"], row["missed"]) == (4, 4, 0, 0)
    assert len(world.records(world.declaration("Pairs").retry_topic)) == 1


def test_a_copy_of_a_member_whose_set_has_run_or_of_one_that_waits_is_a_duplicate_and_not_sent(world):
    world.partitions = 1
    world.create("Pairs")
    send_pairs(world, range(3))
    send_pairs(world, [3], sides=["LEFT"])
    world.drain("Pairs")
    send_pairs(world, [1, 3], sides=["LEFT"])
    send_pairs(world, [2], sides=["RIGHT"])
    lose(world, "Pairs", 0, 2, topic=world.module.LEFT)
    lose(world, "Pairs", 0, 1, topic=world.module.RIGHT)

    told = swept(world)

    assert {side: (row["duplicate"], row["missed"], row["reemitted"]) for side, row in told.items()} == {
        "left": (2, 0, 0),
        "right": (1, 0, 0),
    }
    assert world.records(world.declaration("Pairs").retry_topic) == []


def test_sweeps_while_much_is_under_way_miss_nothing_and_send_nothing(world):
    world.create("Pairs")
    service = world.run("Pairs")
    send_pairs(world, range(10), times=2)
    until(lambda: len(met(world)) == 10)

    def send():
        for n in range(10, 300, 5):
            send_pairs(world, range(n, n + 5), times=2, seed=n)
            time.sleep(0.1)

    rows, end = list(swept(world).values()), time.monotonic() + 150
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(send)
        while not sending.done() or min(row["done"] for row in rows[-2:]) < 300:
            assert time.monotonic() < end, rows[-2:]
            rows += swept(world).values()
        sending.result()
    assert len({row["done"] for row in rows if row["done"] < 300}) > 1, "nothing was under way"
    world.wait_drained("Pairs", 90)
    rows += swept(world).values()
    service.stop()
    assert {(row["missed"], row["reemitted"], row["dead"]) for row in rows} == {(0, 0, 0)}
    assert all(map(balanced, rows))
    assert [(row["landed"], row["done"], row["duplicate"]) for row in rows[-2:]] == [(600, 300, 300)] * 2
    assert world.records(world.declaration("Pairs").retry_topic) == []


def sent_again(world, *, waits):
    """One set was run; of the next one a half was lost and stands in the retry topic; the other waits, or is to come."""
    world.partitions = 1
    world.create("Pairs")
    world.quick_session("Pairs")
    send_pairs(world, [0])
    world.drain("Pairs")
    send_pairs(world, [1], sides=["LEFT"])
    lose(world, "Pairs", 0, 1, topic=world.module.LEFT)
    if not waits:
        send_pairs(world, [1], sides=["RIGHT"])
        world.drain("Pairs")
    assert swept(world)["left"]["reemitted"] == 1


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "completes its set"])
@pytest.mark.parametrize("point", ["txn.begun", "txn.committed", "settle.before_commit", "settle.after_commit"])
def test_a_member_that_was_sent_again_is_told_once_though_the_process_dies_with_it_in_hand(world, point, waits):
    sent_again(world, waits=waits)

    dying = world.start("Pairs", FARANDOLE_KILL_AT=point)
    assert dying.wait(60) == -9
    send_pairs(world, [1], sides=["RIGHT"])  # told again where it has come already
    world.start("Pairs")

    until(lambda: met(world)["p1"], 60, world.log)
    world.wait_drained("Pairs", 60)
    assert met(world) == Counter(["p0", "p1"])
    assert told_of_members(world) == [["waiting", "joined"]] * 2
    assert world.facts("Pairs") == {}, "something was not proven"
    assert [(row["done"], row["missed"]) for row in swept(world).values()] == [(2, 0), (2, 0)]


def test_a_member_that_was_sent_again_waits_on_where_the_tables_are_lost(world):
    sent_again(world, waits=True)
    service = world.run("Pairs")
    until(lambda: swept(world)["left"]["waiting"] == 1)
    service.stop()
    for file in world.folder.glob("books.db*"):
        file.unlink()

    send_pairs(world, [1], sides=["RIGHT"])
    world.drain("Pairs")

    assert met(world) == Counter(["p0", "p1"])
    (run,) = [r for r in world.runs("Pairs", "done") if f"{world.name}-LEFT-1" in ids_of(r)]
    assert {t["topic"] for t in run["triggers"]} == {world.module.LEFT, world.module.RIGHT}
    assert [(row["done"], row["missed"]) for row in swept(world).values()] == [(2, 0), (2, 0)]


def test_a_member_that_was_sent_again_and_waits_in_vain_is_a_letter_as_it_stood_on_its_topic(world, monkeypatch):
    monkeypatch.setattr("farandole.upkeep.EXPIRY", 0.2)
    world.module = world.load(RUNTIME_WITHIN="1s")
    sent_again(world, waits=True)
    service = world.run("Pairs")
    (letter,) = until(lambda: world.letters("Pairs"))
    until(lambda: swept(world)["left"]["dead"] == 1)
    service.stop()
    told = dict(letter.headers())
    assert (told["farandole-dlq-reason"], told["__dlq.errors.topic"]) == (b"join.expired", world.module.LEFT.encode())
    assert not [name for name in told if name.startswith("farandole-retry")]
    row = swept(world)["left"]
    assert (row["landed"], row["done"], row["dead"], row["missed"]) == (2, 1, 1, 0)


def test_a_set_completed_by_a_member_that_was_sent_again_fails_and_goes_back_whole(world):
    world.partitions = 1
    world.create("Meeting")
    send_pairs(world, [0], sides=["RIGHT"])
    send_pairs(world, [1], sides=["LEFT"])
    world.drain("Meeting")
    send_pairs(world, [0], sides=["LEFT"])
    lose(world, "Meeting", 0, 1, topic=world.module.LEFT)
    assert [row["reemitted"] for row in sweep(world, "Meeting")] == [1, 0]
    service = world.run("Meeting")
    until(lambda: [row["dead"] for row in sweep(world, "Meeting")] == [1, 1])
    service.stop()

    mended(world)
    service = world.run("Meeting")
    Office(world).ask("redrive", "--pipeline", world.group("Meeting"), "--yes")

    until(lambda: [v["pair"] for v in world.values(world.module.PAIRED)] == ["p0"])
    until(lambda: [(row["done"], row["missed"]) for row in sweep(world, "Meeting")] == [(1, 0), (1, 0)])
    service.stop()
