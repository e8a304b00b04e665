"""Facts on their way into the ledger: each is written with one partition's transaction, or with another's."""

from __future__ import annotations

from types import SimpleNamespace

from farandole.clock import ManualClock
from farandole.declaration import Declaration
from farandole.linestop import Facts
from farandole.outcome import Books
from farandole.owned import GONE, RUNNING, TAKING, Owned


def facts():
    books = Books(
        Declaration("p", "", "now", (), ()),
        lambda _, record: repr(record["id"]).encode(),
        ManualClock(),
        0,
        1,
        1,
        "1",
        "i",
    )
    return Facts(books)


def owned(partition, phase=RUNNING):
    return Owned("t", partition, 1, phase=phase, session=SimpleNamespace())


def test_a_fact_goes_with_the_next_transaction_of_a_partition_that_runs():
    one, two, told = owned(0, TAKING), owned(1), facts()
    told.add("breaker.opened", "api@5", {})
    told.write([one, two])
    told.write([one, two])
    assert (len(one.ended), len(two.ended)) == (0, 1)
    assert b"fact:p:breaker.opened:api@5" in two.ended[0].records[0].value


def test_a_fact_waits_for_a_partition():
    one, told = owned(0, TAKING), facts()
    told.add("breaker.opened", "api@5", {})
    told.write([one])
    one.phase = RUNNING
    told.write([one])
    assert len(one.ended) == 1


def test_a_fact_whose_partition_went_before_its_transaction_goes_with_another():
    one, two, told = owned(0), owned(1), facts()
    told.add("breaker.opened", "api@5", {})
    told.write([one])
    one.phase = GONE
    told.write([two])
    assert len(two.ended) == 1


def test_a_fact_that_was_committed_is_not_written_again():
    one, two, told = owned(0), owned(1), facts()
    told.add("breaker.opened", "api@5", {})
    told.write([one])
    one.commits += 1
    one.phase = GONE
    told.write([two])
    assert two.ended == []
