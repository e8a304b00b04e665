"""Whether a topic is the one that is known: by its UUID, with what a person has said of it."""

from __future__ import annotations

import pytest

from farandole.control import ACCEPT, Command
from farandole.errors import BrokerUnreachable, FarandoleError
from farandole.identity import Identity
from farandole.kafka.admin import Topic
from farandole.owned import RUNNING, STOPPED, Owned
from farandole.rewind import TRUNCATED
from farandole.store.inbox import Lane
from farandole.testing.memory import MemoryTopics

NAME = "lake.file.landed.v1"


class World:
    """A cluster, a database and a control topic, as far as identity asks them."""

    def __init__(self):
        self.there: dict[str, Topic] = {}
        self.commands: dict[str, Command] = {}
        self.asked = 0
        self.known = MemoryTopics()
        self.moved = []
        self.identity = self.instance()
        self.stands("T1")

    def instance(self):
        one = Identity(lambda names: {n: t for n, t in self.there.items() if n in names}, self.known, self._load)
        one.moved = lambda: self.moved.append(one)
        return one

    def _load(self, _prefix):
        self.asked += 1
        return self.commands

    def stands(self, topic_id, partitions=2):
        self.there = {NAME: Topic(NAME, topic_id, partitions, 1)} if topic_id else {}

    def accept(self, topic_id):
        detail = {"topic": NAME, "topic_id": topic_id}
        self.commands = {f"topic:{NAME}": Command(f"topic:{NAME}", ACCEPT, actor="ann", detail=detail)}

    def now(self):
        return self.identity.of([NAME]).get(NAME)


@pytest.fixture
def world():
    return World()


def test_a_topic_seen_for_the_first_time_is_known_from_then_on(world):
    assert world.now() == world.now()
    assert (world.now().known, world.now().former, world.now().since_applies) == (True, "", 2)
    assert world.asked == 0


def test_another_uuid_under_the_name_is_not_known_until_it_is_accepted(world):
    world.now()
    world.stands("T2")
    assert (world.now().known, world.now().former) == (False, "T1")
    world.accept("T2")
    assert (world.now().known, world.now().former, world.now().since_applies) == (True, "T1", 0)
    asked = world.asked
    assert world.now().former == "T1"
    assert world.asked == asked  # who is known needs nobody's word
    assert world.instance().of([NAME])[NAME].known


def test_a_yes_for_one_uuid_is_none_for_the_next(world):
    world.now()
    world.stands("T2")
    world.accept("T2")
    world.now()
    world.stands("T3")
    assert (world.now().known, world.now().former) == (False, "T2")


def test_without_a_control_topic_nobody_has_said_yes_and_an_outage_is_told(world):
    def missing(_prefix):
        raise FarandoleError("no such topic")

    def away(_prefix):
        raise BrokerUnreachable("away")

    world.now()
    world.stands("T2")
    world._load = missing
    world.identity = world.instance()
    assert not world.now().known
    world._load = away
    world.identity = world.instance()
    with pytest.raises(BrokerUnreachable):
        world.now()


def test_more_partitions_than_at_first_sight_move_keys_in_every_instance(world):
    world.now()
    assert not world.moved
    world.stands("T1", 5)
    now = world.now()
    assert (now.since_applies, now.grown) == (2, True)
    other = world.instance()
    other.of([NAME])
    assert world.moved == [world.identity, other]


def owned(phase, why="", topic_id="T1"):
    return Owned(NAME, 0, 1, phase=phase, why=why, lane=Lane(NAME, topic_id, 0, 1))


def test_a_running_partition_is_astray_when_its_topic_is_gone_or_another(world):
    assert world.identity.astray(owned(RUNNING)) == ""  # nobody has looked yet
    world.now()
    assert world.identity.astray(owned(RUNNING)) == ""
    world.stands("T2")
    world.now()
    assert world.identity.astray(owned(RUNNING)) == "topic.recreated"
    world.stands("")
    world.now()
    assert world.identity.astray(owned(RUNNING)) == "topic.deleted"


def test_a_stopped_partition_is_looked_at_again_when_its_topic_is_there_or_accepted(world):
    world.now()
    world.stands("")
    world.now()
    deleted, recreated = owned(STOPPED, "topic.deleted: …"), owned(STOPPED, "topic.recreated: …", "T2")
    assert (world.identity.astray(deleted), world.identity.astray(recreated)) == ("", "")
    world.stands("T2")
    world.now()
    assert (world.identity.astray(deleted), world.identity.astray(recreated)) == ("topic.back", "")
    world.accept("T2")
    world.now()
    assert world.identity.astray(recreated) == "topic.back"
    assert world.identity.astray(owned(STOPPED, "rewind.requested: …")) == ""


def test_a_partition_that_was_cut_is_gone_on_with_once_a_person_has_accepted_that_very_offset(world):
    world.stands("T1")
    owned = Owned(NAME, 1, 1, phase=STOPPED, lane=Lane(NAME, "T1", 1, 1), next_offset=60, why=f"{TRUNCATED}: …")
    assert world.identity.cut("T1", 1, 60) is None
    world.commands = {"cut:T1/1/59": Command("cut:T1/1/59", ACCEPT, actor="ann")}
    world.now()
    assert world.identity.astray(owned) == ""

    world.commands["cut:T1/1/60"] = Command("cut:T1/1/60", ACCEPT, actor="ann")
    world.now()

    assert world.identity.astray(owned) == "topic.back"
    assert world.identity.cut("T1", 1, 60).actor == "ann"
