"""`farandole why`: the one cause for which a pipeline did, or did not, run about a day or an interval."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import emit_one, projection
from farandole.cli.output import output_option, plain
from farandole.errors import ATTENTION, FINE, DeclarationError, FarandoleError, Unreachable

if TYPE_CHECKING:
    from farandole.declaration import Declaration
    from farandole.event import Interval
    from farandole.inquiry import Inquiry
    from farandole.sources.schedule import Schedule
    from farandole.why import Verdict

_AGAIN = 5  # times that are waited for a projector that is a moment behind


@click.command()
@click.argument("pipeline")
@click.option("--for", "about", default="", metavar="DAY|START/END", help="About which data; today by default.")
@output_option
def why(pipeline: str, about: str, output: str | None) -> int:
    """Why a pipeline ran or did not run about a day (or an interval): one cause, with the ids that prove it.

    What it waits for is asked in turn, so that the answer is at the pipeline, the feed or the person where the cause
    lies. A day is one of the zone of the pipeline's expectation, else of UTC. PIPELINE is a folder under services/ or
    module:object. Asks the projection, the broker and the topics; changes nothing. Leaves with 3 when a person should
    look.

    \b
    Examples:
      farandole why mart-delays --for 2013-01-01
      farandole why merge --for 2013-01-01T05:00Z/2013-01-01T06:00Z -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.find import find_declaration

    declaration = find_declaration(pipeline)
    interval = _interval(about, declaration)
    with projection():  # says how old it is, and where there is none
        pass
    with _inquiry(declaration) as inquiry:
        found = inquiry.verdict(declaration.name, interval)
        for _ in range(_AGAIN):
            if found.cause != "blind":
                break
            threading.Event().wait(1)
            inquiry.scanner.forget()
            found = inquiry.verdict(declaration.name, interval)
    if not emit_one({"pipeline_asked": declaration.name, **found.record()}, output):
        for line in _told(declaration.name, about or str(interval), found):
            click.echo(line)
    return FINE if found.fine else ATTENTION


@contextmanager
def _inquiry(declaration: Declaration) -> Iterator[Inquiry]:
    from farandole.cli.records import clients
    from farandole.clock import SystemClock
    from farandole.inquiry import Inquiry
    from farandole.kafka.admin import Admin
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.ledger.database import read_projection
    from farandole.scan import Scanner
    from farandole.topics import own_schemas

    with clients() as opened:
        settings, properties = opened.settings, opened.settings.client_properties()
        codec = Codec(opened.registry, own_schemas(), trusted=own_schemas())
        control = Control(settings.bootstrap(), codec, properties)
        scanner = Scanner(Admin(settings.bootstrap(), properties), opened.reader, opened.codec)
        database = read_projection(settings.database("projector"))
        try:
            yield Inquiry(
                scanner,
                database.reading,
                {one.name: one for one in [*_others(), declaration]},
                list(_schedules().values()),
                lambda name: _paused(control, name),
                SystemClock(),
            )
        finally:
            database.close()


def _others() -> Iterator[Declaration]:
    """The pipelines that are declared here; one that cannot be read makes nothing that could be asked about."""
    from farandole.find import find_declaration, services

    for name in services():
        try:
            yield find_declaration(name)
        except DeclarationError:
            continue


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


def _interval(about: str, declaration: Declaration) -> Interval:
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
        raise click.BadParameter(f"{about!r} is neither a day nor an interval: {example}", param_hint="--for") from None
    first, following = (datetime(d.year, d.month, d.day, tzinfo=zone) for d in (day, day + timedelta(days=1)))
    return Interval(first.astimezone(UTC), following.astimezone(UTC))


def _told(asked: str, about: str, found: Verdict) -> Iterator[str]:
    if found.cause in ("ran", "caught") and found.pipeline == asked:
        yield f"{asked} has run about {about}"
    else:
        yield f"{asked} has not run about {about} because"
    for who, what in found.chain:
        yield f"  {who} waits for {what}"
    yield f"  {click.style(found.pipeline, bold=True)}: {found.says}"
    yield f"  cause  {click.style(found.cause, fg='green' if found.fine else 'red')}"
    for proof in found.proof:
        yield "    " + "  ".join(
            f"{name} {plain_text(value)}" for name, value in proof.items() if value not in (None, "", [])
        )
    if found.following:
        yield f"next   {found.following}"


def plain_text(value: Any) -> str:
    """A part of a proof as a person reads it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    said = value if isinstance(value, str | int) else plain(value)
    return str(said)
