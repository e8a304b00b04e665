"""What the subscriptions of a pipeline took and refused, by its ledger: whether one has ceased to take anything. Pure.

A subscription is measured by its own history: it has ceased when more events pass it in a row than ever before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from farandole.declaration import Declaration, Subscription
from farandole.reconciler.account import Account, Place
from farandole.reconciler.findings import Finding
from farandole.reconciler.refused import Refused
from farandole.reconciler.unfinished import Unfinished

LEAST, TIMES = 100, 3
"""So many events in a row say nothing yet; more do, if they are so many times as many as ever passed in a row."""
_REFUSED = "not ("  # how the reason begins when a criterion has refused an event


@dataclass(slots=True)
class Taken:
    """One subscription: how many events it took, the `last` of them, and how many passed it.

    `since` passed it since then, `longest` the most that ever passed in a row before it took one.
    """

    taken: int = 0
    last: str = ""
    since: int = 0
    longest: int = 0

    def takes(self, place: str) -> None:
        """An event is its own."""
        self.longest, self.since = max(self.longest, self.since), 0
        self.taken, self.last = self.taken + 1, place

    @property
    def ceased(self) -> bool:
        """Whether so many have passed that its criteria may be wrong."""
        return self.since >= max(LEAST, TIMES * self.longest)


@dataclass(slots=True)
class History:
    """The live lane of one pipeline. An event counts when the ledger tells of it first."""

    declaration: Declaration
    unfinished: Unfinished
    signals: dict[str, Taken] = field(default_factory=dict)
    refused: dict[Place, Refused] = field(default_factory=dict)

    def take(self, entry: Mapping[str, Any], account: Account) -> None:
        """One line of the ledger, before the account has taken it in."""
        if entry["pipeline"] != self.declaration.name or entry["epoch"]:
            return
        if entry["kind"] == "run":
            self.unfinished.take(entry)
        if entry["kind"] == "run" and entry["state"] != "joined":
            for cause in entry["triggers"]:
                if cause["signal"] and not account.of(cause["topic_id"], cause["partition"]).covers(cause["offset"]):
                    self._passed(
                        cause["topic"], cause["signal"], f"{cause['topic']}[{cause['partition']}]@{cause['offset']}"
                    )
        elif (span := entry["span"]) is not None:
            known = account.of(span["topic_id"], span["partition"])
            refused = self.refused.setdefault((span["topic_id"], span["partition"]), Refused())
            for why, offsets in span["filtered"].items():
                for offset in offsets if why.startswith(_REFUSED) else ():
                    if not known.covers(offset):
                        refused.add(offset)
                        self._passed(span["topic"])

    def _passed(self, topic: str, signal: str = "", place: str = "") -> None:
        for one in self.declaration.subscriptions:
            if one.event_type == topic:
                taken = self.signals.setdefault(one.signal, Taken())
                if one.signal == signal:
                    taken.takes(place)
                else:
                    taken.since += 1

    def clear(self) -> None:
        """Nothing of it counts: the ledger is another one."""
        self.signals.clear()
        self.refused.clear()
        self.unfinished.runs.clear()

    def findings(self) -> Iterator[Finding]:
        """The subscriptions that take nothing any more, or never took anything; the runs that nobody holds."""
        yield from self.unfinished.findings(self.declaration.retry_topic)
        for one in self.declaration.subscriptions:
            taken = self.signals.get(one.signal, Taken())
            if taken.ceased:
                says = _says(one, taken)
                following = f"farandole check {self.declaration.name}"
                yield Finding("matches-nothing", self.declaration.name, one.event_type, says, one.signal, following)

    def record(self) -> dict[str, Any]:
        """As it is kept between two sweeps."""
        return {
            "signals": {name: (t.taken, t.last, t.since, t.longest) for name, t in self.signals.items()},
            "refused": [(*place, one.record()) for place, one in self.refused.items()],
            "unfinished": self.unfinished.record(),
        }

    @classmethod
    def of(cls, declaration: Declaration, told: Mapping[str, Any]) -> History:
        """From what was kept."""
        return cls(
            declaration,
            Unfinished.of(declaration.name, told.get("unfinished", [])),
            {name: Taken(*taken) for name, taken in told.get("signals", {}).items()},
            {(topic_id, partition): Refused.of(bits) for topic_id, partition, bits in told.get("refused", ())},
        )


def _says(one: Subscription, taken: Taken) -> str:
    where = f" ({one.where})" if one.where else ""
    if not taken.taken:
        return f"{one.signal}{where} has taken none of {taken.since:,} events of {one.event_type}"
    return (
        f"{one.signal}{where} took none of the last {taken.since:,} events of {one.event_type}; it took "
        f"{taken.taken:,} before, the last one {taken.last}, and never let more than {taken.longest:,} pass in a row"
    )
