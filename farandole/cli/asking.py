"""What the commands share that ask about one pipeline and one interval."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from farandole.errors import FarandoleError, Unreachable

if TYPE_CHECKING:
    from farandole.declaration import Declaration
    from farandole.event import Interval
    from farandole.inquiry import Inquiry
    from farandole.sources.schedule import Schedule

T = TypeVar("T")

AGAIN = 5
"""Seconds for which a projector that is behind is waited for."""


@contextmanager
def open_inquiry(declaration: Declaration) -> Iterator[Inquiry]:
    """What asks all servers about a pipeline, and about those that make what it takes."""
    from farandole.cli.records import clients
    from farandole.clock import SystemClock
    from farandole.inquiry import Inquiry
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.kafka.permissions import Permissions
    from farandole.ledger.database import read_projection
    from farandole.scan import Scanner
    from farandole.topics import own_schemas

    with clients() as opened:
        settings, properties = opened.settings, opened.settings.client_properties()
        codec = Codec(opened.registry, own_schemas(), trusted=own_schemas())
        control = Control(settings.bootstrap(), codec, properties)
        admin = Permissions(settings.bootstrap(), properties)
        scanner = Scanner(admin, opened.reader, opened.codec)
        database = read_projection(settings.database("projector"))
        try:
            yield Inquiry(
                scanner,
                database.reading,
                {one.name: one for one in [*_others(), declaration]},
                list(_schedules().values()),
                lambda name: _paused(control, name),
                SystemClock(),
                admin.denied,
            )
        finally:
            database.close()


def _others() -> Iterator[Declaration]:
    """The pipelines that are declared here; one that cannot be read makes nothing that could be asked about."""
    from farandole.find import find_declaration, readable, services

    declared, _ = readable(services(), find_declaration)
    yield from declared.values()


def _schedules() -> Mapping[str, Schedule]:
    import os
    from pathlib import Path

    from farandole.sources.timetable import FILE, read_timetable

    path = Path(os.environ.get("FARANDOLE_SCHEDULES", FILE))
    return read_timetable(path) if path.exists() else {}


def _paused(control: Any, name: str) -> Mapping[str, Any] | None:
    """The command that holds a pipeline, if one does."""
    from farandole.clock import iso_of
    from farandole.control import PAUSE, pipeline_id

    try:
        found = control.load(pipeline_id(name)).get(pipeline_id(name))
    except Unreachable:
        raise
    except FarandoleError:  # no control topic: nobody can have paused anything
        return None
    if found is None or found.kind != PAUSE:
        return None
    return {"command": found.kind, "actor": found.actor, "reason": found.reason, "at": iso_of(found.at)}


def settled(inquiry: Inquiry, ask: Callable[[], T], known: Callable[[T], bool]) -> T:
    """The answer, asked again for as long as the projector is a moment behind."""
    found = ask()
    for _ in range(AGAIN):
        if known(found):
            break
        threading.Event().wait(1)
        inquiry.scanner.forget()
        found = ask()
    return found


def interval_of(about: str, declaration: Declaration, option: str) -> Interval:
    """The interval that a day (of the zone of the pipeline's expectation, else of UTC) or START/END means."""
    from datetime import UTC, date, datetime, timedelta
    from zoneinfo import ZoneInfo

    from farandole.clock import SystemClock
    from farandole.event import Interval

    zone = ZoneInfo(declaration.expect[0].by.split()[-1] if declaration.expect else "UTC")
    start, _, end = about.partition("/")
    try:
        if end:
            both = [datetime.fromisoformat(one) for one in (start, end)]
            begins, ends = (m if m.tzinfo else m.replace(tzinfo=zone) for m in both)
            if begins < ends:
                return Interval(begins.astimezone(UTC), ends.astimezone(UTC))
            raise ValueError  # noqa: TRY301 - told below, as every other that is none
        day = date.fromisoformat(start) if start else SystemClock().now().astimezone(zone).date()
    except ValueError:
        example = "2013-01-01 or 2013-01-01T05:00Z/2013-01-01T06:00Z"
        raise click.BadParameter(f"{about!r} is neither a day nor an interval: {example}", param_hint=option) from None
    first, following = (datetime(d.year, d.month, d.day, tzinfo=zone) for d in (day, day + timedelta(days=1)))
    return Interval(first.astimezone(UTC), following.astimezone(UTC))
