"""The timetable: ``topology/schedules.yaml``, read into schedules, with every mistake at its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo, available_timezones

import yaml

from farandole.clock import seconds
from farandole.errors import DeclarationError
from farandole.problem import Problem, nearest, place, refuse
from farandole.sources.calendar import calendar_problem, calendars
from farandole.sources.schedule import CatchUp, Each, Schedule, cron_problem
from farandole.topics import TICKS
from farandole.yamlnode import Reader

FILE = "topology/schedules.yaml"
KEYS = ("cron", "zone", "since", "calendar", "each", "interval", "catch_up", "about")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_INTERVALS = ("previous", "day")
_CHAINED = 400  # ticks whose intervals are compared: more than a year of days
_NEEDED = {"cron": "30 2 * * *", "zone": "Europe/Paris", "since": "2026-01-31"}


def read_timetable(path: Path | str = FILE) -> dict[str, Schedule]:
    """The schedules of a file by name. Raises Mistakes, which tells all that is wrong with it."""
    reader = Reader(Path(path))
    root = reader.mapping(reader.root(), "the timetable", ("schedules",))
    read = {}
    for name, node in reader.mapping(root.get("schedules"), "schedules").items():
        if not _NAME.fullmatch(name):
            reader.wrong(node, f"{name!r} is no name of a schedule", "small letters, digits and - . _ between them")
        before = len(reader.problems)
        schedule = _Entry(reader, name, node).schedule()
        if schedule is not None and len(reader.problems) == before:
            read[name] = schedule
            if not schedule.comes():
                message = f"{name} never ticks: no time that {schedule.cron!r} names is on a day that counts"
                reader.wrong(node, message, "choose other days, or another word for `each`")
    refuse(sorted(reader.problems, key=lambda one: [int(n) for n in one.place.rsplit(":", 2)[1:]]))
    return read


def check_timetable(path: Path, event_types: Collection[str]) -> dict[str, Schedule]:
    """The schedules of a file, in a repository with these event types. Raises Mistakes."""
    read = read_timetable(path)
    if read and TICKS not in event_types:
        hint = "Farandole's own repository has it; then farandole schemas generate"
        refuse(
            [Problem(place(str(path), 1), f"there is no schemas/avro/{TICKS}.avsc for the events of its ticks", hint)]
        )
    return read


def find_schedule(name: str, path: Path | str = FILE) -> Schedule:
    """The schedule of that name. Raises DeclarationError where there is none."""
    read = read_timetable(path)
    if name not in read:
        hint = nearest(name, read) or f"there are {', '.join(read) or 'none'}"
        raise DeclarationError(f"there is no schedule `{name}`", place=str(path), hint=hint)
    return read[name]


def notes(schedule: Schedule, now: datetime) -> Iterator[str]:
    """What is worth knowing of a schedule: when it comes next, and whether its intervals leave anything out."""
    ticks = list(islice(schedule.ticks(max(schedule.since, now)), _CHAINED))
    local = ticks[0].nominal.astimezone(ZoneInfo(schedule.zone))
    yield f"next at {local:%Y-%m-%d %H:%M %Z}, about {ticks[0].interval}"
    for one, following in pairwise(ticks):
        if one.interval.end != following.interval.start:
            word = "overlap" if one.interval.end > following.interval.start else "leave gaps"
            yield (
                f"intervals {word}, such as {one.interval} and {following.interval}; "
                "with `interval: previous` they join without"
            )
            return


class _Entry:
    """One schedule of the file; what is wrong with it is told to the reader."""

    def __init__(self, reader: Reader, name: str, node: yaml.Node) -> None:
        self._reader, self._name, self._node = reader, name, node
        self._values = reader.mapping(node, f"schedule {name}", KEYS)

    def schedule(self) -> Schedule | None:
        if not isinstance(self._node, yaml.MappingNode):
            return None  # told already
        for key, example in _NEEDED.items():
            if key not in self._values:
                self._wrong("", f"lacks `{key}`", f"write `{key}: {example}`")
        cron, zone, calendar = self._cron(), self._zone(), self._calendar()
        since = self._since(zone)
        each, catch_up, interval = self._each(calendar), self._one_of("catch_up", get_args(CatchUp)), self._interval()
        if cron is None or zone is None or since is None:
            return None
        about = self._text("about")
        return Schedule(self._name, cron, zone, since, calendar, each, interval, catch_up, about)  # type: ignore[arg-type]

    def _cron(self) -> str | None:
        if "cron" not in self._values:
            return None
        written = " ".join(self._text("cron").split())
        if problem := cron_problem(written):
            self._wrong("cron", *problem)
            return None
        return written

    def _zone(self) -> str | None:
        if "zone" not in self._values:
            return None
        written = self._text("zone")
        try:
            ZoneInfo(written)
        except (LookupError, ValueError, OSError):
            hint = nearest(written, available_timezones()) or "write it like Europe/Paris, or UTC"
            self._wrong("zone", f"there is no time zone {written!r}", hint)
            return None
        return written

    def _since(self, zone: str | None) -> datetime | None:
        if "since" not in self._values:
            return None
        written = self._text("since")
        try:
            moment = datetime.fromisoformat(written)
        except ValueError:
            self._wrong("since", f"{written!r} is no time", "write the day it begins, such as 2026-01-31")
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(zone or "UTC"))
        if moment.year < 1970:  # noqa: PLR2004
            self._wrong("since", f"{written} is before 1970", "write the day it begins")
            return None
        return moment.astimezone(UTC)

    def _calendar(self) -> str:
        written = self._text("calendar")
        if written and (problem := calendar_problem(written)):
            hint = nearest(written, calendars()) or "a country (FR), a part of one (US-NY) or an exchange (XNYS)"
            self._wrong("calendar", problem, hint)
            return ""
        return written

    def _each(self, calendar: str) -> str:
        each = self._one_of("each", get_args(Each), "business" if calendar else "day")
        if each == "business" and "calendar" not in self._values:
            self._wrong("each", "`business` days of no calendar", "add `calendar: FR`, or say `each: weekday`")
        return each

    def _interval(self) -> str:
        written = self._text("interval") or "previous"
        if written in _INTERVALS:
            return written
        try:
            right = seconds(written) > 0
        except ValueError:
            right = False
        if not right:
            hint = nearest(written, _INTERVALS) or "previous, day, or a span such as 1h"
            self._wrong("interval", f"{written!r} is no interval", hint)
        return written

    def _one_of(self, key: str, words: tuple[str, ...], default: str = "") -> str:
        written = self._text(key) or default or words[0]
        if written not in words:
            self._wrong(key, f"takes {', '.join(words)}, not {written!r}", nearest(written, words) or "choose one")
        return written

    def _text(self, key: str) -> str:
        return self._reader.text(self._values.get(key), f"{self._name}.{key}")

    def _wrong(self, key: str, message: str, hint: str) -> None:
        title = f"{self._name}.{key}:" if key else self._name
        self._reader.wrong(self._values.get(key, self._node), f"{title} {message}", hint)
