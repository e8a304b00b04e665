"""A service whose client finds no coordinator, where another client finds one, ends itself; an outage ends nobody."""

from __future__ import annotations

import pytest

from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable
from farandole.stranded import EVERY, LOOKS, Stranded


class Client:
    """A source as far as it is asked: whether it and another client have an answer."""

    def __init__(self) -> None:
        self.answers = self.another_answers = True
        self.open = self.asked = 0

    def committed(self, partitions: list[tuple[str, int]], timeout: float) -> dict[tuple[str, int], tuple[int, str]]:
        self.asked += 1
        if not self.answers:
            raise BrokerUnreachable("committed offsets: Local: Timed out")
        return dict.fromkeys(partitions, (-1001, ""))

    def another(self) -> Client:
        self.open += 1
        made = Client()
        made.answers = self.another_answers
        made.close = self._closed
        return made

    def _closed(self) -> None:
        self.open -= 1


class Scene:
    def __init__(self) -> None:
        self.client, self.clock, self.said, self.ended = Client(), ManualClock(), [], 0
        self.stranded = Stranded(self.client, ("retry.p", 0), self.clock, self._say, self._end)

    def _say(self, event: str, **fields: str) -> None:
        self.said.append((event, fields["why"]))

    def _end(self) -> None:
        self.ended += 1

    def looks(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(EVERY)
            self.stranded.look()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_alone_has_no_answer_time_and_again_ends_and_says_why(scene: Scene):
    scene.client.answers = False
    scene.looks(LOOKS - 1)
    before = scene.ended
    scene.looks(1)
    assert (before, scene.ended, scene.client.open) == (0, 1, 0)
    assert scene.said[0][0] == "service.hangs"
    assert "another one finds it at once" in scene.said[0][1]


def test_an_outage_for_all_ends_nobody(scene: Scene):
    scene.client.answers = scene.client.another_answers = False
    scene.looks(10 * LOOKS)
    assert (scene.ended, scene.said, scene.client.open) == (0, [], 0)


def test_an_answer_in_between_makes_it_begin_anew(scene: Scene):
    for _ in range(3):
        scene.client.answers = False
        scene.looks(LOOKS - 1)
        scene.client.answers = True
        scene.looks(1)
    assert scene.ended == 0


def test_it_asks_no_more_often_than_it_should(scene: Scene):
    for _ in range(100):
        scene.clock.advance(EVERY / 50)
        scene.stranded.look()
    assert scene.client.asked == 2
