"""The line stops: partitions whose dead-letter guard has tripped, and what is told of it.

A partition that its guard has stopped ends what it has begun, commits, and is taken over anew; the row in SQL keeps it
from reading until a person resets it, or another version of the service takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from farandole.event import Record
from farandole.guard import Guard
from farandole.outcome import Books
from farandole.owned import GUARDED, RUNNING, STOPPED, TAKING, Ended, Owned
from farandole.store import Store
from farandole.store.breakers import Place


@dataclass(slots=True)
class _Fact:
    record: Record
    owned: Owned | None = None  # the partition with whose transaction it goes
    commits: int = 0


class Facts:
    """Facts on their way into the ledger: with the next transaction of any partition, again where that one is lost."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._facts: list[_Fact] = []

    def add(self, name: str, about: str, detail: dict[str, str]) -> None:
        """Something that happened once; `about` tells it from the next time."""
        self._facts.append(_Fact(self._books.told(name, about, detail)))

    def write(self, partitions: Collection[Owned]) -> None:
        """Give what is not written yet to a partition that is running."""
        if not self._facts:
            return
        self._facts = [f for f in self._facts if f.owned is None or f.owned.commits == f.commits]
        running = next((o for o in partitions if o.phase == RUNNING), None)
        for fact in self._facts:
            if running is not None and (fact.owned is None or fact.owned.phase != RUNNING):
                fact.owned, fact.commits = running, running.commits
                running.ended.append(Ended([], [fact.record]))


class LineStop:
    """The guards of one worker's partitions."""

    def __init__(self, store: Store, books: Books, facts: Facts, say: Callable[..., None], epoch: int) -> None:
        declaration = books.declaration
        self._topics = declaration.topics if declaration.guard == "on" else ()
        self._name, self._epoch = declaration.name, epoch
        self._store, self._books, self._facts, self._say = store, books, facts, say
        self._places: dict[tuple[str, int], Place] = {}
        self.live = self  # where a person is heard: a replay's is that of the live lane
        self.resumed = self._seen = 0

    def of(self, topic: str) -> Guard:
        """The guard of a partition just assigned. What dies in the retry topic was counted where it failed first."""
        return Guard(on=topic in self._topics)

    def look(self, partitions: Collection[Owned]) -> None:
        """Write down which guards have tripped, and let go on what a person has reset. Raises DatabaseUnreachable."""
        for owned in partitions:
            if owned.guard.stop is not None and not owned.guard.told and owned.lane is not None:
                self._store.guards.stop(owned.lane, self._books.version, str(owned.guard.stop))
                owned.guard.told, stop = True, owned.guard.stop
                self._say("guard.stopped", at=at(owned), fingerprint=stop.fingerprint, dead=stop.dead, of=stop.of)
                told = {"at": at(owned), "fingerprint": stop.fingerprint, "dead": str(stop.dead), "of": str(stop.of)}
                self._facts.add("guard.stopped", f"{at(owned)}/{owned.lane.fence}", told)
        if self.live.resumed > self._seen:
            here = {self._places[o.key]: o for o in partitions if o.key in self._places}
            for place in self._store.guards.reset(self._epoch, here, self.live.resumed):
                self._released(here[place], "a person")
            self._seen = self.live.resumed

    def stopping(self, owned: Owned) -> bool:
        """Whether it is written that this partition stops: it does as soon as what it has begun is written too."""
        return owned.phase == RUNNING and owned.guard.told

    def reset(self, before: int) -> None:
        """A person has looked: what was stopped before a moment (ms since 1970) goes on, here and wherever it comes."""
        self.resumed = max(self.resumed, before)

    def free(self, new: Sequence[Owned], topic_ids: Mapping[str, str]) -> list[Owned]:
        """Those of newly assigned partitions that may be taken over. Raises DatabaseUnreachable.

        What another version has stopped goes on: this one may know better.
        """
        standing = self._store.guards.standing(self._epoch) if self._topics and new else {}
        may = []
        for owned in new:
            place = self._places[owned.key] = (topic_ids[owned.topic], owned.partition)
            version, why = standing.get(place, ("", ""))
            same = version == self._books.version
            if version and self._store.guards.reset(self._epoch, [place], self.live.resumed if same else None):
                self._released(owned, "a person" if same else f"version {self._books.version}")
            elif version:
                hint = f"after the fix: farandole resume {self._name}, or start it as a new FARANDOLE_VERSION"
                owned.phase, owned.why = STOPPED, f"{GUARDED}: {why}; {hint}"
                self._say("partition.stopped", at=at(owned), why=owned.why)
                continue
            may.append(owned)
        return may

    def _released(self, owned: Owned, by: str) -> None:
        if owned.phase == STOPPED:
            owned.phase, owned.why, owned.due = TAKING, "", 0.0
        self._say("guard.released", at=at(owned), by=by)
        self._facts.add("guard.released", f"{at(owned)}/{self._books.clock.millis()}", {"at": at(owned), "by": by})


def at(owned: Owned) -> str:
    """How a partition is called: ``topic[3]``."""
    return f"{owned.topic}[{owned.partition}]"
