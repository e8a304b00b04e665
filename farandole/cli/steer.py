"""`farandole pause|resume|audit` and `farandole runs cancel|release|reschedule`: what is wanted of running services.

Each is a record on the control topic. A broker and the registry are all that they need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, emit_one, local, moment_of, projection, tell
from farandole.cli.output import emit, output_option
from farandole.errors import FINE, FarandoleError

if TYPE_CHECKING:
    from farandole.cli.records import Clients
    from farandole.control import Command
    from farandole.kafka.control import Control

_WHOLE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OVER = {"done", "caught", "joined", "resolved", "expired", "filtered", "duplicate", "skipped"}


@click.command()
@click.argument("pipeline")
@click.option("--reason", required=True, help="Why: it stands in the log, in the ledger and in the audit.")
@output_option
def pause(pipeline: str, reason: str, output: str | None) -> int:
    """Let a pipeline wait, on all its instances.

    Runs that are under way end and are committed. Nothing else begins, nothing is read, no offset moves; an
    instance that starts meanwhile waits too. Nothing is lost: `farandole resume` goes on exactly there.

    \b
    Example:
      farandole pause mart-delays --reason "the lake is being moved"
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.control import PAUSE

    with _desk() as (clients, control):
        instances = _instances(clients, pipeline)
        before = _standing(control, pipeline)
        command = _given(control, PAUSE, pipeline, reason=reason)
    if emit_one(_row(command), output):
        return FINE
    click.echo(f"paused {pipeline}: {reason}")
    if before is not None and before.kind == PAUSE:
        click.echo(f"  it was paused already, by {before.actor} ({before.reason}); your word stands now")
    many = f"{instances} instance{'s' * (instances > 1)} of it"
    click.echo(
        f"  {many} end what is under way, commit it, and wait"
        if instances
        else "  no instance of it runs; whichever starts will wait"
    )
    click.echo(f"  go on with   farandole resume {pipeline}")
    return FINE


@click.command()
@click.argument("pipeline")
@click.option("--reason", default="", help="Why, for the audit.")
@output_option
def resume(pipeline: str, reason: str, output: str | None) -> int:
    """Let a paused pipeline go on, exactly where it stood.

    \b
    Example:
      farandole resume mart-delays --reason "the lake has moved"
    """  # noqa: D301 - as above
    from farandole.control import PAUSE, RESUME

    with _desk() as (clients, control):
        instances = _instances(clients, pipeline)
        before = _standing(control, pipeline)
        command = _given(control, RESUME, pipeline, reason=reason)
    if emit_one(_row(command), output):
        return FINE
    if before is None or before.kind != PAUSE:
        click.echo(f"{pipeline} was not paused; it goes on as it did")
        return FINE
    click.echo(f"resumed {pipeline}, which {before.actor} had paused at {_at(before)} ({before.reason})")
    many = f"{instances} instance{'s go' if instances > 1 else ' goes'} on where it stood"
    click.echo(f"  {many}" if instances else f"  no instance of it runs; start one: farandole run {pipeline}")
    return FINE


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--reason", required=True, help="Why: it stands in its dead letter.")
@click.option("--pipeline", default="", help="Whose run it is, where the projection does not know.")
@output_option
def cancel(run_id: str, reason: str, pipeline: str, output: str | None) -> int:
    """End a run that is under way, or waits for its next attempt.

    It ends dead, with the error `Cancelled`: its event stands whole in the dead-letter topic and can be redriven,
    then to go on after the steps that have given their result. A step that is under way is told by
    `attempt.cancelled`; one that does not listen ends first. A run that ends before it is told stays as it ended.
    """
    return _of_run("cancel", run_id, pipeline, reason, output)


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--reason", default="", help="Why, for the ledger and the audit.")
@click.option("--pipeline", default="", help="Whose run it is, where the projection does not know.")
@output_option
def release(run_id: str, reason: str, pipeline: str, output: str | None) -> int:
    """Let a parked run make its next attempt now."""
    return _of_run("release", run_id, pipeline, reason, output)


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--at", "moment", default="", metavar="TIME", help="When: 2013-01-01T06:00Z.")
@click.option("--in", "span", default="", metavar="SPAN", help="In how long: 30m, 2h.")
@click.option("--reason", default="", help="Why, for the ledger and the audit.")
@click.option("--pipeline", default="", help="Whose run it is, where the projection does not know.")
@output_option
def reschedule(run_id: str, moment: str, span: str, reason: str, pipeline: str, output: str | None) -> int:
    """Set when a parked run makes its next attempt.

    \b
    Examples:
      farandole runs reschedule 6f1c2a --in 2h
      farandole runs reschedule 6f1c2a --at 2013-01-01T06:00Z --reason "the provider is back at six"
    """  # noqa: D301 - as above
    return _of_run("reschedule", run_id, pipeline, reason, output, due=_due(moment, span))


@click.command()
@click.argument("pipeline", default="")
@click.option("--since", default="", metavar="SPAN|TIME", help="Only what was done since: 2h, 1d, 2013-01-01T06:00Z.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many, newest first.")
@output_option
def audit(pipeline: str, since: str, limit: int, output: str | None) -> int:
    """Who did what to which pipeline or run, when and why: every command that was ever given.

    Read from `farandole.audit.v1`, which keeps all of them.
    """
    from farandole.cli.records import clients
    from farandole.kafka.control import audited

    start = moment_of(since, "--since")
    with clients() as opened:
        found = audited(opened.reader, opened.codec, pipeline=pipeline, since=start, limit=limit)
    rows = [_row(command) for command in found]
    columns = ["at", "actor", "act", "pipeline", "run_id", "reason"]
    of = f" for {pipeline}" if pipeline else ""
    emit(rows, output, columns=columns, empty=f"no command was given{of}")
    return FINE


@contextmanager
def _desk() -> Iterator[tuple[Clients, Control]]:
    """The clients, and the control topic to write to."""
    from farandole.cli.records import clients
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.topics import own_schemas

    with clients() as opened:
        codec = Codec(opened.registry, own_schemas(), trusted=own_schemas())
        yield opened, Control(opened.settings.bootstrap(), codec, opened.settings.client_properties())


def _given(control: Control, kind: str, pipeline: str, run_id: str = "", **said: Any) -> Command:
    from farandole.clock import SystemClock
    from farandole.control import Command, pipeline_id, run_id_of

    name = run_id_of(run_id) if run_id else pipeline_id(pipeline)
    command = Command(name, kind, pipeline, run_id, actor(), at=SystemClock().millis(), **said)
    control.give(command)
    return command


def _standing(control: Control, pipeline: str) -> Command | None:
    from farandole.control import pipeline_id

    return control.load(pipeline_id(pipeline)).get(pipeline_id(pipeline))


def _instances(clients: Clients, pipeline: str) -> int:
    """How many members its group has. Raises FarandoleError, with the nearest name, where there is no such pipeline."""
    from farandole.kafka.admin import Admin
    from farandole.kafka.reader import topic_names
    from farandole.problem import nearest

    bootstrap, properties = clients.settings.bootstrap(), clients.settings.client_properties()
    known = [name.removeprefix("dlq.") for name in topic_names(bootstrap, properties, prefix="dlq.")]
    if pipeline not in known:
        raise FarandoleError(
            f"there is no pipeline `{pipeline}` here: no topic dlq.{pipeline}",
            place=f"kafka {bootstrap}",
            hint=nearest(pipeline, known) or f"there are: {', '.join(known) or 'none'}",
        )
    return Admin(bootstrap, properties).group(pipeline).members


def _of_run(kind: str, text: str, pipeline: str, reason: str, output: str | None, *, due: int | None = None) -> int:
    run_id, owner, state = _run(text)
    pipeline = pipeline or owner
    if state in _OVER or (kind != "cancel" and state not in {"", "parked"}):
        raise FarandoleError(
            f"run {run_id} is {state}: there is nothing to {kind}",
            place=pipeline,
            hint=f"how it went: farandole runs show {run_id}",
        )
    with _desk() as (clients, control):
        if pipeline:
            _instances(clients, pipeline)
        command = _given(control, kind, pipeline, run_id, reason=reason, due=due)
    if emit_one(_row(command), output):
        return FINE
    whose = f"run {run_id} of {pipeline}" if pipeline else f"run {run_id}, by whichever pipeline has it,"
    at = "" if due is None else f" at {local(_row(command)['due'])}"
    will = {
        "cancel": "ends before its next step, dead, with a letter that can be redriven",
        "release": "makes its next attempt now",
        "reschedule": f"makes its next attempt{at}",
    }
    click.echo(f"{whose} {will[kind]}")
    click.echo("  a run that is not under way and not parked when its instance hears of it stays as it is")
    return FINE


def _run(text: str) -> tuple[str, str, str]:
    """The whole id of a run, its pipeline and its state, as far as the projection knows them; else as it was given."""
    whole = _WHOLE.fullmatch(text) is not None
    try:
        from farandole.ledger import queries

        with projection() as conn:
            if not whole or queries.run_ids(conn, text):
                found = queries.run_shown(conn, text)
                return found["id"], found["pipeline"], found["state"]
        why = "the projection does not know this run; one that is under way for the first time stands in no ledger yet"
    except FarandoleError as error:
        if not whole:
            raise
        why = f"taken as it is, since the projection cannot be asked: {error.message}"
    tell(why)
    return text, "", ""


def _due(moment: str, span: str) -> int:
    from datetime import UTC, datetime

    from farandole.clock import SystemClock, seconds

    if bool(moment) == bool(span):
        raise click.UsageError("say either --at TIME or --in SPAN")
    try:
        if span:
            return SystemClock().millis() + round(seconds(span) * 1000)
        found = datetime.fromisoformat(moment)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--in" if span else "--at") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _row(command: Command) -> dict[str, Any]:
    from farandole.clock import iso_of

    return {
        "at": iso_of(command.at),
        "actor": command.actor,
        "act": command.kind,
        "pipeline": command.pipeline,
        "run_id": command.run_id,
        "reason": command.reason,
        "due": None if command.due is None else iso_of(command.due),
        "detail": command.detail,
        "ids": list(command.ids),
    }


def _at(command: Command) -> str:
    return local(_row(command)["at"])
