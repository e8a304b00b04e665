"""Kill points: exactly there, exactly the nth time, and nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

CODE = """
from farandole.points import point
for n in range(5):
    point("txn.begun")
    print(n, flush=True)
    point("txn.committed", after=0)
"""


def process(**environment):
    return subprocess.Popen(
        [sys.executable, "-c", CODE], env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize(
    ("armed", "passed"), [("txn.begun", b""), ("txn.begun:3", b"0\n1\n"), ("txn.committed", b"0\n"), ("txn.committed:2", b"0\n1\n")]
)  # fmt: skip
def test_a_process_dies_at_its_point_the_nth_time_it_gets_there(armed, passed):
    dying = process(FARANDOLE_KILL_AT=armed)
    out, _ = dying.communicate(timeout=30)
    assert (dying.returncode, out) == (-signal.SIGKILL, passed)


def test_an_unarmed_process_passes_all_of_them():
    passing = process()
    out, _ = passing.communicate(timeout=30)
    assert (passing.returncode, out) == (0, b"0\n1\n2\n3\n4\n")


def test_a_stopped_process_goes_on_when_it_is_woken():
    zombie = process(FARANDOLE_STOP_AT="txn.begun:2")
    assert os.waitid(os.P_PID, zombie.pid, os.WSTOPPED | os.WNOWAIT).si_status == signal.SIGSTOP
    zombie.send_signal(signal.SIGCONT)
    out, _ = zombie.communicate(timeout=30)
    assert (zombie.returncode, out) == (0, b"0\n1\n2\n3\n4\n")


def test_a_point_that_is_not_there_is_refused_with_those_that_are():
    mistaken = process(FARANDOLE_KILL_AT="txn.began")
    _, told = mistaken.communicate(timeout=30)
    assert mistaken.returncode == 1
    assert b"there is no kill point 'txn.began'" in told
    assert b"assign.after_init" in told
