"""A subscription that has ceased is told from one that is rare, and what all have refused from what one has."""

from __future__ import annotations

import random

import pytest

from farandole.declaration import Declaration, Subscription
from farandole.kafka.admin import Committed, Group, Topic
from farandole.ledger.entry import Entry
from farandole.reconciler.account import Account
from farandole.reconciler.findings import Finding, compared
from farandole.reconciler.history import History
from farandole.reconciler.refused import Refused, refused_by_all
from farandole.reconciler.unfinished import Unfinished
from farandole.rewind import Mark

GOOD = Subscription("good", "t", "kind == 'good'")
RARE = Subscription("rare", "t", "kind == 'rare'")


class Ledger:
    """The lines of a pipeline, taken in as they come."""

    def __init__(self, *subscriptions):
        self.declaration = Declaration("p", "", "now", subscriptions, ())
        self.account, self.history, self.offset = Account("p"), History.of(self.declaration, {}), 0

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


# ---- runs without an end


def parked(name="r", life=0, via=(), okey=b"k", state="parked"):
    entry = Entry("run", "p", name, state=state, life=life, okey=okey, via=list(via), instance="host-1")
    entry.triggers = [{"signal": "good", "topic": "t", "topic_id": "T", "partition": 0, "offset": 0}]
    return entry.record()


class Cluster:
    """The end of the retry topic, and how often it was asked for."""

    def __init__(self, end):
        self.end, self.asked = end, 0

    def ends(self, places, *, committed):
        assert not committed, "an open transaction may hold a record of the run"
        self.asked += 1
        return dict.fromkeys(places, self.end)


RETRY = Topic("retry.p", "R", 1, 1)
AT_WORK = Group("STABLE", 1, frozenset({("retry.p", 0)}))


def judged(unfinished, position, group=AT_WORK, cluster=None):
    committed = {("retry.p", 0): Committed(position, str(Mark(0, 0, 0)))}
    unfinished.look(cluster or Cluster(10), RETRY, group, committed)
    return [one.subject for one in unfinished.findings("retry.p")]


@pytest.mark.parametrize(
    ("group", "found"),
    [
        (AT_WORK, []),
        (Group("EMPTY", 0), ["0"]),
        (Group("DEAD", 0), ["0"]),
        (Group("STABLE", 1, frozenset({("t", 0)})), ["0"]),
        (Group("ASSIGNING", 2), []),
    ],
)
def test_a_parked_run_is_held_by_the_owner_of_its_partition_of_the_retry_topic(group, found):
    unfinished = Unfinished("p")
    unfinished.take(parked())
    assert judged(unfinished, 0, group) == found


def test_a_parked_run_is_lost_when_the_position_has_passed_all_that_stood_there_when_it_was_first_seen():
    unfinished, cluster = Unfinished("p"), Cluster(10)
    unfinished.take(parked())
    assert judged(unfinished, 10, cluster=cluster) == [], "its record may stand above the position that was read"
    unfinished = Unfinished.of("p", unfinished.record())
    cluster.end = 50
    assert judged(unfinished, 9, cluster=cluster) == []
    assert judged(unfinished, 10, cluster=cluster) == ["passed"]
    assert cluster.asked == 1


@pytest.mark.parametrize(
    ("via", "position", "found"),
    [("R/0/7", 7, []), ("R/0/7", 8, ["passed"]), ("former/0/7", 0, ["passed"])],
)
def test_a_run_whose_record_the_ledger_names_is_judged_by_its_offset(via, position, found):
    unfinished = Unfinished("p")
    unfinished.take(parked(via=[via]))
    assert judged(unfinished, position) == found


def test_a_set_completed_by_a_member_that_was_sent_again_rests_in_records_of_its_own_and_not_in_the_one_of_the_member():
    unfinished, entry = Unfinished("p"), parked(via=["R/0/7"])
    entry["triggers"] *= 2
    unfinished.take(entry)
    assert judged(unfinished, 8, cluster=Cluster(10)) == [], "the member's record was passed, and not those of the set"
    assert judged(unfinished, 10) == ["passed"]


@pytest.mark.parametrize("state", ["done", "dead", "resolved", "uncertain"])
def test_a_run_that_ended_is_forgotten_and_what_an_earlier_life_says_later_changes_nothing(state):
    unfinished = Unfinished("p")
    unfinished.take(parked(life=1))
    unfinished.take(parked(state="dead", life=0))
    assert list(unfinished.runs) == ["r"]
    unfinished.take(parked(state=state, life=1))
    assert unfinished.runs == {}


def test_a_run_that_comes_later_does_not_move_what_an_earlier_one_has_to_be_passed_by():
    unfinished = Unfinished("p")
    unfinished.take(parked("r"))
    judged(unfinished, 0, cluster=Cluster(10))
    unfinished.take(parked("s"))
    judged(unfinished, 0, cluster=Cluster(50))
    assert {name: rest.below for name, rest in unfinished.runs.items()} == {"r": 10, "s": 50}
