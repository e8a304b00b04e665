"""The demo, as a person calls it: one day of real data, a kill in the middle, a verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "farandole", "demo", "--days", "1"]


@pytest.fixture(scope="module")
def environment(stack, tmp_path_factory):
    """These servers, and a state folder of its own."""
    return {
        **os.environ,
        **stack.environment(),
        "FARANDOLE_STACK": "external",
        "FARANDOLE_STATE": str(tmp_path_factory.mktemp("demo") / ".farandole"),  # hidden, as it is by default
    }


def demo(environment, *options):
    done = subprocess.run(
        [*COMMAND, *options, "-o", "json"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def first(environment):
    return demo(environment)


def test_a_day_of_flights_comes_to_the_direct_join_although_told_twice_and_killed(first):
    report, said = first

    assert report["differences"] == []
    assert report["runs"] == {"relationalize": 72, "merge": 73, "mart-delays": 24}
    assert (report["files"], report["duplicates"]) == (72, 72)
    assert report["mart_rows"] == report["tables"]["flights"] == 709
    assert report["killed"].startswith("merge, after ")
    assert "killed with SIGKILL" in said


def test_a_second_time_everything_is_absorbed_and_nothing_runs_again(environment, first):
    report, _ = demo(environment)

    assert report["again"] is True
    assert report["runs"] == {"relationalize": 0, "merge": 0, "mart-delays": 0}
    assert report["duplicates"] == 2 * 72
    assert report["differences"] == []


@pytest.fixture(scope="module")
def interrupted(environment, first, tmp_path_factory):
    """A demo on another lake, ended by Ctrl-C while it merged: its process group and exit code."""
    lake = {"FARANDOLE_LAKE": str(tmp_path_factory.mktemp("interrupted") / "lake")}
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env={**environment, **lake}, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stderr is not None
        next(line for line in running.stderr if "merge" in line and "merge 0/" not in line)
        os.killpg(running.pid, signal.SIGINT)
        running.stderr.read()
        return running.pid, running.wait(40)


def test_ctrl_c_in_the_middle_leaves_no_service_behind(interrupted):
    group, code = interrupted

    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert code == 130


def test_a_new_lake_is_refused_while_another_has_something_left_to_do(environment, interrupted, tmp_path):
    done = subprocess.run(
        COMMAND,
        cwd=ROOT, env={**environment, "FARANDOLE_LAKE": str(tmp_path / "new")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "something left to do for another lake" in done.stderr
    assert "FARANDOLE_LAKE" in done.stderr
