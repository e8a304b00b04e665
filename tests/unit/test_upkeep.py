"""Between two batches: what is looked at while a pipeline waits, and when a service counts as drained."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable
from farandole.owned import RUNNING, Owned
from farandole.upkeep import EXPIRY, LOOK, NOBODY_ELSE, QUIET, Rest, Upkeep


class Source:
    """Knows where partitions end, unless it is away."""

    def __init__(self):
        self.end, self.away = 5, False

    def held(self, _):
        return True

    def committed(self, *_):
        return {}

    def watermarks(self, _):
        if self.away:
            raise BrokerUnreachable("away")
        return 0, self.end


class Scene:
    """An upkeep with one partition, whose session and whose looks for late joins are counted."""

    def __init__(self):
        self.clock, self.source, self.quiet, self.looks = ManualClock(), Source(), 0, 0
        store = SimpleNamespace(waiting=SimpleNamespace(expired=self._expired))
        books = SimpleNamespace(declaration=SimpleNamespace(join=True, retry_topic="retry.p"))
        self.owned = Owned("in.v1", 0, 1, phase=RUNNING, lane="lane", session=SimpleNamespace(quiet=self._quiet))
        self.upkeep = Upkeep(self.source, store, books, self.clock, print, SimpleNamespace())

    def _quiet(self):
        self.quiet += 1

    def _expired(self, *_):
        self.looks += 1
        return []

    def look(self, *, held=False, after=EXPIRY):
        self.clock.advance(after)
        self.upkeep.look([self.owned], idle=False, held=held)
        return self.looks


@pytest.fixture
def scene():
    return Scene()


def test_producers_of_a_pipeline_that_waits_are_served(scene):
    for _ in range(3):
        scene.look(held=True, after=LOOK)
    assert scene.quiet == 3


def test_no_join_is_given_up_before_all_was_read_that_stood_there_when_the_pipeline_went_on(scene):
    scene.owned.seen = 3
    assert scene.look(held=True) == 0
    assert scene.look() == 0
    scene.source.end = 1000  # what comes later does not matter
    scene.owned.seen = 5
    assert scene.look() == 1
    assert scene.look() == 2


def test_a_broker_that_cannot_say_where_the_log_ends_is_asked_again(scene):
    scene.owned.seen, scene.source.away = 5, True
    assert scene.look() == 0
    scene.source.away = False
    assert scene.look() == 1


def test_a_service_is_drained_when_it_was_so_for_a_second(scene):
    rest, is_drained = Rest(scene.clock), True
    asked = []

    def reached(after):
        scene.clock.advance(after)
        return rest.reached(lambda: (asked.append(1), is_drained)[1], owner=True)

    assert not reached(0.01)
    assert asked == []  # it costs a round trip
    assert not reached(0.5)
    assert reached(QUIET)
    is_drained = False
    assert not reached(QUIET)
    is_drained = True
    assert not reached(0.5)


def test_who_never_had_a_partition_is_drained_when_others_have_had_the_time_to_take_them_all(scene):
    rest = Rest(scene.clock)
    scene.clock.advance(NOBODY_ELSE)
    assert not rest.reached(lambda: True, owner=False)
    scene.clock.advance(QUIET + 0.5)
    assert rest.reached(lambda: True, owner=False)
