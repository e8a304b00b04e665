"""Copies of a key on two partitions of one instance: the record that has the claim starts the run, and no other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from farandole.clock import ManualClock
from farandole.event import RawRecord
from farandole.intake import Intake
from farandole.owned import RUNNING, Owned
from farandole.reading import Reading
from tests.contract.store_values import TOPIC, TOPIC_ID, claim, digest, key, own


def intake(store) -> Intake:
    declaration = SimpleNamespace(name="p", join=None, ordering="none", on_conflict="dead")
    books = SimpleNamespace(declaration=declaration)
    reader, matcher, parking = SimpleNamespace(epoch=0), SimpleNamespace(declaration=declaration), SimpleNamespace()
    return Intake(
        reader, matcher, None, books, store, ManualClock(), {}, lambda *_, **__: None,
        claiming=True, resumable=False, parking=parking, protection=None,
    )  # fmt: skip


def owned(store, partition: int) -> Owned:
    one = Owned(TOPIC, partition, 1, phase=RUNNING)
    one.lane = own(store, partition)
    return one


def reading(one: Owned, offset: int, name: str) -> Reading:
    raw = RawRecord(TOPIC, TOPIC_ID, one.partition, offset, 0, None, b"v", [])
    signal = SimpleNamespace(key=key(name), digest=digest(), raw=raw, via="")
    return Reading(one, raw, offset, key=key(name), at=(0, key(name)), signal=signal)


def in_turn(intake: Intake, batch: list[Reading]) -> None:
    known = intake._known(batch)
    for each in batch:
        intake._admit(each, known)


@pytest.mark.parametrize("left_by_an_earlier_batch", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0), (0, 2, 1)])
def test_of_copies_on_two_partitions_in_one_batch_the_one_that_was_claimed_runs(store, order, left_by_an_earlier_batch):
    left, right, way = owned(store, 0), owned(store, 1), intake(store)
    if left_by_an_earlier_batch:
        store.inbox.claim(left.lane, [claim("copied", 2)])
    batch = [reading(left, 1, "other"), reading(right, 5, "copied"), reading(left, 2, "copied")]
    in_turn(way, [batch[at] for at in order])
    runs = {run.key: run for run in way._started()}
    in_turn(way, [way.blocked.pop() for _ in range(len(way.blocked))])
    assert set(runs) == {key("other"), key("copied")}
    run = runs[key("copied")]
    assert [copy.offset for copy in run.copies] == [{2: 5, 5: 2}[run.cause.raw.offset]]
    with store.transaction() as connection:
        asked = claim("copied", run.cause.raw.offset)
        assert store.inbox.lock_claim(connection, run.home.lane, asked) is None, "its own claim holds it up"
