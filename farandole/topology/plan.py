"""From what stands to what should stand: an ordered list of changes, as data.

Explaining the plan and carrying it out walk the same list. Nothing in it deletes or recreates anything, and
what the repository does not name is not mentioned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from farandole.topology.actual import Actual, ActualGroup, ActualSubject
from farandole.topology.desired import Desired, WantedGroup, WantedSubject, WantedTopic
from farandole.topology.evolution import conflicts

CREATE, ALTER, GROW = "create topic", "alter topic", "add partitions"
COMPATIBILITY, REGISTER, SEED = "set compatibility", "register schema", "seed offsets"


@dataclass(frozen=True, slots=True)
class Change:
    """One step from what stands to what should stand. `refused` says why it is not taken, `hint` what helps."""

    act: str
    target: str
    words: str
    content: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    hint: str = ""
    place: str = ""

    @property
    def sign(self) -> str:
        """``+`` for what is new, ``~`` for what changes, ``!`` for what is refused."""
        if self.refused:
            return "!"
        return "+" if self.act in {CREATE, SEED} or self.content.get("version") == 1 else "~"


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes, in the order in which they are made; empty when nothing is to be done."""

    changes: tuple[Change, ...] = ()

    @property
    def refused(self) -> tuple[Change, ...]:
        """The changes that will not be made; while there are any, none is."""
        return tuple(change for change in self.changes if change.refused)


def make_plan(desired: Desired, actual: Actual, *, accept_reorder: bool = False) -> Plan:
    """The way from `actual` to `desired`. A pure function.

    `accept_reorder` allows more partitions for a topic that exists, which moves record keys.
    """
    partitions = _partitions(desired, actual)
    changes: list[Change] = []
    for topic in desired.topics:
        changes += _topic(topic, partitions[topic.name], actual, accept_reorder=accept_reorder)
    for subject in desired.subjects:
        changes += _subject(subject, actual.subjects.get(subject.name, ActualSubject()))
    for group in desired.groups:
        changes += _group(group, partitions, actual)
    # topics first and offsets last, so that whoever looks in between finds nothing half-made
    order = (CREATE, ALTER, GROW, COMPATIBILITY, REGISTER, SEED)
    return Plan(tuple(sorted(changes, key=lambda change: order.index(change.act))))


def _partitions(desired: Desired, actual: Actual) -> dict[str, int]:
    """How many partitions each topic will have: Kafka adds them, and takes none away."""
    counts: dict[str, int] = {}
    for topic in sorted(desired.topics, key=lambda topic: bool(topic.inputs)):
        stands = actual.topics[topic.name].partitions if topic.name in actual.topics else 0
        counts[topic.name] = max(topic.partitions, stands, *(counts.get(name, 0) for name in topic.inputs), 0)
    return counts


def _topic(wanted: WantedTopic, partitions: int, actual: Actual, *, accept_reorder: bool) -> Iterator[Change]:
    stands = actual.topics.get(wanted.name)
    if stands is None:
        words = f"{_count(partitions, 'partition')}, {wanted.settings['cleanup.policy']}, {_kept(wanted)}"
        content = {"partitions": partitions, "replication": wanted.replication, "settings": wanted.settings}
        yield Change(CREATE, wanted.name, words, content)
        return
    differing = {name: value for name, value in wanted.settings.items() if stands.settings.get(name) != value}
    if differing:
        words = ", ".join(f"{name} {stands.settings.get(name, 'unset')} → {value}" for name, value in differing.items())
        yield Change(ALTER, wanted.name, words, {"settings": differing}, place=wanted.place)
    if partitions > stands.partitions:
        yield Change(
            GROW,
            wanted.name,
            f"{stands.partitions} → {_count(partitions, 'partition')}",
            {"partitions": partitions},
            refused="" if accept_reorder else "more partitions move record keys: their order is lost at the border",
            hint="" if accept_reorder else "say --accept-reorder if nobody depends on it, or keep the number",
            place=wanted.place,
        )


def _subject(wanted: WantedSubject, stands: ActualSubject) -> Iterator[Change]:
    if stands.versions and stands.compatibility != wanted.compatibility:
        words = f"{stands.compatibility} → {wanted.compatibility}"
        yield Change(COMPATIBILITY, wanted.name, words, {"level": wanted.compatibility})
    if stands.registered:
        return
    version = len(stands.versions) + 1
    refused, hint = _verdict(wanted, stands)
    if version == 1:
        words = f"version 1, {wanted.compatibility}"
    else:
        words = f"version {version - 1} → {version}{_fields(wanted.schema, stands.versions[-1])}"
        words += "" if refused else "; reads all older versions"
    content = {"version": version, "schema": wanted.schema, "level": wanted.compatibility}
    yield Change(REGISTER, wanted.name, words, content, refused, hint, wanted.place)


def _verdict(wanted: WantedSubject, stands: ActualSubject) -> tuple[str, str]:
    """Why the schema cannot be registered, and the remedy; both empty if it can."""
    for version, older in enumerate(stands.versions, start=1):
        if found := conflicts(wanted.schema, older):
            reasons = "; ".join(f"field `{conflict.field}` {conflict.reason}" for conflict in found)
            remedies = "; ".join(f"`{conflict.field}`: {conflict.remedy}" for conflict in found)
            return f"it does not read version {version}: {reasons}", remedies
    return stands.refusal, "a breaking change is a new event type, .v2" if stands.refusal else ""


def _fields(new: dict[str, Any], old: dict[str, Any]) -> str:
    names, before = ([field["name"] for field in schema.get("fields", ())] for schema in (new, old))
    signs = [f"+ {name}" for name in names if name not in before] + [
        f"- {name}" for name in before if name not in names
    ]
    return f": {', '.join(signs)}" if signs else ""


def _group(wanted: WantedGroup, partitions: dict[str, int], actual: Actual) -> Iterator[Change]:
    stands = actual.groups.get(wanted.name, ActualGroup())
    if stands.active:
        return  # its members hold their own positions, and begin what is new to them by the same declaration
    for topic, begin in wanted.begins.items():
        found = actual.offsets.get((topic, begin), {})
        new = [n for n in range(partitions.get(topic, 0)) if (topic, n) not in stands.committed]
        last = max((n for name, n in stands.committed if name == topic), default=-1)
        # a partition that was added to a topic already read is read whole: nothing of it was left out on purpose
        added = [n for n in new if 0 <= last < n]
        # partitions that are still to come are empty: every `since` begins them at 0
        by_since = {n: found.get(n, 0) for n in new if n not in added}
        for offsets, where in ((by_since, _begin(begin)), (dict.fromkeys(added, 0), _begin("beginning"))):
            if offsets:
                words = f"{topic} at {where} ({_count(len(offsets), 'partition')})"
                yield Change(SEED, wanted.name, words, {"topic": topic, "offsets": offsets}, place=wanted.place)


def _begin(begin: str | int) -> str:
    if isinstance(begin, str):
        return {"beginning": "the beginning", "now": "its end"}[begin]
    return f"{datetime.fromtimestamp(begin / 1000, UTC):%Y-%m-%dT%H:%MZ}"


def _kept(topic: WantedTopic) -> str:
    milliseconds = int(topic.settings["retention.ms"])
    return "kept for ever" if milliseconds < 0 else f"kept {milliseconds / 86_400_000:g} d"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
