"""Which outputs count as gone: those of runs that were read, in topics that keep them, by position alone."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable
from farandole.event import RawRecord
from farandole.kafka.admin import Topic
from farandole.ledger.entry import Entry
from farandole.reconciler.outputs import MARGIN, Outputs

HOUR = 3_600_000


class Scene:
    """One pipeline that emits to `out`, with one partition; `sweep` looks once, and gives the runs whose outputs are gone."""

    def __init__(self):
        self.clock, self.outputs, self.topic_id, self.settings = ManualClock(), Outputs("p"), "T1", {}
        self.there, self.stable, self.ledger, self.away, self.read_from = [], None, [], False, None
        admin = SimpleNamespace(
            topics=lambda _names: {"out": Topic("out", self.topic_id, 1, 1)},
            configs=lambda _names: defaultdict(dict, {"out": self.settings}),
            ends=lambda places, committed: dict.fromkeys(places, self.end if committed else len(self.there)),
        )
        self.cluster = SimpleNamespace(admin=admin, clock=self.clock, read=self._read)

    @property
    def end(self):
        return len(self.there) if self.stable is None else self.stable

    @contextmanager
    def _read(self, _topic):
        if self.away:
            raise BrokerUnreachable("an open transaction stands in the way")
        yield SimpleNamespace(undecided_ends=lambda: {0: len(self.there)}, read=self._batches)

    def _batches(self, at, until):
        self.read_from = at[0]
        yield self.there[at[0] : until[0]]

    def emit(self, identity):
        self.there.append(
            RawRecord("out", self.topic_id, 0, len(self.there), 0, b"", b"", [("ce_id", identity.encode())])
        )

    def done(self, run, *outputs, at=None, state="done", epoch=0, emit=True):
        emitted = [{"topic": "out", "id": one, "type": "out", "digest": one.encode()} for one in outputs]
        entry = Entry("run", "p", run, epoch, state, keys=[b"k"], outputs=emitted)
        entry.triggers = [{"topic": "in", "topic_id": "I", "partition": 0, "offset": len(self.ledger)}]
        at = self.clock.millis() if at is None else at
        self.ledger.append((entry.record(), RawRecord("ledger", "L", 0, len(self.ledger), at, b"", b"", [])))
        for one in outputs if emit else ():
            self.emit(one)

    def sweep(self, most=100):
        again = Outputs.of("p", self.outputs.record())  # as another process would find it
        again.begin(SimpleNamespace(emits=("out",)), self.cluster)
        for entry, raw in self.ledger:
            again.take(entry, raw)
        again.end(self.cluster, iter(self.ledger), len(self.ledger), most)
        self.outputs = again
        return {run: sorted(one.outputs) for run, one in again.open.items()}


@pytest.fixture
def scene():
    made = Scene()
    made.done("r1", "a", "b")
    return made


def test_what_stands_is_not_gone_and_what_does_not_is_told_with_all_that_a_repair_needs(scene):
    scene.done("r2", "c", "d", emit=False)
    scene.emit("d")
    assert scene.sweep() == {"r2": ["c"]}
    (lost,) = scene.outputs.open.values()
    assert (lost.triggers, lost.outputs) == ([("in", 0, 1, b"k")], {"c": ("out", b"c")})


@pytest.mark.parametrize("told", [{"state": "dead"}, {"state": "parked"}, {"epoch": 3}])
def test_a_run_that_is_not_done_or_of_another_epoch_promises_nothing(scene, told):
    scene.done("r2", "c", emit=False, **told)
    assert scene.sweep() == {}


def test_an_output_that_was_written_before_its_run_was_read_is_looked_for_where_nothing_was_decided_yet(scene):
    scene.stable = 2
    scene.emit("c")  # of a transaction that is open while this sweep reads the ledger
    assert scene.sweep() == {}
    scene.stable = None
    scene.done("r2", "c", emit=False)
    assert scene.sweep() == {}
    assert scene.read_from == 2
    scene.done("r3", "e")
    assert (scene.sweep(), scene.read_from) == ({}, 3)


def test_a_topic_that_cannot_be_read_is_told_and_looked_at_again_from_where_it_was(scene):
    scene.sweep()
    scene.done("r2", "c", emit=False)
    scene.away = True
    assert scene.sweep() == {}
    (told,) = scene.outputs.findings()
    assert "outputs were not compared: an open transaction stands in the way" in told.says
    scene.away = False
    assert scene.sweep() == {"r2": ["c"]}


@pytest.mark.parametrize("settings", [{"cleanup.policy": "compact,delete"}, {"retention.bytes": "1000"}])
def test_topics_that_do_not_keep_their_events_for_a_known_time_are_not_compared(scene, settings):
    scene.settings = settings
    scene.done("r2", "c", emit=False)
    assert scene.sweep() == {}


def test_an_output_that_retention_may_have_eaten_is_not_looked_for(scene):
    scene.settings = {"retention.ms": str(HOUR)}
    now = scene.clock.millis()
    scene.done("old", "c", emit=False, at=now - HOUR + MARGIN - 1)
    scene.done("young", "d", emit=False, at=now - HOUR + MARGIN)
    assert scene.sweep() == {"young": ["d"]}


def test_of_a_topic_that_was_created_anew_nothing_is_asked_that_was_told_of_the_former(scene):
    scene.sweep()
    scene.done("r2", "c", emit=False)
    scene.topic_id, scene.there = "T2", []
    assert scene.sweep() == {}
    scene.done("r3", "d", emit=False)
    assert scene.sweep() == {"r3": ["d"]}


def test_what_has_come_back_is_gone_no_more_and_of_what_is_half_back_the_rest_is(scene):
    scene.done("r2", "c", "d", emit=False)
    scene.done("r3", "e", emit=False)
    assert scene.sweep() == {"r2": ["c", "d"], "r3": ["e"]}
    scene.emit("c")
    scene.emit("e")
    assert scene.sweep() == {"r2": ["d"]}
    scene.emit("d")
    assert scene.sweep() == {}


def test_more_than_may_be_repaired_is_not_taken_up_and_found_again(scene):
    scene.done("r2", "c", emit=False)
    scene.done("r3", "d", emit=False)
    assert scene.sweep(most=1) == {}
    (told,) = scene.outputs.findings()
    assert told.says == "the outputs of 2 runs are not there, and a sweep repairs 1 at most"
    assert scene.sweep(most=2) == {"r2": ["c"], "r3": ["d"]}
