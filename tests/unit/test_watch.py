"""What the watch makes of what it sees."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from farandole.beat import Beat
from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable
from farandole.identity import DELETED, Standing
from farandole.topics import LEDGER
from farandole.watch import FOREIGN_STUCK, STUCK, Cluster, Stable, Watch, remedy

HERE = ("in.v1", 0)


def looks(*steps, patience=30.0):
    """What each look finds: steps are seconds that pass, the last stable offset and the end."""
    stable, now, found = Stable(lambda _topic: patience), 0.0, []
    for passed, offset, end in steps:
        now += passed
        found.append([at for _, at, _ in stable.look({HERE: offset}, {HERE: end}, now)])
    return found


def test_an_offset_that_does_not_move_below_its_end_is_stuck_after_its_patience_and_told_once():
    assert looks((0, 5, 9), (29, 5, 9), (1, 5, 12), (40, 5, 20)) == [[], [], [5], []]


def test_an_offset_that_moves_or_stands_at_the_end_is_not_stuck():
    assert looks((0, 5, 9), (29, 6, 9), (29, 7, 9), (29, 9, 9), (60, 9, 9), (60, 9, 9)) == [[]] * 6


def test_the_time_at_the_end_does_not_count():
    assert looks((0, 9, 9), (100, 9, 9), (1, 9, 12), (28, 9, 12), (1, 9, 12)) == [[], [], [], [], [9]]


def test_what_was_freed_and_hangs_again_is_told_again():
    assert looks((0, 5, 9), (30, 5, 9), (1, 9, 9), (1, 9, 12), (30, 9, 12)) == [[], [5], [], [], [9]]


def test_a_partition_that_was_given_up_is_forgotten():
    stable = Stable(lambda _topic: 30.0)
    stable.look({HERE: 5}, {HERE: 9}, 0.0)
    stable.look({}, {}, 1.0)
    assert stable.look({HERE: 5}, {HERE: 9}, 100.0) == []


class Scene:
    """A watch over one input; `topics` and `ends` are what it sees, `facts` what it wrote."""

    def __init__(self):
        self.clock, self.said, self.facts, self.announced = ManualClock(), [], [], []
        self.standing = Standing("T1", 2, announced=2)
        self.stable, self.end, self.away = 0, 0, False
        self.beats, self.now = [], 0
        self.identity = SimpleNamespace(last={}, seen={}, of=self._of)
        books = SimpleNamespace(
            declaration=SimpleNamespace(topics=["in.v1"], retry_topic="retry.p"),
            ledger_partition=7,
            told=lambda name, place, detail: (name, place, detail),
        )
        announce, beats = lambda *what: self.announced.append(what), lambda: (self.beats, self.now)
        cluster = Cluster("b:9092", self._ends, self._publish, announce, beats)
        say = lambda name, **fields: self.said.append((name, fields))  # noqa: E731
        self.watch = Watch(self.identity, cluster, books, lambda: [HERE, ("retry.p", 1)], self.clock, say)

    def _of(self, _names):
        now = {"in.v1": self.standing, "retry.p": Standing("T9", 2, announced=2)}
        self.identity.last.update(now)
        self.identity.seen.update({name: standing for name, standing in now.items() if standing})

    def _ends(self, places):
        self.asked = list(places)
        return dict.fromkeys(places, self.stable), dict.fromkeys(places, self.end)

    def _publish(self, facts):
        if self.away:
            raise BrokerUnreachable("away")
        self.facts += facts

    def look(self, after=1.0):
        self.clock.advance(after)
        self.watch.look()


@pytest.fixture
def scene():
    made = Scene()
    made.look()
    return made


def test_where_nothing_changes_nothing_is_said(scene):
    scene.look()
    assert (scene.said, scene.facts) == ([], [])
    assert scene.asked == [(LEDGER, 7), HERE, ("retry.p", 1)]


def test_a_topic_that_is_gone_is_told_once_and_its_offsets_are_not_asked_for(scene):
    scene.standing = None
    scene.look()
    scene.look()
    assert [(name, detail["topic"]) for name, _, detail in scene.facts] == [(DELETED, "in.v1")]
    assert HERE not in scene.asked


def test_a_topic_that_went_before_the_first_look_is_told_by_what_the_takeover_had_seen():
    scene = Scene()
    scene.identity.of(["in.v1"])
    scene.standing = None
    scene.look()
    assert [(name, detail["topic_id"]) for name, _, detail in scene.facts] == [(DELETED, "T1")]


def test_keys_that_moved_are_told_with_both_numbers_before_that_is_remembered(scene):
    scene.standing, scene.away = Standing("T1", 6, announced=2), True
    with pytest.raises(BrokerUnreachable):
        scene.look()
    assert scene.announced == []
    scene.away = False
    scene.look()
    assert {(n, d["old"], d["new"]) for n, _, d in scene.facts} == {("keys.moved", "2", "6")}
    assert set(scene.announced) == {("T1", 6)}


def test_a_transaction_that_hangs_is_told_with_the_remedy_sooner_where_only_we_write(scene):
    scene.stable, scene.end = 4, 9
    scene.look()
    scene.look(STUCK)
    assert {(d["topic"], d["partition"]) for _, _, d in scene.facts} == {(LEDGER, "7"), ("retry.p", "1")}
    scene.look(FOREIGN_STUCK - STUCK)
    assert [d["topic"] for _, _, d in scene.facts] == [LEDGER, "retry.p", "in.v1"]
    [(name, fields), *_] = scene.said
    assert (name, fields["offset"], fields["end"]) == ("lso.stuck", "4", "9")
    assert fields["remedy"] == remedy("b:9092", LEDGER, 7, 4)
    assert "abort --topic farandole.ledger.v1 --partition 7 --start-offset 4" in fields["remedy"]


def test_a_watcher_that_falls_silent_is_said_once_and_again_when_it_is_back_and_stands_in_no_ledger_of_the_pipeline(
    scene,
):
    scene.beats = [Beat("reconciler", "a", every=10.0, at=0)]
    scene.look()
    scene.now = 20_001
    scene.look()
    scene.look()
    scene.beats = [Beat("reconciler", "b", every=10.0, at=20_001)]
    scene.look()
    assert [(name, fields["role"]) for name, fields in scene.said] == [
        ("watcher.silent", "reconciler"), ("watcher.back", "reconciler"),
    ]  # fmt: skip
    assert scene.facts == []
