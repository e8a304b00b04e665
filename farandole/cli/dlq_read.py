"""`farandole dlq groups|list|show`: what pipelines could not settle, why, and what became of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import emit_one, local, tell
from farandole.cli.letters import (
    AT_ONCE,
    States,
    chunks,
    ledger_of,
    letters_of,
    places,
    row,
    selecting,
    selection,
    the_letter,
    topic_option,
)
from farandole.cli.output import emit, output_option
from farandole.cli.records import Clients, clients, decoded, headers, text
from farandole.errors import ATTENTION, FINE, FarandoleError

if TYPE_CHECKING:
    from farandole.causes import Cause
    from farandole.deadletter import DeadLetter
    from farandole.ledger.entry import Entry
    from farandole.selection import Selection

Told = tuple["DeadLetter", "str | None"]
"""A letter and its state, which is None where nobody knows it."""

_STATES = ["open", "under way", "died again", "uncertain", "resolved", "settled"]


@click.command()
@click.argument("pipeline", required=False)
@selecting
@click.option("--exit-code", is_flag=True, help="Exit with 3 where a letter is open.")
@output_option
def groups(
    pipeline: str | None,
    group: str,
    key: str | None,
    since: str,
    until: str,
    topic: str,
    exit_code: bool,
    output: str | None,
) -> int:
    """One line per cause: how many letters, since when, of which versions, and how many of them are open.

    The cause is the fingerprint of a letter: pipeline, step, exception, place, and the message without its values.

    \b
    Examples:
      farandole dlq groups
      farandole dlq groups merge --since 1d --exit-code
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.causes import count

    wanted = selection((), group, key, since, until)
    with clients() as c:
        found = count(_meant(c, pipeline, topic, wanted))
    columns = ["fingerprint", "pipeline", "letters", "open", "settled", "first_seen", "last_seen", "versions"]
    emit(map(_cause, found), output, columns=[*columns, "step", "exception", "message"], empty="no dead letters")
    return ATTENTION if exit_code and any(cause.states["open"] for cause in found) else FINE


@click.command("list")
@click.argument("pipeline", required=False)
@selecting
@click.option("--state", "wanted_states", multiple=True, type=click.Choice(_STATES), help="Only these; repeatable.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many, the newest.")
@output_option
def list_letters(
    pipeline: str | None,
    group: str,
    key: str | None,
    since: str,
    until: str,
    topic: str,
    wanted_states: tuple[str, ...],
    limit: int,
    output: str | None,
) -> int:
    """The newest dead letters, of one pipeline or of all.

    `state` is what the ledger says of its run now: a letter stays where it is after its event was redriven. A
    letter is open, or its next life is under way, has died again, is uncertain, resolved by a person, or settled.

    \b
    Examples:
      farandole dlq list merge --state open --limit 20
      farandole dlq list --group 3f2a09 --since 2h -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    wanted = selection((), group, key, since, until)
    with clients() as c:
        found: Iterator[Told]
        if any((group, key, since, until, wanted_states)):
            found = (
                (letter, s)
                for letter, s in _meant(c, pipeline, topic, wanted)
                if not wanted_states or s in wanted_states
            )
        else:
            found = _newest(c, pipeline, topic, limit)
        kept = heapq.nlargest(limit, found, key=_moment)
    columns = ["id", "pipeline", "event", "state", "stage", "step", "exception", "message", "failed_at"]
    emit((row(*one) for one in kept), output, columns=columns, empty="no dead letters")
    return FINE


@click.command()
@click.argument("letter_id", metavar="ID")
@click.option("--pipeline", help="Look only into this pipeline's letters.")
@topic_option
@output_option
def show(letter_id: str, pipeline: str | None, topic: str, output: str | None) -> int:
    """One dead letter: its reason, its headers, its value decoded beside the bytes, and every life of its run.

    ID is that of the letter, of its run or of its event, or the beginning of one. A letter that only points
    to its event (because it would have been too large) is shown with the event, if that still stands.

    \b
    Examples:
      farandole dlq show 6f1c2a
      farandole dlq show 6f1c2a -o json | jq .lives
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    with clients() as c:
        where, stands, letter = the_letter(c, letter_id, pipeline, topic)
        shown = _whole(c, letter) | {"lives": list(_lives(c, where, stands, letter))}
    if not emit_one(shown, output):
        for line in _told(shown):
            click.echo(line)
    return FINE


def _moment(one: Told) -> tuple[int, int, int]:
    raw = one[0].raw
    return raw.timestamp, raw.partition, raw.offset


def _meant(c: Clients, pipeline: str | None, topic: str, wanted: Selection) -> Iterator[Told]:
    """The letters that are meant, each with its state, a bounded number of them at a time in hand."""
    from farandole.causes import with_states

    states = States(c)
    for where in places(c, pipeline, topic):
        with letters_of(c, *where) as letters:
            batches = ([one for one in b if wanted.takes(one)] for b in letters.every(wanted.since, wanted.until))
            for chunk in chunks(batches, AT_ONCE):
                yield from with_states(chunk, states.of(chunk))


def _newest(c: Clients, pipeline: str | None, topic: str, limit: int) -> Iterator[Told]:
    from farandole.causes import with_states

    states = States(c)
    for where in places(c, pipeline, topic):
        with letters_of(c, *where) as letters:
            found = letters.last(limit)
        yield from with_states(found, states.of(found) if found else None)


def _cause(cause: Cause) -> dict[str, Any]:
    from farandole.ledger.queries import moment

    known = bool(cause.states)
    ended = cause.states["settled"] + cause.states["resolved"]
    return {
        "fingerprint": cause.fingerprint,
        "pipeline": cause.pipeline,
        "letters": cause.letters,
        "open": cause.states["open"] if known else None,
        "settled": ended if known else None,
        "first_seen": moment(cause.first),
        "last_seen": moment(cause.last),
        "versions": ", ".join(sorted(cause.versions)) or None,
        "stage": cause.example.stage,
        "step": cause.example.step or None,
        "exception": cause.example.exception_class,
        "message": cause.example.message,
        "states": dict(cause.states) if known else None,
        "example": cause.example.id,
    }


def _whole(c: Clients, letter: DeadLetter) -> dict[str, Any]:
    raw, missing = letter.raw, {}
    if letter.pointer:
        from farandole.letters import pointed

        try:
            raw = pointed(c.reader, letter)
        except FarandoleError as error:
            missing = {"missing": f"{error.message} ({error.place})"}
    value, trouble = decoded(raw, c.codec, letter.event_type) if raw.value is not None else (None, {})
    return {
        **row(letter, _state(c, letter)),
        "topic_id": letter.topic_id or None,
        "pointer": letter.pointer or None,
        **missing,
        "key": text(raw.key),
        "value": value,
        **trouble,
        "raw": (raw.value or b"").hex(),
        "stacktrace": letter.stacktrace or None,
        "headers": headers(letter.raw),
    }


def _state(c: Clients, letter: DeadLetter) -> str | None:
    states = States(c).of([letter])
    return None if states is None else states[letter.id]


def _lives(c: Clients, pipeline: str, topic: str, letter: DeadLetter) -> Iterator[dict[str, Any]]:
    """What the ledger topic still holds of the run of a letter, oldest first."""
    if not letter.run_id:
        return
    try:
        with letters_of(c, pipeline, topic) as letters, ledger_of(c, pipeline, history=True) as ledger:
            first = min(
                (one.raw.timestamp for batch in letters.every() for one in batch if one.run_id == letter.run_id),
                default=letter.raw.timestamp,
            )
            ledger.read([letter.run_id], first)
    except FarandoleError as error:
        tell(f"no lives shown: {error.message}; {error.hint}")
        return
    yield from (_life(at, entry) for at, entry in ledger.entries)


def _life(at: int, entry: Entry) -> dict[str, Any]:
    from farandole.ledger.queries import moment

    return {
        "life": entry.life,
        "state": entry.state,
        "recorded_at": moment(at),
        "version": entry.version or None,
        "error": f"{entry.error['class']}: {entry.error['message']}" if entry.error else None,
        "attempt": entry.attempt or None,
        "due": entry.due,
        "steps": [
            {name: step.get(name) for name in ("name", "state", "attempts", "reused", "error")} for step in entry.steps
        ],
        "detail": entry.detail or None,
    }


def _told(shown: dict[str, Any]) -> Iterator[str]:
    from farandole.cli.events import pretty

    yield f"dead letter {shown['id']}   {shown['pipeline']}   {shown['state'] or 'state unknown'}"
    yield f"  event        {shown['event']}   {shown['event_id'] or 'no id of its own'}   key {shown['key'] or '-'}"
    yield f"  run          {shown['run_id'] or '-'}   life {shown['life']}   version {shown['pipeline_version'] or '-'}"
    where = f"{shown['stage']} {shown['step'] or ''}".strip()
    why = f"   {shown['reason']}" if shown["reason"] else ""
    yield f"  error        {shown['exception']} in {where}, attempt {shown['attempts']}{why}"
    yield f"  message      {shown['message']}"
    yield f"  fingerprint  {shown['fingerprint'] or '-'}"
    yield f"  failed       first {local(shown['first_failed_at'])}, given up {local(shown['failed_at'])}"
    for life in shown["lives"]:
        yield f"  life {life['life']}       {_life_told(life)}"
    if "missing" in shown:
        yield f"  the letter points to its event, which is not there: {shown['missing']}"
    yield "value"
    yield f"  ✕ {shown['undecodable']}" if "undecodable" in shown else pretty(shown["value"])
    yield "raw"
    yield from _hex(bytes.fromhex(shown["raw"]))
    yield "headers"
    yield from (f"  {h['name']}: {h['value']}" for h in shown["headers"] if not h["name"].endswith("stacktrace"))
    if shown["stacktrace"]:
        yield "stack"
        yield from (f"  {line}" for line in shown["stacktrace"].splitlines())


def _life_told(life: dict[str, Any]) -> str:
    told = [f"{life['state']} {local(life['recorded_at'])}, version {life['version'] or '-'}"]
    told += [
        f"{step['name']} {'kept from before' if step['reused'] else step['state']}"
        + (f" at attempt {step['attempts']}" if step["attempts"] > 1 else "")
        for step in life["steps"]
    ]
    told += [life["error"].splitlines()[0]] if life["error"] else []
    told += [f"{name} {what}" for name, what in (life["detail"] or {}).items()]
    return "   ".join(told)


def _hex(raw: bytes, most: int = 512) -> Iterator[str]:
    for at in range(0, min(len(raw), most), 16):
        part = raw[at : at + 16]
        letters = "".join(chr(b) if 32 <= b < 127 else "." for b in part)  # noqa: PLR2004 - printable ASCII
        yield f"  {at:06x}  {part.hex(' '):47}  {letters}"
    if len(raw) > most:
        yield f"  … {len(raw) - most} more bytes; -o json shows all"
