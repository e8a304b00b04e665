"""A partition that is behind and does not move says what it waits for, once a minute; one that moves says nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from farandole.clock import ManualClock
from farandole.owned import RUNNING, STOPPED, TAKING, Owned
from farandole.run import RunState
from farandole.standstill import Standstill


class Scene:
    """A worker as far as it is looked at, with one partition of an input and one of the retry topic."""

    def __init__(self) -> None:
        self.clock, self.said, self.end = ManualClock(), [], 0
        self.owned = {key: Owned(*key, 1, phase=RUNNING) for key in (("in.v1", 0), ("retry.p", 0))}
        self.intake = SimpleNamespace(in_flight={}, blocked=[])
        self.held = set()
        self.source = SimpleNamespace(
            end_seen=lambda key: self.end if key[0] == "in.v1" else 0, held=lambda key: key in self.held
        )
        self.settler, self.steering = SimpleNamespace(unsettled=[]), SimpleNamespace(held=False)
        self.protection = SimpleNamespace(holds=False)
        self.books = SimpleNamespace(declaration=SimpleNamespace(retry_topic="retry.p"))
        self.standstill = Standstill(self)

    @property
    def input(self) -> Owned:
        return self.owned["in.v1", 0]

    def say(self, event: str, **fields: str) -> None:
        self.said.append((event, fields["at"], fields["waits"]))

    def minutes(self, count: int) -> list[str]:
        for _ in range(6 * count + 1):
            self.standstill.look()
            self.clock.advance(10)
        return [waits for _, _, waits in self.said]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_partition_of_which_the_client_gives_nothing_says_so_once_a_minute(scene: Scene):
    scene.end = 9
    assert scene.minutes(3) == ["the client gives no record from offset 0 on"] * 3
    assert scene.said[0][:2] == ("partition.stands", "in.v1[0]@0")


def test_a_partition_that_moves_or_is_at_its_end_says_nothing(scene: Scene):
    assert scene.minutes(2) == []
    scene.end = 1_000
    for _ in range(20):
        scene.input.next_offset += 1
        scene.input.seen += 1
        scene.standstill.look()
        scene.clock.advance(50)
    assert scene.said == []


def test_the_first_record_without_an_outcome_is_named_with_who_has_it_in_hand(scene: Scene):
    slot = scene.input.admit(7)
    assert scene.minutes(1) == ["offset 7: nobody has it in hand"]
    scene.intake.blocked.append(SimpleNamespace(slot=slot))
    assert scene.minutes(1)[-1] == "offset 7: somebody else has its key in hand"
    run = SimpleNamespace(id="r1", slots=[slot], copies=[], state=RunState.RUNNING)
    scene.intake.in_flight["key"] = run
    assert scene.minutes(1)[-1] == "offset 7: run r1 is running"
    run.slots, run.copies = [], [SimpleNamespace(slot=slot)]
    assert scene.minutes(1)[-1] == "offset 7: a copy of what run r1 has in hand"


def test_what_is_parked_waits_by_declaration(scene: Scene):
    scene.owned["retry.p", 0].admit(3)
    assert scene.minutes(2) == []


def test_a_commit_that_does_not_end_and_a_takeover_that_does_not_come_are_named_with_their_reason(scene: Scene):
    scene.input.end(scene.input.admit(7))
    scene.input.tries, scene.input.why = 3, "no coordinator"
    assert scene.minutes(1) == ["its transaction, tried 3 times: no coordinator"]
    scene.settler.unsettled.append("one")
    assert scene.minutes(1)[-1] == "SQL cannot be told of the last transaction"
    scene.input.phase = TAKING
    assert scene.minutes(1)[-1] == "no coordinator"


def test_a_partition_that_is_stopped_or_whose_pipeline_is_paused_has_said_so(scene: Scene):
    scene.end, scene.steering.held = 9, True
    assert scene.minutes(2) == []
    scene.steering.held, scene.input.phase = False, STOPPED
    assert scene.minutes(2) == []
