"""Runs that are done and whose outputs are not there: two positions tell, and no clock.

The ledger is read to its end first, and the ends of the output topics are asked after that: every output of a run that
was read stands below them, and is decided. In the output topics a sweep begins where, before the sweep that went
before it read the ledger, nothing was undecided any more: no output of a run that was not read then stands below.

Compacted topics keep no event for ever, and retention eats the old ones: neither is compared.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from farandole.declaration import Declaration
from farandole.delivery import FINISHED
from farandole.errors import FarandoleError
from farandole.event import RawRecord
from farandole.reconciler.cluster import Cluster
from farandole.reconciler.findings import Finding

MARGIN = 60_000
"""Milliseconds before its retention is over from which on an output is not looked for any more."""
_NAMED = 3  # runs that a finding names


@dataclass(slots=True)
class Lost:
    """A run whose outputs are gone: `outputs` by id, each with its topic and the digest of its value.

    `triggers` say where its events stand (topic, partition, offset), with the idempotency key of each. `sent` are the
    retry records (partition, offset) that asked for it last, `times` how often that was.
    """

    run: str
    triggers: list[tuple[str, int, int, bytes]]
    join_key: bytes
    outputs: dict[str, tuple[str, bytes]]
    sent: list[tuple[int, int]] = field(default_factory=list)
    times: int = 0
    why: str = ""

    def record(self) -> tuple[Any, ...]:
        """As it is kept between two sweeps."""
        return self.run, self.triggers, self.join_key, self.outputs, self.sent, self.times, self.why

    @classmethod
    def of(cls, told: tuple[Any, ...]) -> Lost:
        """From what was kept."""
        run, triggers, join_key, outputs, sent, times, why = told
        known = {identity: (topic, said) for identity, (topic, said) in outputs.items()}
        at, asked = [(*one,) for one in triggers], [(*one,) for one in sent]
        return cls(run, at, join_key, known, asked, times, why)


@dataclass(slots=True)
class Outputs:
    """The live lane of one pipeline. `open` are the runs whose outputs are gone, as of the last look.

    `next_offset` is up to where the ledger was compared; it falls behind where an output topic could not be read.
    """

    pipeline: str
    next_offset: int = 0
    topics: dict[str, tuple[str, dict[int, int]]] = field(default_factory=dict)
    open: dict[str, Lost] = field(default_factory=dict)
    note: str = ""
    _stable: dict[str, tuple[str, dict[int, int]]] = field(default_factory=dict)
    _since: dict[str, int] = field(default_factory=dict)
    _expected: array[int] = field(default_factory=lambda: array("q"))

    def begin(self, declaration: Declaration, cluster: Cluster) -> None:
        """Before the ledger is read: which topics are compared, and up to where they are decided."""
        self.note, self._since, self._expected = "", {}, array("q")
        try:
            self._begin(declaration, cluster)
        except FarandoleError as away:
            self.note = f"outputs were not compared: {away}"

    def _begin(self, declaration: Declaration, cluster: Cluster) -> None:
        there = cluster.admin.topics(declaration.emits)
        settings = cluster.admin.configs(list(there))
        places = [(name, p) for name, topic in there.items() for p in range(topic.partitions)]
        stable = cluster.admin.ends(places, committed=True)
        self._stable = {
            name: (topic.topic_id, {p: stable[name, p] for p in range(topic.partitions)})
            for name, topic in there.items()
        }
        for name, topic in there.items():
            known = self.topics.get(name)
            if known is not None and known[0] != topic.topic_id:
                continue  # another topic of that name: what was told of the former stood in that one
            kept = settings[name]
            if "compact" not in kept.get("cleanup.policy", "") and int(kept.get("retention.bytes", -1)) < 0:
                keeps = int(kept.get("retention.ms", -1))
                self._since[name] = cluster.clock.millis() - keeps + MARGIN if keeps >= 0 else 0

    def take(self, entry: Mapping[str, Any], raw: RawRecord) -> None:
        """One line of the ledger, decoded."""
        if raw.offset >= self.next_offset:
            self._expected.extend(_mark(identity.encode()) for identity, *_ in self._of(entry, raw))

    def end(self, cluster: Cluster, ledger: Iterator[tuple[Mapping[str, Any], RawRecord]], end: int, most: int) -> None:
        """After the ledger was read up to `end`: what is not there. `ledger` gives its lines once more, if need be.

        More than `most` runs are not kept: the next sweep finds them again.
        """
        if self.note:
            return
        try:
            lost = self._missing(cluster)
        except FarandoleError as away:
            self.note = f"outputs were not compared: {away}"
            return
        if lost:
            found = self._lost(lost, ledger)
            if len(found) > most:
                self.note = f"the outputs of {len(found)} runs are not there, and a sweep repairs {most} at most"
                return
            self.open.update({run: one for run, one in found.items() if run not in self.open})
        self.next_offset, self.topics = max(self.next_offset, end), dict(self._stable)

    def _of(self, entry: Mapping[str, Any], raw: RawRecord) -> Iterator[tuple[str, str, bytes]]:
        """The outputs that must be there, if a line tells of a run that is done: id, topic and digest."""
        if entry["kind"] == "run" and entry["pipeline"] == self.pipeline and not entry["epoch"]:
            for one in entry["outputs"] if entry["state"] in FINISHED else ():
                since = self._since.get(one["topic"])
                if since is not None and raw.timestamp >= since:
                    yield one["id"], one["topic"], one["digest"]

    def _missing(self, cluster: Cluster) -> set[int]:
        """The marks of the outputs that were expected and are not there; those of `open` that are are taken out."""
        wanted = array("q", sorted(self._expected))
        there = bytearray(len(wanted))
        again = {identity: one for one in self.open.values() for identity in one.outputs}
        for name in self._since if wanted or again else ():
            known = self.topics.get(name, ("", {}))[1]
            with cluster.read(name) as reader:
                ends = reader.undecided_ends()
                for batch in reader.read({p: known.get(p, 0) for p in ends}, until=ends):
                    for raw in batch:
                        identity = next((value for header, value in raw.headers if header == "ce_id"), None)
                        if identity is None:
                            continue
                        at = bisect_left(wanted, mark := _mark(identity))
                        while at < len(wanted) and wanted[at] == mark and not there[at]:
                            there[at] = 1
                            at += 1
                        if again and (one := again.pop(text := identity.decode("utf-8", "replace"), None)) is not None:
                            del one.outputs[text]
        self.open = {run: one for run, one in self.open.items() if one.outputs}
        return {wanted[at] for at, seen in enumerate(there) if not seen}

    def _lost(self, lost: set[int], ledger: Iterator[tuple[Mapping[str, Any], RawRecord]]) -> dict[str, Lost]:
        found: dict[str, Lost] = {}
        for entry, raw in ledger:
            gone = {i: (topic, said) for i, topic, said in self._of(entry, raw) if _mark(i.encode()) in lost}
            if gone:
                at = [
                    (cause["topic"], cause["partition"], cause["offset"], key)
                    for cause, key in zip(entry["triggers"], entry["keys"], strict=True)
                ]
                found[entry["id"]] = Lost(entry["id"], at, bytes.fromhex(entry["join_key"] or ""), gone)
        return found

    def findings(self) -> Iterator[Finding]:
        """The outputs that are gone, by topic; or why that is not known."""
        if self.note:
            yield Finding("outputs-gone", self.pipeline, "", self.note)
        gone: dict[str, list[Lost]] = {}
        for one in self.open.values():
            for topic in dict.fromkeys(topic for topic, _ in one.outputs.values()):
                gone.setdefault(topic, []).append(one)
        for topic, many in gone.items():
            events = sum(at == topic for one in many for at, _ in one.outputs.values())
            named = ", ".join(one.run for one in many[:_NAMED]) + " …" * (len(many) > _NAMED)
            whys = "; ".join(dict.fromkeys(one.why for one in many))
            says = f"{events} events that {len(many)} runs have emitted are not there: {named}; {whys}"
            following = f"farandole runs show {self.pipeline} {many[0].run}"
            yield Finding("outputs-gone", self.pipeline, topic, says, following=following)

    def clear(self) -> None:
        """Nothing of it counts: the ledger is another one."""
        self.next_offset = 0
        self.open.clear()

    def record(self) -> dict[str, Any]:
        """As it is kept between two sweeps."""
        open_ = [one.record() for one in self.open.values()]
        return {"next_offset": self.next_offset, "topics": self.topics, "open": open_}

    @classmethod
    def of(cls, pipeline: str, told: Mapping[str, Any]) -> Outputs:
        """From what was kept."""
        topics = {name: (topic_id, dict(at)) for name, (topic_id, at) in told.get("topics", {}).items()}
        known = {lost.run: lost for lost in map(Lost.of, told.get("open", ()))}
        return cls(pipeline, told.get("next_offset", 0), topics, known)


def _mark(identity: bytes) -> int:
    """Eight bytes of an id: a million outputs take eight megabytes while they are looked for."""
    return hash(identity)
