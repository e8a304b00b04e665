"""What the ledger says of one pipeline, as coverage of each partition that it reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farandole.ledger.entry import ACCEPTED, BEGAN, place_of
from farandole.reconciler.coverage import Coverage

Place = tuple[str, int]
"""A topic's UUID and a partition of it."""


@dataclass(slots=True)
class Account:
    """The live lane (epoch 0) of one pipeline. What a replay did of the same records is no outcome of them here."""

    pipeline: str
    coverage: dict[Place, Coverage] = field(default_factory=dict)
    ledger_id: str = ""
    next_offset: int = 0
    """Up to where the ledger was read, and which one."""

    def of(self, topic_id: str, partition: int) -> Coverage:
        """The coverage of one partition."""
        return self.coverage.setdefault((topic_id, partition), Coverage())

    @property
    def done(self) -> int:
        """How many records have come to an end that is good."""
        return sum(one.counts["done"] + one.counts["caught"] for one in self.coverage.values())

    def take(self, entry: Mapping[str, Any]) -> None:
        """One line of the ledger, decoded."""
        if entry["pipeline"] != self.pipeline or entry["epoch"]:
            return
        if entry["kind"] == "run":
            self._run(entry)
        elif (span := entry["span"]) is not None:
            found = self.of(span["topic_id"], span["partition"])
            for reason, offsets in span["filtered"].items():
                for offset in offsets:
                    found.settled(offset, f"filtered: {reason}")
            for offset in span["duplicates"]:
                found.settled(offset, "duplicate")
        elif entry["fact"] in (BEGAN, ACCEPTED):  # a topic that was created anew is read from its beginning
            detail = entry["detail"]
            at = int(detail["at"]) if entry["fact"] == BEGAN else 0
            self.of(detail["topic_id"], int(detail["partition"])).began(at)

    def _run(self, entry: Mapping[str, Any]) -> None:
        for cause in entry["triggers"]:
            found = self.of(cause["topic_id"], cause["partition"])
            found.stands(cause["offset"], entry["life"], entry["state"])
        for via in entry["via"]:
            topic_id, partition, offset = place_of(via)
            found = self.of(topic_id, partition)
            if entry["state"] == "joined":
                found.settled(offset, "joined")  # its run names the event, and not the record that brought it
            else:
                found.stands(offset, entry["life"], entry["state"])
