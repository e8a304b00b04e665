"""`farandole expect list|waive|suggest`: what must have come by when, and how it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, lasted, local, moment_of, projection, tell
from farandole.cli.output import emit, for_a_person, output_option
from farandole.errors import ATTENTION, FINE, FarandoleError

if TYPE_CHECKING:
    from datetime import datetime

    from farandole.cli.records import Clients
    from farandole.expectation import Expectation
    from farandole.kafka.codec import Codec
    from farandole.kafka.expectations import Standing
    from farandole.rhythm import Came, Suggestion

STATES = ("pending", "met", "met_late", "missed", "waived")
_COLUMNS = ("name", "state", "due", "about", "came", "why")
_UNJUDGED = 120  # seconds after which a sentinel that runs has judged a row


@click.group()
def expect() -> None:
    """Expectations: what must have come by when. `farandole run sentinel` keeps them."""


@expect.command("list")
@click.argument("name", default="")
@click.option("--day", default="", metavar="DATE", help="Only the deadlines of this day, each in its own zone.")
@click.option(
    "--since", default="7d", show_default=True, metavar="SPAN|TIME", help="Deadlines since; missed ones always."
)
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only in this state; may be repeated."
)
@output_option
def list_expectations(name: str, day: str, since: str, states: tuple[str, ...], output: str | None) -> int:
    """Every expectation and how it stands: pending, met, met late, missed or waived.

    Read from the topic itself. Leaves with 3 when one that is listed is missed.

    \b
    Examples:
      farandole expect list
      farandole expect list weather-files --day 2026-11-24
      farandole expect list --state missed -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.clock import SystemClock

    start, now = moment_of(since, "--since"), SystemClock().now()
    with _book() as (_, _, book):
        chosen = [row for row in _in_order(book) if _wanted(row, name, day, states, start)]
    if any(row.state == "pending" and (now - row.alarm_at).total_seconds() > _UNJUDGED for row in chosen):
        tell("some are past their deadline and grace, and not judged: farandole run sentinel")
    shown = [_for_person(row) if for_a_person(output) else _row(row) for row in chosen]
    empty = f"nothing is expected{f' of {name}' if name else ''} here: the sentinel writes what is declared"
    emit(shown, output, columns=_COLUMNS, empty=empty)
    return ATTENTION if any(row.state == "missed" for row in chosen) else FINE


@expect.command()
@click.argument("name")
@click.argument("when", metavar="DAY|DEADLINE")
@click.option("--reason", required=True, help="Why nothing has to come: it stands in the row and in the audit.")
@output_option
def waive(name: str, when: str, reason: str, output: str | None) -> int:
    """Take an expectation off the books: nothing has to come any more, and nobody is told of it.

    Closes every open row of that name and day (or the one of that deadline); an alert that was told is resolved.
    What has come stays what it is. Rows are written two days ahead, and can be waived from then on.

    \b
    Examples:
      farandole expect waive weather-files 2026-11-24 --reason "the provider is closed"
      farandole expect waive hourly-feed 2026-11-24T11:20Z --reason "maintenance"
    """  # noqa: D301 - as above
    from farandole.expectation import waived

    with _book() as (clients, codec, book):
        chosen = _named(_in_order(book), name, when)
        by = actor()
        closed = [waived(row, by, reason) for row in chosen if not row.closed]
        if closed:
            _write(clients, codec, closed, reason)
            book.read()
        answer = [book.rows[row.id] for row in chosen]  # what came just before stays what it is
    if for_a_person(output):
        for row in answer:
            said = (
                f"waived by {row.actor}: {row.reason}"
                if row.state == "waived"
                else f"was {row.state} already; it stays so"
            )
            click.echo(f"{row.name} due {local(_row(row)['deadline'])}  {said}")
        if any(row.telling in ("alerting", "alerted") for row in closed):
            click.echo("  the alert is resolved by the sentinel with its next look")
    else:
        emit([_row(row) for row in answer], output)
    return FINE


@expect.command()
@click.argument("name", default="", metavar="[PIPELINE|EVENT]")
@click.option("--since", default="84d", show_default=True, metavar="SPAN|TIME", help="The history to learn from.")
@click.option("--zone", default="UTC", show_default=True, help="In whose days and hours: America/New_York.")
@click.option("--rhythm", is_flag=True, help="From what `farandole run rhythm` has learned, instead of the projection.")
@output_option
def suggest(name: str, since: str, zone: str, *, rhythm: bool, output: str | None) -> int:
    """What could be expected, learned from what came: by when, how often, with which grace.

    Of pipelines, and of events that none of them gives. With the evidence by weekday, and with what the rule would
    have told: each day is judged by a rule that knows only the days before it. Read from the projection; nothing is
    enabled.

    \b
    Examples:
      farandole expect suggest
      farandole expect suggest mart-delays --zone America/New_York
      farandole expect suggest --rhythm --since 365d
    """  # noqa: D301 - as above
    from zoneinfo import ZoneInfo

    from farandole.clock import SystemClock
    from farandole.ledger.history import already_expected, of_events, of_pipelines
    from farandole.rhythm import suggested

    now = SystemClock().now()
    start = moment_of(since, "--since") or now
    try:
        today = now.astimezone(ZoneInfo(zone)).date()
    except (LookupError, ValueError, OSError):
        raise click.BadParameter(f"there is no time zone {zone!r}", param_hint="--zone") from None
    known: Mapping[str, str] = {}
    events: dict[str, list[Came]] = {}
    if rhythm:
        pipelines = _rhythm(start, name)
    else:
        with projection() as conn:
            pipelines, events = of_pipelines(conn, start, name), of_events(conn, start, name)
            known = already_expected(conn)
    found = [
        (kind, who, suggested(came, zone, today))
        for kind, all_ in (("pipeline", pipelines), ("event", events))
        for who, came in sorted(all_.items())
    ]
    if not found:
        raise FarandoleError(
            f"nothing of {name!r} came since {local(start.isoformat())}" if name else "nothing has come yet",
            place="expect suggest",
            hint="farandole runs list shows what ran; --since reaches further back",
        )
    if for_a_person(output):
        for kind, who, one in found:
            click.echo("\n".join(_suggested(kind, who, one, known.get(who, ""))))
    else:
        emit([{"of": who, "kind": kind, "expected": who in known, **one.record()} for kind, who, one in found], output)
    return FINE


def _rhythm(start: datetime, name: str) -> dict[str, list[Came]]:
    from farandole.cli.records import clients
    from farandole.kafka.codec import Codec
    from farandole.kafka.rhythms import of_topic
    from farandole.topics import RHYTHM, own_schemas

    with clients() as opened, opened.reader(RHYTHM) as reader:
        return of_topic(reader, Codec(opened.registry, own_schemas()), start, name)


@contextmanager
def _book() -> Iterator[tuple[Clients, Codec, Standing]]:
    """The clients, the codec of our own topics, and the rows as they stand."""
    from farandole.cli.records import clients
    from farandole.kafka.codec import Codec
    from farandole.kafka.expectations import Standing, Tail
    from farandole.topics import EXPECTATIONS, own_schemas

    with clients() as opened, opened.reader(EXPECTATIONS) as reader:
        codec = Codec(opened.registry, own_schemas(), trusted=own_schemas())
        book = Standing(Tail(reader, undecided=True), codec)
        book.read()
        yield opened, codec, book


def _in_order(book: Standing) -> list[Expectation]:
    return sorted(book.rows.values(), key=lambda row: (row.deadline, row.name))


def _wanted(row: Expectation, name: str, day: str, states: Sequence[str], since: datetime | None) -> bool:
    if (name and row.name != name) or (states and row.state not in states):
        return False
    if day:
        return row.day == day
    return row.state == "missed" or since is None or row.deadline >= since


def _named(rows: Sequence[Expectation], name: str, when: str) -> list[Expectation]:
    """The rows of that name and day, or of that deadline. Raises FarandoleError where there is none."""
    from datetime import datetime

    from farandole.problem import nearest

    of_name = [row for row in rows if row.name == name]
    if not of_name:
        names = sorted({row.name for row in rows})
        hint = nearest(name, names) or f"there are: {', '.join(names) or 'none; farandole run sentinel writes them'}"
        raise FarandoleError(f"nothing is expected under the name `{name}`", place="expectations", hint=hint)
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        raise click.BadParameter(f"{when!r} is neither a day (2026-11-24) nor a deadline", param_hint="DAY") from None
    if found := [row for row in of_name if row.day == when or (moment.tzinfo and row.deadline == moment)]:
        return found
    days = [row.day for row in of_name]
    raise FarandoleError(
        f"`{name}` has no deadline {when} that is written yet",
        place="expectations",
        hint=f"there are those from {min(days)} to {max(days)}: farandole expect list {name}",
    )


def _write(clients: Clients, codec: Codec, rows: Sequence[Expectation], reason: str) -> None:
    from farandole.clock import SystemClock
    from farandole.control import WAIVE, Command, expectation_id
    from farandole.event import Record
    from farandole.kafka.control import Control
    from farandole.topics import EXPECTATIONS

    control = Control(clients.settings.bootstrap(), codec, clients.settings.client_properties())
    first = rows[0]
    act = Command(
        expectation_id(first.name), WAIVE, first.pipeline, "", first.actor, reason, SystemClock().millis(),
        ids=tuple(row.id for row in rows),
    )  # fmt: skip
    beside = [Record(EXPECTATIONS, row.key, codec.encode(EXPECTATIONS, row.record()), []) for row in rows]
    control.give(act, beside=beside)


def _row(row: Expectation) -> dict[str, Any]:
    from farandole.clock import iso

    shown = row.record()
    del shown["window"], shown["expectation"], shown["attempt"], shown["teller"]
    late = row.arrived_at is not None and row.state == "met_late"
    return {
        **shown,
        "deadline": iso(row.deadline),
        "alarm_at": iso(row.alarm_at),
        "late_seconds": (row.arrived_at - row.deadline).total_seconds() if late and row.arrived_at else None,
    }


def _for_person(row: Expectation) -> dict[str, Any]:
    told = _row(row)
    late = f" ({lasted(told['late_seconds'])} late)" if told["late_seconds"] else ""
    return {
        "name": row.name,
        "state": row.state.replace("_", " "),
        "due": local(told["deadline"]),
        "about": str(row.interval or ""),
        "came": f"{local(row.arrived_at.isoformat())}{late}" if row.arrived_at else "",
        "why": f"{row.actor}: {row.reason}" if row.state == "waived" else row.telling,
    }


def _suggested(kind: str, who: str, one: Suggestion, known: str) -> Iterator[str]:
    already = f"  (expected already, as {known})" if known else ""
    if one.expect is None:
        yield f"{who}  no rhythm: {one.why}{already}"
        return
    words = one.expect
    about = "" if words.interval == "previous" else f", interval: {words.interval}"
    yield f"{who}{already}"
    yield f"  expect: {{by: {words.by}, each: {words.each}, grace: {words.grace}{about}}}"
    for day in one.weekdays:
        seen = f"usually {day['median']}, latest {day['latest']}" if day["came"] else ""
        yield f"    {day['weekday']}  {day['came']} of {day['days']}  {seen}".rstrip()
    tried = one.tried or {}
    yield (
        f"  tried on {tried['days']} days, each by what was known before it: {tried['late']} late, "
        f"{tried['false_alarms']} false alarms, nothing came on {tried['absent']}"
    )
    if one.absent:
        yield f"  nothing came on {', '.join(str(day) for day in one.absent[-7:])}: a calendar may know why"
    place = "into the pipeline" if kind == "pipeline" else "into topology/expectations.yaml"
    yield f"  nothing is enabled: write it {place}"
