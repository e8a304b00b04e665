"""A service whose polling thread stands still ends itself; one that works long does not."""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import count

from farandole import watchdog
from farandole.watchdog import Watchdog, limit_of


def watched(polls, stopping=None, limit=0.2, grace=0.2, wait=1.0):
    """What it said, and whether it ended the process within `wait` seconds."""
    said, ended = [], threading.Event()
    stopping = stopping or threading.Event()
    dog = Watchdog(polls, limit, grace, stopping, lambda event, **fields: said.append((event, fields)), ended.set)
    with dog:
        over = ended.wait(wait)
    return over, said


def test_no_poll_within_the_limit_ends_the_process_and_says_why(capfd):
    over, said = watched(lambda: 7)
    assert over
    assert said[0][0] == "service.hangs"
    assert said[0][1]["why"].startswith("its polling thread stands still: no poll in 0.2 s")
    assert "sooner" in said[0][1]["hint"]
    err = capfd.readouterr().err
    assert "Current thread" in err
    assert "test_no_poll_within_the_limit" in err, "the stacks of the other threads are there too"


def test_a_service_that_polls_is_left_alone():
    polls = count()
    over, said = watched(lambda: next(polls))
    assert (over, said) == (False, [])


def test_a_single_poll_within_the_limit_is_enough():
    looks = count()
    over, _ = watched(lambda: next(looks) // (watchdog.LOOKS - 1))
    assert not over


def test_a_service_told_to_end_need_not_poll_but_must_end(monkeypatch):
    monkeypatch.setattr(watchdog, "LAST_COMMITS", 0.2)
    stopping = threading.Event()
    stopping.set()
    polls = count()
    over, said = watched(lambda: next(polls), stopping)
    assert over
    assert said[0][1]["why"].startswith("told to end, it did not in 0.4 s")


def test_it_sleeps_through_the_grace_of_an_orderly_end():
    stopping = threading.Event()
    stopping.set()
    assert watched(lambda: 7, stopping, grace=30.0) == (False, [])


def test_the_limit_is_twice_the_clients_interval():
    assert limit_of({}) == 600.0
    assert limit_of({"max.poll.interval.ms": "10000"}) == 20.0


HELD = """
import ctypes, threading
from farandole.watchdog import Watchdog
with Watchdog(lambda: 7, 0.2, 0.2, threading.Event(), print):
    threading.Event().wait(0.1)
    ctypes.PyDLL(None).sleep(30)  # keeps the interpreter's lock
"""


def test_a_process_whose_interpreter_is_held_by_c_code_ends_too():
    held = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, timeout=20, check=False)
    assert held.returncode == 1
    assert "Timeout" in held.stderr
