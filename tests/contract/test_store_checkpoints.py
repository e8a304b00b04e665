"""Checkpoints: a step that has given its result is not asked again, and a zombie gives none."""

from __future__ import annotations

import pytest

from farandole.errors import Fenced
from farandole.store import Checkpoint
from tests.contract.store_values import own, settlement


def test_a_kept_result_is_loaded_for_its_run(store):
    lane = own(store)
    store.checkpoints.keep(lane, "run-1", "stage", b"result")
    store.checkpoints.keep(lane, "run-2", "stage", b"other")

    loaded = store.checkpoints.load(["run-1", "run-3"])

    assert loaded == {"run-1": [Checkpoint("stage", "", "done", b"result", lane.fence, 0)]}


def test_the_first_result_of_a_step_stays(store):
    lane = own(store)
    for result in (b"first", b"second"):
        store.checkpoints.keep(lane, "run-1", "stage", result)

    assert [one.result for one in store.checkpoints.load(["run-1"])["run-1"]] == [b"first"]


def test_branches_of_a_step_have_a_result_each(store):
    lane = own(store)
    for branch in ("flights", "weather"):
        store.checkpoints.keep(lane, "run-1", "stage", branch.encode(), branch)

    assert {one.branch: one.result for one in store.checkpoints.load(["run-1"])["run-1"]} == {
        "flights": b"flights",
        "weather": b"weather",
    }


def test_a_started_effect_leaves_its_doubt(store):
    lane = own(store)
    store.checkpoints.started(lane, "run-1", "send", 1)
    store.checkpoints.started(lane, "run-1", "send", 2)

    assert store.checkpoints.load(["run-1"])["run-1"] == [Checkpoint("send", "", "started", None, lane.fence, 2)]


def test_an_effect_that_is_done_keeps_its_result_and_is_not_started_again(store):
    lane = own(store)
    store.checkpoints.started(lane, "run-1", "send", 1)
    store.checkpoints.done(lane, "run-1", "send", b"201")

    with pytest.raises(Fenced):
        store.checkpoints.started(lane, "run-1", "send", 2)

    assert store.checkpoints.load(["run-1"])["run-1"] == [Checkpoint("send", "", "done", b"201", lane.fence, 1)]


def test_an_effect_that_was_not_started_cannot_be_done(store):
    with pytest.raises(Fenced, match="send"):
        store.checkpoints.done(own(store), "run-1", "send", b"201")


def test_a_zombie_neither_starts_nor_ends_an_effect(store):
    old = own(store, owner="a")
    store.checkpoints.started(old, "run-1", "send", 1)
    lane = own(store, owner="b")

    for late in (
        lambda: store.checkpoints.done(old, "run-1", "send", b"late"),
        lambda: store.checkpoints.started(old, "run-1", "send", 2),
        lambda: store.checkpoints.keep(old, "run-1", "stage", b"late"),
    ):
        with pytest.raises(Fenced):
            late()
    store.checkpoints.started(lane, "run-1", "send", 2)
    store.checkpoints.done(lane, "run-1", "send", b"201")

    assert store.checkpoints.load(["run-1"])["run-1"] == [Checkpoint("send", "", "done", b"201", lane.fence, 2)]


def test_a_successor_on_another_partition_with_a_lower_fence_goes_on(store):
    for owner in "abc":
        old = own(store, 0, owner)
    store.checkpoints.started(old, "run-1", "send", 1)
    lane = own(store, 1)
    own(store, 0, "d")

    store.checkpoints.started(lane, "run-1", "send", 2)
    store.checkpoints.done(lane, "run-1", "send", b"201")

    assert store.checkpoints.load(["run-1"])["run-1"][0].state == "done"


def test_a_settled_run_leaves_no_checkpoints(store):
    lane = own(store)
    for run in ("run-1", "run-2"):
        store.checkpoints.keep(lane, run, "stage", b"result")

    store.inbox.settle([settlement(lane, finished=["run-1"])])

    assert set(store.checkpoints.load(["run-1", "run-2"])) == {"run-2"}
