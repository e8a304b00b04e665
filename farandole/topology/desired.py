"""What the repository says: topics, subjects, and where new groups begin.

Read from ``topology/topics.yaml`` and ``topology/clusters/<name>.yaml``, from the schemas under
``schemas/avro`` and from the services' declarations. No server is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from farandole.clock import seconds
from farandole.declaration import Declaration
from farandole.errors import DeclarationError
from farandole.problem import nearest
from farandole.schemagen import load_schemas
from farandole.topics import (
    AUDIT,
    BEATS,
    CONTROL,
    EXPECTATIONS,
    LEDGER,
    RHYTHM,
    TELEMETRY,
    TICKS,
    own_schema_file,
    own_schemas,
)
from farandole.topology.yamlfile import YamlFile

COMPATIBILITY = "BACKWARD_TRANSITIVE"
"""A new reader reads everything that its topic still holds, whichever version wrote it."""

_DAY = 86_400.0
_LETTERS_KEPT = 30 * _DAY  # at least; a dead letter that expires unseen is a loss
_AFTER_LONGEST_PARK = 7 * _DAY
_TOPIC_KEYS = ("partitions", "retention", "settings")
_FOREVER = "-1"
_OURS = ("cleanup.policy", "message.timestamp.type", "retention.ms")

_OF_EVENTS = {"cleanup.policy": "delete", "message.timestamp.type": "CreateTime"}
# Our own topics take the broker's time: a producer's clock that is ahead would be refused, and a record from
# one that is far behind would be the next that retention deletes.
_OF_LETTERS = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
_WEEK, _DAY_MS = str(int(7 * _DAY * 1000)), str(int(_DAY * 1000))
_OF_OURS = {
    LEDGER: {
        **_OF_LETTERS,
        "cleanup.policy": "compact,delete",
        "min.compaction.lag.ms": str(3_600_000),
        "delete.retention.ms": _WEEK,
    },
    CONTROL: {**_OF_LETTERS, "cleanup.policy": "compact", "delete.retention.ms": _WEEK},
    AUDIT: _OF_LETTERS,
    EXPECTATIONS: {**_OF_LETTERS, "cleanup.policy": "compact,delete", "delete.retention.ms": _WEEK},
    BEATS: {**_OF_LETTERS, "cleanup.policy": "compact,delete", "segment.ms": _DAY_MS, "delete.retention.ms": _WEEK},
    TELEMETRY: _OF_LETTERS,
    RHYTHM: {**_OF_LETTERS, "cleanup.policy": "compact", "delete.retention.ms": _WEEK},
}
# commands are few, and a pause that retention forgot would end by itself
_UNLESS_SAID = {
    LEDGER: {"partitions": 12, "retention": "400d"},
    CONTROL: {"partitions": 1, "retention": "forever"},
    AUDIT: {"partitions": 1, "retention": "forever"},
    EXPECTATIONS: {"partitions": 1, "retention": "400d"},
    BEATS: {"partitions": 1, "retention": "30d"},
    TELEMETRY: {"partitions": 6, "retention": "90d"},
    RHYTHM: {"partitions": 1, "retention": "forever"},
}


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as it should stand. `inputs`: it has as many partitions as the largest of these topics."""

    name: str
    partitions: int
    replication: int
    settings: dict[str, str]
    inputs: tuple[str, ...] = ()
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class WantedSubject:
    """A subject and the schema that should be its latest. `schema` is the parsed Avro schema."""

    name: str
    schema: dict[str, Any]
    compatibility: str = COMPATIBILITY
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class WantedGroup:
    """A consumer group and where it begins on each topic: ``beginning``, ``now``, or milliseconds since 1970."""

    name: str
    begins: dict[str, str | int]
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Desired:
    """All that should stand, in the order of the files."""

    topics: tuple[WantedTopic, ...] = ()
    subjects: tuple[WantedSubject, ...] = ()
    groups: tuple[WantedGroup, ...] = ()


def read_desired(root: Path, declarations: Sequence[Declaration], *, cluster: str = "local") -> Desired:
    """What the repository at `root` says for the named cluster.

    Raises DeclarationError, with its place, for a malformed file, an unknown key or topic, a number or
    span that is none, for a pipeline that listens for an event type without a schema, and for a schedule
    that is wrong.
    """
    file = YamlFile(root / "topology" / "topics.yaml")
    file.mapping(allowed=("defaults", "topics"))
    # every repository has the topics of our own, whether or not it keeps a copy of their schemas
    schemas = {**own_schemas(), **load_schemas(root / "schemas" / "avro")}
    timetable = root / "topology" / "schedules.yaml"
    if timetable.exists():
        from farandole.sources.timetable import check_timetable  # what it needs is an extra

        check_timetable(timetable, schemas)
    topics = _Topics(file, *_cluster(root, cluster))
    wanted = [topics.of_events(name) for name in schemas]
    for declaration in declarations:
        _known(declaration, schemas)
        wanted += [topics.of_retries(declaration), topics.of_dead_letters(declaration)]
    topics.refuse_unknown({topic.name for topic in wanted})
    return Desired(
        tuple(wanted),
        tuple(
            WantedSubject(f"{name}-value", schema, place=_schema_file(root, name)) for name, schema in schemas.items()
        ),
        tuple(_group(declaration) for declaration in declarations),
    )


class _Topics:
    """The topics of topics.yaml: its defaults, and what it says of single ones."""

    def __init__(self, file: YamlFile, replication: int, settings: dict[str, str]) -> None:
        self._file, self._replication, self._settings = file, replication, settings
        defaults = file.mapping("defaults", allowed=_TOPIC_KEYS)
        for key in ("partitions", "retention"):
            if key not in defaults:
                example = "6" if key == "partitions" else "30d"
                raise file.wrong(f"`defaults` lacks `{key}`", "defaults", hint=f"write `{key}: {example}` under it")
        self._single = file.mapping("topics")

    def of_events(self, name: str) -> WantedTopic:
        kind = _OF_OURS.get(name, _OF_EVENTS)
        retention, place = self._value(name, "retention")
        kept = _kept(retention, place)
        if name == TICKS and kept != _FOREVER:
            # the newest tick of a schedule is where its clock goes on from, also when that is a year old
            kind = {**kind, "cleanup.policy": "compact", "min.compaction.lag.ms": kept}
        return self._topic(name, {**kind, "retention.ms": kept})

    def of_retries(self, declaration: Declaration) -> WantedTopic:
        longest = max((_longest_pause(step.retry.backoff) for step in declaration.steps), default=0.0)
        least = max(_LETTERS_KEPT, longest + _AFTER_LONGEST_PARK)
        return self._letters(declaration.retry_topic, declaration, least)

    def of_dead_letters(self, declaration: Declaration) -> WantedTopic:
        return self._letters(declaration.dead_letter_topic, declaration, _LETTERS_KEPT)

    def refuse_unknown(self, names: set[str]) -> None:
        for name in self._single:
            if name not in names:
                hint = nearest(str(name), names) or f"write schemas/avro/{name}.avsc first: every topic has a schema"
                raise self._file.wrong(
                    f"no event type or pipeline has a topic `{name}`", "topics", str(name), hint=hint
                )

    def _letters(self, name: str, declaration: Declaration, least: float) -> WantedTopic:
        said = self._file.mapping("topics", name, allowed=_TOPIC_KEYS).get("retention")
        place = self._file.place("topics", name, "retention")
        kept = _kept(said, place) if said is not None else str(int(least * 1000))
        if -1 < int(kept) < least * 1000:
            raise DeclarationError(
                f"{name} is kept for {said}, which is too short", place=place, hint=f"keep it for {least / _DAY:g}d"
            )
        return self._topic(name, {**_OF_LETTERS, "retention.ms": kept}, inputs=declaration.topics)

    def _topic(self, name: str, settings: dict[str, str], *, inputs: tuple[str, ...] = ()) -> WantedTopic:
        partitions, place = self._value(name, "partitions")
        if inputs and "partitions" not in self._file.mapping("topics", name):
            partitions = 1  # the largest input decides
        if not isinstance(partitions, int) or isinstance(partitions, bool) or partitions < 1:
            raise DeclarationError(
                f"partitions: {partitions!r} is no number of partitions", place=place, hint="write 6"
            )
        more = self._file.mapping("topics", name, allowed=_TOPIC_KEYS).get("settings") or {}
        own = {**self._file.mapping("defaults", "settings"), **self._file.mapping("topics", name, "settings")}
        for setting in (s for s in _OURS if s in own):
            keys = ("topics", name, "settings", setting) if setting in more else ("defaults", "settings", setting)
            hint = (
                "write `retention: 30d`" if setting == "retention.ms" else "leave it out: the kind of topic decides it"
            )
            raise self._file.wrong(f"`{setting}` is not set here", *keys, hint=hint)
        spelled = {setting: _spelled(value) for setting, value in own.items()}
        return WantedTopic(
            name, partitions, self._replication, {**self._settings, **settings, **spelled}, inputs, place=place
        )

    def _value(self, name: str, key: str) -> tuple[Any, str]:
        own = self._file.mapping("topics", name, allowed=_TOPIC_KEYS)
        if key in own:
            return own[key], self._file.place("topics", name, key)
        if name in _UNLESS_SAID:
            return _UNLESS_SAID[name][key], self._file.place()
        return self._file.mapping("defaults")[key], self._file.place("defaults", key)


def _cluster(root: Path, name: str) -> tuple[int, dict[str, str]]:
    folder = root / "topology" / "clusters"
    if not (folder / f"{name}.yaml").exists():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise DeclarationError(
            f"there is no cluster {name!r}",
            place=str(folder),
            hint=f"it has {', '.join(known)}" if known else f"write {folder / name}.yaml",
        )
    file = YamlFile(folder / f"{name}.yaml")
    content = file.mapping(allowed=("replication", "min_insync_replicas"))
    numbers = []
    for key in ("replication", "min_insync_replicas"):
        number = content.get(key)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise file.wrong(f"`{key}` must be a number of replicas, not {number!r}", key, hint=f"write `{key}: 1`")
        numbers.append(number)
    replication, in_sync = numbers
    if in_sync > replication:
        raise file.wrong(
            f"{in_sync} replicas can never be in sync where there are {replication}",
            "min_insync_replicas",
            hint="write 2 for a replication of 3, 1 for a replication of 1",
        )
    # an unclean election is incompatible with exactly-once: it forgets what was committed
    return replication, {"min.insync.replicas": str(in_sync), "unclean.leader.election.enable": "false"}


def _schema_file(root: Path, name: str) -> str:
    own = root / "schemas" / "avro" / f"{name}.avsc"
    return str(own if own.exists() or not name.startswith("farandole.") else own_schema_file(name))


def _known(declaration: Declaration, schemas: dict[str, Any]) -> None:
    for event_type in (*declaration.topics, *declaration.emits):
        if event_type not in schemas:
            raise DeclarationError(
                f"{declaration.name} names the event type `{event_type}`, which has no schema",
                place=declaration.source,
                hint=nearest(event_type, schemas) or f"write schemas/avro/{event_type}.avsc",
            )


def _group(declaration: Declaration) -> WantedGroup:
    since = _since(declaration)
    # whatever was parked or redriven before the first start is there because somebody wants it run
    begins: dict[str, str | int] = {**dict.fromkeys(declaration.topics, since), declaration.retry_topic: "beginning"}
    return WantedGroup(declaration.name, begins, place=declaration.source)


def _since(declaration: Declaration) -> str | int:
    if declaration.since in {"beginning", "now"}:
        return declaration.since
    try:
        moment = datetime.fromisoformat(declaration.since)
    except ValueError:
        raise DeclarationError(
            f"{declaration.name} begins at {declaration.since!r}, which is no time",
            place=declaration.source,
            hint='write "beginning", "now", or a time such as 2013-01-01T00:00Z',
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _longest_pause(backoff: str) -> float:
    return seconds(backoff.rpartition("..")[2])


def _kept(span: Any, place: str) -> str:
    if span == "forever":
        return _FOREVER
    try:
        kept = seconds(span if isinstance(span, str) else "")
    except ValueError as e:
        message = str(e) if isinstance(span, str) else f"retention: {span!r} is no span of time"
        raise DeclarationError(message, place=place, hint="write it like 30d, or `forever`") from None
    return str(int(kept * 1000))


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
