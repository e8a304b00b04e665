"""Runs that began and have no end, and that nobody holds: their partition has no owner, or their record was passed.

A parked run, and one at a detached step, waits in the retry topic, whose owner alone may go on with it. No clock
decides: the group says who owns the partition, and the committed position whether the record was passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from farandole.ids import spread
from farandole.kafka.admin import Admin, Committed, Group, Topic
from farandole.ledger.entry import outranks, place_of
from farandole.reconciler.cluster import position_of
from farandole.reconciler.findings import Finding

_NAMED = 3  # runs that a finding names
_NOBODY = frozenset({"EMPTY", "DEAD"})
_STABLE = "STABLE"


@dataclass(slots=True)
class Rest:
    """Where a run rests: its life, the key that its partition follows, and the offset below which its record stands.

    `topic_id` and `partition` are set where the ledger names the record; else `below` is the end of the partition as
    it was when the run was first seen there.
    """

    life: int
    decides: bytes
    at: str
    topic_id: str = ""
    partition: int = -1
    below: int | None = None


@dataclass(slots=True)
class Unfinished:
    """The parked runs of the live lane of one pipeline, and those that nobody holds, as of the last look."""

    pipeline: str
    runs: dict[str, Rest] = field(default_factory=dict)
    _unheld: dict[int, list[str]] = field(default_factory=dict)
    _passed: list[str] = field(default_factory=list)

    def take(self, entry: Mapping[str, Any]) -> None:
        """One line of the ledger: a run of this pipeline, in epoch 0."""
        known = self.runs.get(entry["id"])
        if known is not None and not outranks((entry["life"], entry["state"]), (known.life, "parked")):
            return
        self.runs.pop(entry["id"], None)
        if entry["state"] != "parked":
            return
        alone = len(entry["triggers"]) == 1
        rest = Rest(entry["life"], (alone and entry["okey"]) or entry["id"].encode(), _at(entry))
        if entry["via"] and len(entry["via"]) == len(entry["triggers"]):  # else they brought a member of its set only
            rest.topic_id, rest.partition, offset = place_of(entry["via"][0])
            rest.below = offset + 1
        self.runs[entry["id"]] = rest

    def look(self, admin: Admin, retry: Topic, group: Group, committed: Mapping[tuple[str, int], Committed]) -> None:
        """Judge each by a group and by positions that were looked at before the ledger was. Raises Unreachable."""
        self._unheld, self._passed = {}, []
        if not self.runs:
            return
        unseen = any(rest.below is None for rest in self.runs.values())
        ends = admin.ends([(retry.name, p) for p in range(retry.partitions)], committed=False) if unseen else {}
        for name, rest in self.runs.items():
            at = rest.partition if rest.topic_id else spread(rest.decides, retry.partitions)
            if rest.below is None:
                rest.below = ends[retry.name, at]
            elif self._was_passed(rest, retry, position_of(committed.get((retry.name, at)))[0]):
                self._passed.append(name)
                continue
            if not _held(group, (retry.name, at)):
                self._unheld.setdefault(at, []).append(name)

    def _was_passed(self, rest: Rest, retry: Topic, position: int | None) -> bool:
        if rest.topic_id and rest.topic_id != retry.topic_id:
            return True  # the topic was created anew: its record is gone
        return position is not None and rest.below is not None and position >= rest.below

    def findings(self, topic: str) -> Iterator[Finding]:
        """The runs that nobody holds. `topic` is the pipeline's retry topic."""
        for partition, names in sorted(self._unheld.items()):
            says = f"{self._begun(names)}, and no instance holds {topic}[{partition}]: {self._named(names)}"
            yield Finding("abandoned", self.pipeline, topic, says, str(partition), f"farandole run {self.pipeline}")
        if names := self._passed:
            says = f"{self._begun(names)}, and its own position in {topic} has passed them: {self._named(names)}"
            yield Finding("abandoned", self.pipeline, topic, says, "passed", f"farandole runs show {names[0]}")

    def _begun(self, names: list[str]) -> str:
        return f"{len(names)} run{'s have' if len(names) != 1 else ' has'} begun and not ended"

    def _named(self, names: list[str]) -> str:
        told = [f"{name} ({self.runs[name].at})" for name in names[:_NAMED]]
        return ", ".join(told) + (" and others" if len(names) > _NAMED else "")

    def record(self) -> list[Any]:
        """As it is kept between two sweeps."""
        return [(n, r.life, r.decides, r.at, r.topic_id, r.partition, r.below) for n, r in self.runs.items()]

    @classmethod
    def of(cls, pipeline: str, told: list[Any]) -> Unfinished:
        """From what was kept."""
        return cls(pipeline, {name: Rest(*rest) for name, *rest in told})


def _at(entry: Mapping[str, Any]) -> str:
    where = f"at step {entry['detail']['detached']}" if "detached" in entry["detail"] else "parked"
    return f"{where}, last in the hands of {entry['instance']}" if entry["instance"] else where


def _held(group: Group, place: tuple[str, int]) -> bool:
    """Whether somebody owns a partition, or may: while a group shares anew nobody can say."""
    return group.state not in _NOBODY and (group.state != _STABLE or place in group.assigned)
