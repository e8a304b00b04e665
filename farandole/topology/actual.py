"""What stands on the cluster and in the registry, as far as the repository has an opinion about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from farandole.kafka.admin import Admin
from farandole.kafka.registry import Registry
from farandole.topology.desired import Desired, WantedGroup, WantedSubject

Begin = tuple[str, str | int]  # topic, and where: "beginning", "now", or milliseconds since 1970


@dataclass(frozen=True, slots=True)
class ActualTopic:
    """A topic that exists: its partitions and effective settings."""

    partitions: int
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActualSubject:
    """A subject: its compatibility level, its schemas (oldest first), and how the wanted one stands to them.

    `refusal` is the registry's word against the wanted schema, empty if it would take it.
    """

    compatibility: str = "NONE"
    versions: tuple[dict[str, Any], ...] = ()
    registered: bool = False
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class ActualGroup:
    """A group: whether it has members, and the partitions that it has committed."""

    active: bool = False
    committed: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Actual:
    """All that stands. `offsets`: for each place where a group would begin, the offset by partition."""

    topics: dict[str, ActualTopic] = field(default_factory=dict)
    subjects: dict[str, ActualSubject] = field(default_factory=dict)
    groups: dict[str, ActualGroup] = field(default_factory=dict)
    offsets: dict[Begin, dict[int, int]] = field(default_factory=dict)


def read_actual(desired: Desired, admin: Admin, registry: Registry) -> Actual:
    """Ask broker and registry about what is desired, and about nothing else. Raises Unreachable and SettingsError."""
    topics = admin.topics([topic.name for topic in desired.topics])
    settings = admin.configs(list(topics))
    found = Actual({name: ActualTopic(topic.partitions, settings[name]) for name, topic in topics.items()})
    for subject in desired.subjects:
        found.subjects[subject.name] = _subject(subject, registry)
    for group in desired.groups:
        state = admin.group(group.name)
        found.groups[group.name] = ActualGroup(state.active, frozenset(admin.committed(group.name)))
        if not state.active:
            _offsets(found, group, admin)
    return found


def _subject(wanted: WantedSubject, registry: Registry) -> ActualSubject:
    level, versions = registry.compatibility(wanted.name), registry.versions(wanted.name)
    # some registries keep a text of their own: they know their own when they see it
    if wanted.schema in versions or (versions and registry.lookup(wanted.name, wanted.schema) is not None):
        return ActualSubject(level, versions, registered=True)
    taken, reasons = registry.compatible(wanted.name, wanted.schema) if versions else (True, [])
    refusal = "" if taken else " ".join(reasons) or "the registry finds it incompatible with an older version"
    return ActualSubject(level, versions, refusal=refusal)


def _offsets(found: Actual, group: WantedGroup, admin: Admin) -> None:
    committed = found.groups[group.name].committed
    for topic, begin in group.begins.items():
        if topic not in found.topics or (topic, begin) in found.offsets:
            continue
        partitions = [(topic, number) for number in range(found.topics[topic].partitions)]
        if committed.issuperset(partitions):
            continue
        if begin == "beginning":
            offsets = admin.starts(partitions)
        elif isinstance(begin, int):
            offsets = admin.offsets_at(partitions, begin)
        else:  # the last stable offset: what an open transaction holds has not been said yet
            offsets = admin.ends(partitions, committed=True)
        found.offsets[topic, begin] = {number: offset for (_, number), offset in offsets.items()}
