"""`farandole dlq edit`: a dead letter run again with a value that a person has mended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, emit_one, tell
from farandole.cli.dlq_redrive import SPAN, plan_option, reason_option, yes_option
from farandole.cli.letters import control_of, ledger_of, run_of, sender_of, the_letter, topic_option
from farandole.cli.output import output_option
from farandole.cli.records import Clients, clients, decoded
from farandole.errors import ATTENTION, FINE, FarandoleError

if TYPE_CHECKING:
    from farandole.deadletter import DeadLetter
    from farandole.event import RawRecord
    from farandole.selection import Standing


@click.command()
@click.argument("letter_id", metavar="ID")
@click.option("--pipeline", help="Look only into this pipeline's letters.")
@topic_option
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Set one field; outer.field too.")
@click.option("--json", "path", metavar="FILE", help="The whole value as a JSON object; - is standard input.")
@reason_option
@click.option("--wait", type=SPAN, default="30s", show_default=True, help="How long to wait for the outcome.")
@plan_option
@yes_option
@output_option
def edit(
    letter_id: str,
    pipeline: str | None,
    topic: str,
    settings: tuple[str, ...],
    path: str | None,
    reason: str,
    wait: float,
    only_plan: bool,
    yes: bool,
    output: str | None,
) -> int:
    """Run a dead letter again with another value, by $EDITOR, by --set, or from a file.

    The value must fit the newest schema of its subject. The letter itself stays as it is; the delivery names the
    digest of the value before. Key, id and run are the event's own, so it is no duplicate and runs once.

    \b
    Examples:
      farandole dlq edit 6f1c2a
      farandole dlq edit 6f1c2a --set rows=12 --set interval.end=2013-01-01T07:00:00Z --plan
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole import mend
    from farandole.selection import OPEN, state_of

    with clients() as c:
        owner, stands, letter = the_letter(c, letter_id, pipeline, topic)
        event = _event(c, letter)
        was, trouble = decoded(event, c.codec, letter.event_type)
        if trouble:
            tell(trouble["undecodable"])
        before = None if was is None else mend.shown(was)
        place, made = _made(before, settings, path)
        if made == before:
            raise FarandoleError("nothing was changed", place=place, hint="`farandole dlq redrive` sends it as it is")
        value = mend.encoded(c.registry, letter.topic, was, made, place)
        changed = list(mend.difference(before, made))
        if not emit_one({"letter": letter.id, "difference": changed, "value": made}, output):
            click.echo("\n".join(changed))
        if only_plan:
            return FINE
        if not yes and not (sys.stdin.isatty() and click.confirm("run it again with this value?", err=True)):
            tell("nothing was sent: --yes sends it")
            return FINE
        with ledger_of(c, owner) as ledger:
            standing = ledger.read([letter.run_id], letter.raw.timestamp).get(letter.run_id)
            if (state := state_of(letter.life, standing)) != OPEN:
                raise FarandoleError(
                    f"this letter is not open: {state}", place=letter.id, hint="`farandole dlq show` tells its lives"
                )
            _send(c, (owner, stands), letter, value, reason)
            after = _outcome(ledger, letter, wait)
    return _say(letter, after, output)


def _event(c: Clients, letter: DeadLetter) -> RawRecord:
    from farandole.letters import pointed

    return letter.event(pointed(c.reader, letter) if letter.pointer else None)


def _made(before: dict[str, Any] | None, settings: tuple[str, ...], path: str | None) -> tuple[str, dict[str, Any]]:
    """The mended value, and where it was written."""
    import json

    from farandole import mend

    if path is not None:
        try:
            with click.open_file(path, encoding="utf-8") as file:
                return path, mend.assigned(mend.parsed(file.read(), path), settings)
        except OSError as error:
            raise FarandoleError(
                f"cannot be read: {error.strerror}", place=path, hint="name a file with one JSON object"
            ) from error
    if settings:
        return "--set", mend.assigned(before or {}, settings)
    text = click.edit(json.dumps(before or {}, indent=2, ensure_ascii=False), extension=".json")
    if text is None:
        raise FarandoleError("nothing was changed", place="$EDITOR", hint="save the file to send what it says")
    return "$EDITOR", mend.parsed(text, "$EDITOR")


def _send(c: Clients, where: tuple[str, str], letter: DeadLetter, value: bytes, reason: str) -> None:
    """All letters of the run, this one with its new value. Who did it stands on the audit topic for good."""
    from farandole.clock import SystemClock
    from farandole.control import PLAN, Command, plan_id
    from farandole.delivery import REDRIVE
    from farandole.ids import digest

    at, control = SystemClock().millis(), control_of(c)
    name = f"edit-{letter.id}"
    sender = sender_of(c, where[0], name)
    records = [
        sender.record(part, REDRIVE, reason, value if part.part == letter.part else None)
        for part in run_of(c, where, letter)
    ]
    told = {"act": "edit", "letter": letter.id, "edited_to": digest(value).hex()}
    control.give(Command(plan_id(name), PLAN, where[0], letter.run_id, actor(), reason, at, detail=told))
    sender.send(records)
    control.forget([plan_id(name)])


def _outcome(ledger: Any, letter: DeadLetter, wait: float) -> Standing | None:
    from farandole.clock import SystemClock
    from farandole.selection import OPEN, UNDER_WAY, state_of

    clock = SystemClock()
    end = clock.monotonic() + wait
    while state_of(letter.life, ledger.standing.get(letter.run_id)) in (OPEN, UNDER_WAY) and clock.monotonic() < end:
        ledger.listen(0.2)
    found: Standing | None = ledger.standing.get(letter.run_id)
    return found


def _say(letter: DeadLetter, after: Standing | None, output: str | None) -> int:
    from farandole.selection import AGAIN, OPEN, UNCERTAIN, state_of

    state = state_of(letter.life, after)
    told = "sent, and not seen to end yet" if state == OPEN else state
    if not emit_one({"letter": letter.id, "run_id": letter.run_id, "state": told}, output):
        click.echo(f"run {letter.run_id}: {told}")
    return ATTENTION if state in (AGAIN, UNCERTAIN) else FINE
