"""`farandole schedules list` and `next`: what the clock tells, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import tell
from farandole.cli.output import emit, for_a_person, output_option

if TYPE_CHECKING:
    from datetime import datetime

    from farandole.sources.schedule import Schedule, Tick

_COLUMNS = ("schedule", "cron", "zone", "calendar", "next", "last")


def _file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--file",
        "path",
        envvar="FARANDOLE_SCHEDULES",
        default="topology/schedules.yaml",
        show_default=True,
        help="The timetable.",
    )(command)


@click.group()
def schedules() -> None:
    """Schedules: the times that topology/schedules.yaml names. `farandole run clock` tells them as events."""


@schedules.command("list")
@output_option
@_file_option
def list_schedules(path: str, output: str | None) -> None:
    """List the schedules: their next ticks, zone and calendar, and the last tick that was told.

    \b
    Examples:
      farandole schedules list
      farandole schedules list -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.clock import SystemClock
    from farandole.sources.timetable import read_timetable

    read, now = read_timetable(path), SystemClock().now()
    last = _last(list(read), now) if read else {}
    rows = [_listed(schedule, last, now) for schedule in read.values()]
    if for_a_person(output):
        rows = [{**row, "next": _local(row["next"][0], row["zone"]), "last": _told(row)} for row in rows]
    emit(rows, output, columns=_COLUMNS, empty=f"{path} has none")


@schedules.command("next")
@click.argument("name", metavar="NAME")
@click.option("-n", "count", default=10, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
@click.option(
    "--from", "start", default=None, metavar="TIME", help="From this time on (in the schedule's zone), not now."
)
@output_option
@_file_option
def next_ticks(name: str, count: int, start: str | None, path: str, output: str | None) -> None:
    """Show the next ticks of a schedule, with what each is about.

    \b
    Examples:
      farandole schedules next nightly
      farandole schedules next nightly -n 3 --from 2026-10-24
    """  # noqa: D301 - as above
    from datetime import timedelta

    from farandole.sources.timetable import find_schedule

    schedule = find_schedule(name, path)
    ticks = schedule.ticks(max(_start(start, schedule), schedule.since - timedelta(seconds=1)))
    rows: Iterator[dict[str, Any]] = map(_shown, islice(ticks, count))
    if for_a_person(output):
        rows = ({**row, "interval": str(row["interval"])} for row in rows)
    emit(rows, output, columns=("nominal", "local", "interval", "business_day"))


def _start(written: str | None, schedule: Schedule) -> datetime:
    from datetime import UTC, datetime, timedelta
    from zoneinfo import ZoneInfo

    from farandole.clock import SystemClock

    if written is None:
        return SystemClock().now()
    try:
        start = datetime.fromisoformat(written)
    except ValueError:
        raise click.BadParameter(f"{written!r} is no time; write it like 2026-10-24 or 2026-10-24T02:00Z") from None
    start = start if start.tzinfo else start.replace(tzinfo=ZoneInfo(schedule.zone))
    return start.astimezone(UTC) - timedelta(seconds=1)


def _shown(tick: Tick) -> dict[str, Any]:
    return {
        "schedule": tick.schedule,
        "nominal": tick.nominal,
        "local": _local(tick.nominal, tick.zone),
        "interval": tick.interval,
        "day": tick.day,
        "business_day": tick.business_day,
        "id": tick.id,
    }


def _listed(schedule: Schedule, last: dict[str, datetime] | None, now: datetime) -> dict[str, Any]:
    from farandole.sources.schedule import due

    newest = (last or {}).get(schedule.name)
    waiting = next(due(schedule, newest, now), None) if last is not None else None
    return {
        "schedule": schedule.name,
        "about": schedule.about,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "calendar": schedule.calendar,
        "each": schedule.each,
        "interval": schedule.interval,
        "catch_up": schedule.catch_up,
        "since": schedule.since,
        "next": [tick.nominal for tick in islice(schedule.ticks(max(now, schedule.since)), 3)],
        "last": newest,
        "due": waiting and waiting.nominal,
    }


def _told(row: dict[str, Any]) -> str:
    last = _local(row["last"], row["zone"]) if row["last"] else ""
    waits = f"(due since {_local(row['due'], row['zone'])}: farandole run clock)" if row["due"] else ""
    return f"{last} {waits}".strip()


def _local(moment: datetime, zone: str) -> str:
    from zoneinfo import ZoneInfo

    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %Z}"


def _last(names: list[str], now: datetime) -> dict[str, datetime] | None:
    """The last tick of each that stands in the topic; None, with a remark, where nobody can say."""
    from farandole.errors import FarandoleError
    from farandole.kafka.reader import TopicReader
    from farandole.settings import load_settings
    from farandole.ticker import last_ticks
    from farandole.topics import TICKS

    try:
        settings = load_settings()
        with TopicReader(settings.bootstrap(), TICKS, settings.client_properties()) as reader:
            return last_ticks(reader, names, reader.ends(), now)
    except FarandoleError as error:
        tell(f"which ticks were told is not known: {error.message}")
        return None
