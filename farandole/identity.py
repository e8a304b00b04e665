"""Whether a topic is still the one that the pipeline knows: its UUID says so, its name does not.

A topic that was deleted and created anew begins at offset 0 under another UUID. Going on in it at an old offset would
skip its beginning, and by `since` perhaps all of it; so a person says first that the new one is meant. Partitions that
were added later are known by their number, and begin at their beginning whatever `since` says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from farandole.control import ACCEPT, Command, cut_id_of, topic_id_of
from farandole.errors import FarandoleError, Unreachable
from farandole.kafka.admin import Topic
from farandole.owned import RUNNING, STOPPED, Owned
from farandole.rewind import RECREATED, TRUNCATED
from farandole.store.topics import KnownTopic

DELETED = "topic.deleted"
LOOK = 10.0
"""Seconds between two looks of an instance at its topics."""


class Standing(NamedTuple):
    """A topic as it stands, beside what is known of it.

    `known` is False for one that was created anew and that nobody has accepted. `former` is the UUID of the topic of
    this name that was known before. `since` applies to the partitions below `since_applies`.
    """

    topic_id: str
    partitions: int
    known: bool = True
    former: str = ""
    since_applies: int = 1_000_000
    announced: int = 0

    @property
    def grown(self) -> bool:
        """Whether the ledger has not been told yet of all its partitions."""
        return 0 < self.announced < self.partitions


class Known(Protocol):
    """What the pipeline's database knows of topics; :class:`farandole.store.topics.KnownTopics`."""

    def of(self, topic: str) -> list[KnownTopic]:
        """Every UUID under which a topic was known, the oldest first."""

    def learn(self, topic: str, known: KnownTopic) -> None:
        """Know a topic from now on."""


class Identity:
    """Asked at each takeover by the polling thread, and now and then by the watch.

    `last` is the newest answer, `seen` how each topic stood when it was last there, until the watch tells it gone.
    `commands` gives what stands on the control topic for topics. `moved` is called where a topic has more partitions
    than it had: record keys have moved, so copies of a key can reach two owners.
    """

    def __init__(
        self,
        topics: Callable[[Collection[str]], Mapping[str, Topic]],
        known: Known,
        commands: Callable[[str], Mapping[str, Command]],
    ) -> None:
        self._topics, self._known, self._commands = topics, known, commands
        self.moved: Callable[[], None] = lambda: None
        self.last: dict[str, Standing | None] = {}
        self.seen: dict[str, Standing] = {}
        self._accepted: dict[str, Command] = {}
        self._cuts: dict[str, Command | None] = {}

    def of(self, names: Collection[str]) -> dict[str, Standing]:
        """How these topics stand now; one that is not there is not in the answer.

        Raises BrokerUnreachable and DatabaseUnreachable.
        """
        for name in [name for name, command in self._cuts.items() if command is None]:
            self._cuts[name] = self._given(name)
        there = {name: self._standing(topic) for name, topic in self._topics(names).items()}
        self.seen.update(there)
        self.last.update({name: there.get(name) for name in names})
        return there

    def _standing(self, topic: Topic) -> Standing:
        every = self._known.of(topic.name)
        if not every:
            return self._learned(topic, KnownTopic(topic.topic_id, *[topic.partitions] * 3))
        at = next((n for n, one in enumerate(every) if one.topic_id == topic.topic_id), -1)
        if at >= 0:
            return self._is(topic, every[at], every[at - 1].topic_id if at else "")
        if self.accepted(topic.name, topic.topic_id) is None:
            return Standing(topic.topic_id, topic.partitions, known=False, former=every[-1].topic_id)
        # `since` was for the first topic of this name: of what came after it nothing is left out
        learned = self._learned(topic, KnownTopic(topic.topic_id, 0, topic.partitions, topic.partitions))
        return learned._replace(former=every[-1].topic_id)

    def accepted(self, topic: str, topic_id: str) -> Command | None:
        """The command by which a person has accepted a topic that was created anew."""
        if topic_id not in self._accepted:
            command = self._given(topic_id_of(topic))
            if command is None or command.detail.get("topic_id") != topic_id:
                return None
            self._accepted[topic_id] = command
        return self._accepted[topic_id]

    def cut(self, topic_id: str, partition: int, offset: int) -> Command | None:
        """The command by which a person has accepted that a log ends before this offset. From here on it is awaited."""
        name = cut_id_of(topic_id, partition, offset)
        if self._cuts.get(name) is None:
            self._cuts[name] = self._given(name)
        return self._cuts[name]

    def _given(self, name: str) -> Command | None:
        try:
            command = self._commands(name).get(name)
        except Unreachable:
            raise
        except FarandoleError:  # there is no control topic, or it may not be read: nobody can have said anything
            return None
        return command if command is not None and command.kind == ACCEPT else None

    def _learned(self, topic: Topic, known: KnownTopic) -> Standing:
        self._known.learn(topic.name, known)
        return self._is(topic, known, "")

    def _is(self, topic: Topic, known: KnownTopic, former: str) -> Standing:
        if topic.partitions > known.partitions:
            self.moved()
        return Standing(
            topic.topic_id,
            topic.partitions,
            former=former,
            since_applies=known.since_applies,
            announced=known.announced,
        )

    def astray(self, owned: Owned) -> str:
        """Why a partition has to be taken over anew, by the newest answer; empty where it has not."""
        if owned.topic not in self.last:
            return ""
        now = self.last[owned.topic]
        if owned.phase == RUNNING and owned.lane is not None:
            if now is None:
                return DELETED
            return RECREATED if now.topic_id != owned.lane.topic_id else ""
        if owned.phase == STOPPED and now is not None:
            back = owned.why.startswith(DELETED) or (owned.why.startswith(RECREATED) and now.known)
            if owned.why.startswith(TRUNCATED) and owned.lane is not None:
                back = self._cuts.get(cut_id_of(now.topic_id, owned.partition, owned.next_offset)) is not None
            return "topic.back" if back else ""
        return ""
