"""Slots, and order per record key, with threads that really run."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from farandole.clock import ManualClock, SystemClock
from farandole.lanes import PATIENCE, Lanes
from farandole.run import Run, RunState


def run_of(n, key=b""):
    return Run(f"run-{n}", b"%d" % n, key, ())


def drain(lanes, count, timeout=10.0):
    over, end = [], time.monotonic() + timeout
    while len(over) < count and time.monotonic() < end:
        lanes.wait(0.05)
        over += lanes.ended()
    assert len(over) == count
    return over


def done(run):
    run.state = RunState.DONE


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([b"a", b"b", b"c", b""]), max_size=60), st.integers(1, 6))
def test_runs_of_one_record_key_go_one_after_the_other_in_their_order(keys, slots):
    begun, under_way, lock = defaultdict(list), defaultdict(int), threading.Lock()
    together = []

    def work(run):
        with lock:
            begun[run.okey].append(run.id)
            under_way[run.okey] += 1
            together.append(under_way[run.okey])
        time.sleep(0.0005)
        with lock:
            under_way[run.okey] -= 1
        run.state = RunState.DONE

    lanes = Lanes(work, slots, SystemClock())
    runs = [run_of(n, key) for n, key in enumerate(keys)]
    lanes.admit(runs)
    drain(lanes, len(runs))
    lanes.close()
    for key in set(keys) - {b""}:
        assert begun[key] == [r.id for r in runs if r.okey == key]
    assert lanes.running == 0
    if b"" not in keys:
        assert max(together, default=1) == 1


def test_different_keys_run_side_by_side():
    both = threading.Barrier(2, timeout=5)

    def work(run):
        both.wait()
        run.state = RunState.DONE

    lanes = Lanes(work, 2, SystemClock())
    lanes.admit([run_of(1, b"a"), run_of(2, b"b")])
    drain(lanes, 2)
    lanes.close()


def test_without_order_runs_of_one_key_run_side_by_side_too():
    both = threading.Barrier(2, timeout=5)

    def work(run):
        both.wait()
        run.state = RunState.DONE

    lanes = Lanes(work, 2, SystemClock(), ordered=False)
    lanes.admit([run_of(1, b"a"), run_of(2, b"a")])
    drain(lanes, 2)
    lanes.close()


def test_a_run_that_is_to_be_tried_again_waits_for_its_time_and_keeps_its_followers_behind_it():
    clock, order = ManualClock(), []

    def work(run):
        order.append(run.id)
        first = run.id == "run-1" and order.count("run-1") == 1
        run.state, run.due = (RunState.AGAIN, 60.0) if first else (RunState.DONE, 0.0)

    lanes = Lanes(work, 1, clock)
    lanes.admit([run_of(1, b"a"), run_of(2, b"a"), run_of(3, b"b")])
    assert [r.id for r in drain(lanes, 1)] == ["run-3"]
    assert lanes.ended() == []
    assert lanes.running == 2
    clock.advance(60)
    assert [r.id for r in drain(lanes, 2)] == ["run-1", "run-2"]
    assert order == ["run-1", "run-3", "run-1", "run-2"]
    lanes.close()


def test_a_wait_ends_as_soon_as_something_has_ended():
    lanes = Lanes(done, 1, SystemClock())
    lanes.admit([run_of(1)])
    before = time.monotonic()
    lanes.wait(30)
    assert time.monotonic() - before < 10
    lanes.close()


def test_held_runs_wait_in_their_order_and_what_is_under_way_ends():
    begun, go_on = [], threading.Event()

    def work(run):
        begun.append(run.id)
        go_on.wait(5)
        done(run)

    lanes = Lanes(work, 1, SystemClock())
    lanes.admit([run_of(n) for n in range(3)])
    while not begun:
        time.sleep(0.001)
    lanes.hold()
    go_on.set()
    assert [r.id for r in drain(lanes, 1)] == ["run-0"]
    lanes.wait(0.05)
    assert (begun, lanes.running) == (["run-0"], 2)
    lanes.go()
    assert [r.id for r in drain(lanes, 2)] == ["run-1", "run-2"]
    lanes.close()


def test_a_slot_whose_run_is_given_up_and_does_not_end_is_replaced_and_its_record_key_goes_on():
    clock, go_on, told = ManualClock(), threading.Event(), []

    def work(run: Run) -> None:
        told.append(run.id)
        if run.id == "run-0":
            go_on.wait(30)
        run.state = RunState.DONE

    lanes = Lanes(work, 1, clock)
    lanes.abandon = lambda run: told.append(f"{run.id} is abandoned") or (lambda: told.append("it ends after all"))
    stuck, behind = run_of(0, b"k"), run_of(1, b"k")
    lanes.admit([stuck, behind])
    ended: list[str] = []

    def wait_for(what):
        end = time.monotonic() + 20
        while not what():
            ended.extend(r.id for r in lanes.ended())
            assert time.monotonic() < end, (told, ended)
            time.sleep(0.001)

    wait_for(lambda: told == ["run-0"])
    stuck.give_up()
    clock.advance(60)
    assert lanes.ended() == []  # its time begins when it is first seen
    clock.advance(PATIENCE)
    wait_for(lambda: ended == ["run-0", "run-1"])
    assert told == ["run-0", "run-0 is abandoned", "run-1"]
    assert stuck.skipped
    assert lanes.running == 0
    go_on.set()
    wait_for(lambda: told[-1] == "it ends after all")
    assert ended == ["run-0", "run-1"]
    lanes.close()
