"""A subscription that has ceased is told from one that is rare, and what all have refused from what one has."""

from __future__ import annotations

import random

import pytest

from farandole.declaration import Declaration, Subscription
from farandole.ledger.entry import Entry
from farandole.reconciler.account import Account
from farandole.reconciler.findings import Finding, compared
from farandole.reconciler.history import History
from farandole.reconciler.refused import Refused, refused_by_all

GOOD = Subscription("good", "t", "kind == 'good'")
RARE = Subscription("rare", "t", "kind == 'rare'")


class Ledger:
    """The lines of a pipeline, taken in as they come."""

    def __init__(self, *subscriptions):
        self.declaration = Declaration("p", "", "now", subscriptions, ())
        self.account, self.history, self.offset = Account("p"), History(self.declaration), 0

    def take(self, entry):
        for one in (self.history, self.account):
            one.take(entry.record(), self.account) if one is self.history else one.take(entry.record())

    def took(self, signal, count=1):
        for _ in range(count):
            origin = {"signal": signal, "topic": "t", "topic_id": "T", "partition": 0, "offset": self.offset}
            self.take(Entry("run", "p", f"r{self.offset}", state="done", triggers=[origin]))
            self.offset += 1

    def passed(self, count, why="not (kind == 'good')"):
        offsets = list(range(self.offset, self.offset + count))
        entry = Entry("range", "p", f"range:{self.offset}", state="range")
        entry.span = {
            "topic": "t", "topic_id": "T", "partition": 0, "start": self.offset, "end": self.offset + count,
            "filtered": {why: offsets}, "duplicates": [],
        }  # fmt: skip
        self.take(entry)
        self.offset += count
        return entry

    def found(self):
        return [one.subject for one in self.history.findings()]


def test_a_subscription_has_ceased_when_more_pass_than_ever_did():
    ledger = Ledger(GOOD)
    ledger.took("good", 50)
    ledger.passed(99)
    assert ledger.found() == []
    ledger.passed(1)
    assert ledger.found() == ["good"]
    ledger.took("good")
    assert ledger.found() == []
    ledger.passed(299)
    assert ledger.found() == [], "a hundred in a row have passed before"
    ledger.passed(1)
    assert ledger.found() == ["good"]
    (says,) = [one.says for one in ledger.history.findings()]
    assert "took none of the last 300 events of t" in says
    assert "it took 51 before, the last one t[0]@150, and never let more than 100 pass in a row" in says


def test_one_that_never_took_anything_is_found_and_what_others_of_the_topic_take_passes_it():
    ledger = Ledger(GOOD, RARE)
    ledger.took("good", 99)
    assert ledger.found() == []
    ledger.took("good", 1)
    assert ledger.found() == ["rare"]
    (says,) = [one.says for one in ledger.history.findings()]
    assert says == "rare (kind == 'rare') has taken none of 100 events of t"


def test_what_is_told_again_or_filtered_for_another_reason_says_nothing_of_a_subscription():
    ledger = Ledger(GOOD)
    entry = ledger.passed(99)
    ledger.take(entry)
    ledger.passed(50, why="tombstone")
    assert ledger.found() == []


def test_what_is_kept_goes_on_where_it_was():
    ledger = Ledger(GOOD)
    ledger.took("good", 3)
    ledger.passed(60)
    ledger.history = History.of(ledger.declaration, ledger.history.record())
    ledger.passed(40)
    assert ledger.found() == ["good"]
    bits = ledger.history.refused["T", 0]
    assert refused_by_all([bits], 0, 1000) == (100, 102)


def test_refused_by_all_is_the_intersection_within_the_range():
    draw = random.Random(4)
    sets = [{draw.randrange(200_000) for _ in range(150_000)} for _ in range(3)]
    many = []
    for one in sets:
        many.append(Refused())
        for offset in one:
            many[-1].add(offset)
    wanted = {x for x in set.intersection(*sets) if 1_000 <= x < 150_000}
    assert refused_by_all(many, 1_000, 150_000) == (len(wanted), max(wanted))
    assert refused_by_all([*many, Refused()], 0, 200_000) == (0, -1)


def test_what_is_kept_of_refused_offsets_is_bounded_by_the_slowest_and_by_a_number_of_chunks():
    one = Refused()
    for offset in range(0, 100 * 65_536, 65_536):
        one.add(offset)
    assert len(one.chunks) == 64
    one.forget(99 * 65_536)
    assert list(one.chunks) == [99]


@pytest.mark.parametrize(
    ("before", "begun", "ended"),
    [((), ["matches-nothing/p/t/good"], []), (("matches-nothing/p/t/good", "x"), [], ["x"])],
)
def test_a_finding_is_told_when_it_begins_and_when_it_ends(before, begun, ended):
    found = compared([Finding("matches-nothing", "p", "t", "", "good")], before)
    assert (found.begun, found.ended, found.changed) == (begun, ended, True)
    assert not compared(found.standing, ["matches-nothing/p/t/good"]).changed
