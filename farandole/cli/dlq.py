"""`farandole dlq list|show`: what pipelines could not settle, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import emit_one, local, tell
from farandole.cli.output import emit, output_option
from farandole.cli.records import Clients, clients, decoded, headers, text
from farandole.errors import FINE, FarandoleError

if TYPE_CHECKING:
    from farandole.deadletter import DeadLetter
    from farandole.event import RawRecord

PREFIX = "dlq."


@click.group()
def dlq() -> None:
    """Dead letters: events that a pipeline could not settle, kept whole with the reason."""


@dlq.command("list")
@click.argument("pipeline", required=False)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many per pipeline.")
@output_option
def list_letters(pipeline: str | None, limit: int, output: str | None) -> int:
    """The newest dead letters, of one pipeline or of all.

    `state` is the run's own, from the ledger: a letter stays where it is after its event was redriven.
    """
    with clients() as c:
        letters = [letter for topic in _topics(c, pipeline) for letter in _newest(c, topic, limit)]
    known = _states([letter.run_id for letter in letters if letter.run_id])
    letters.sort(key=lambda letter: letter.raw.timestamp, reverse=True)
    columns = ["id", "pipeline", "event", "state", "stage", "step", "exception", "message", "failed_at"]
    rows = (_row(letter, known) for letter in letters)
    emit(rows, output, columns=columns, empty="no dead letters")
    return FINE


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option("--pipeline", help="Look only into this pipeline's letters.")
@output_option
def show(letter_id: str, pipeline: str | None, output: str | None) -> int:
    """One dead letter: its reason, its headers, its value decoded beside the bytes.

    ID is that of the letter, of its run or of its event, or the beginning of one. A letter that only points
    to its event (because it would have been too large) is shown with the event, if that still stands.
    """
    with clients() as c:
        letter = _wanted(c, _topics(c, pipeline), letter_id)
        known = _states([letter.run_id] if letter.run_id else [])
        shown = _whole(c, letter, known)
    if not emit_one(shown, output):
        for line in _told(shown):
            click.echo(line)
    return FINE


def _topics(c: Clients, pipeline: str | None) -> list[str]:
    from farandole.kafka.reader import topic_names

    name = f"{PREFIX}{pipeline}" if pipeline else PREFIX
    found = topic_names(c.settings.bootstrap(), c.settings.client_properties(), prefix=name)
    if pipeline and name not in found:
        raise FarandoleError(
            f"pipeline {pipeline} has no dead-letter topic {name}",
            place=f"kafka {c.settings.bootstrap()}",
            hint="is the name right? `farandole topology apply` creates the topic of each pipeline",
        )
    return [name] if pipeline else found


def _newest(c: Clients, topic: str, limit: int) -> list[DeadLetter]:
    from farandole.deadletter import DeadLetter

    with c.reader(topic) as reader:
        return [DeadLetter.of(raw) for raw in reader.last(limit)]


def _wanted(c: Clients, topics: Sequence[str], identity: str) -> DeadLetter:
    found: dict[str, DeadLetter] = {}
    for letter in _every(c, topics):
        names = [name for name in (letter.id, letter.run_id, letter.event_id) if name]
        if identity in names:
            return letter
        if any(name.startswith(identity) for name in names):
            found[letter.id] = letter
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        few = ", ".join(sorted(found)[:5])
        raise FarandoleError(
            f"more than one letter begins with {identity!r}: {few}", place="dlq", hint="give more of the id"
        )
    raise FarandoleError(f"there is no dead letter {identity!r}", place="dlq", hint="`farandole dlq list` shows them")


def _every(c: Clients, topics: Sequence[str]) -> Iterator[DeadLetter]:
    from farandole.deadletter import DeadLetter

    for topic in topics:
        with c.reader(topic) as reader:
            for batch in reader.read(reader.starts(), until=reader.ends()):
                yield from (DeadLetter.of(raw) for raw in batch)


def _states(runs: Sequence[str]) -> dict[str, tuple[int, str]]:
    """What became of the runs; where there is no projection, a remark and nothing."""
    from farandole.cli.answer import projection
    from farandole.ledger.queries import states

    if not runs:
        return {}
    try:
        with projection() as conn:
            return states(conn, runs)
    except FarandoleError as error:
        tell(f"no states shown: {error.message}; {error.hint}")
        return {}


def _state(letter: DeadLetter, known: dict[str, tuple[int, str]]) -> str | None:
    life, state = known.get(letter.run_id, (letter.life, ""))
    return "dead again" if state == "dead" and life > letter.life else state or None


def _row(letter: DeadLetter, known: dict[str, tuple[int, str]]) -> dict[str, Any]:
    from farandole.ledger.queries import moment

    return {
        "id": letter.id,
        "pipeline": letter.group,
        "event": f"{letter.topic} p{letter.partition}:{letter.offset}",
        "event_id": letter.event_id or None,
        "state": _state(letter, known),
        "stage": letter.stage,
        "step": letter.step or None,
        "reason": letter.reason or None,
        "exception": letter.exception_class,
        "message": letter.message,
        "fingerprint": letter.fingerprint or None,
        "attempts": letter.attempts,
        "life": letter.life,
        "run_id": letter.run_id or None,
        "first_failed_at": letter.first_failed_at or None,
        "failed_at": moment(letter.raw.timestamp),
        "letter": f"{letter.raw.topic} p{letter.raw.partition}:{letter.raw.offset}",
    }


def _whole(c: Clients, letter: DeadLetter, known: dict[str, tuple[int, str]]) -> dict[str, Any]:
    raw, missing = _pointed(c, letter) if letter.pointer else (letter.raw, {})
    value, trouble = decoded(raw, c.codec, letter.event_type) if raw.value is not None else (None, {})
    return {
        **_row(letter, known),
        "pipeline_version": letter.pipeline_version or None,
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


def _pointed(c: Clients, letter: DeadLetter) -> tuple[RawRecord, dict[str, str]]:
    """The event that a pointer letter stands for, if it is still there and still the same."""
    from farandole.ids import digest

    told = dict(letter.raw.headers).get("farandole-dlq-digest") or b""
    try:
        with c.reader(letter.topic) as reader:
            raw = reader.at(letter.partition, letter.offset)
    except FarandoleError as error:
        return letter.raw, {"missing": f"{error.message} ({error.place})"}
    if digest(raw.value).hex().encode() != told:
        return letter.raw, {"missing": "another record stands there now: the topic was created anew"}
    return raw, {}


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


def _hex(raw: bytes, most: int = 512) -> Iterator[str]:
    for at in range(0, min(len(raw), most), 16):
        part = raw[at : at + 16]
        letters = "".join(chr(b) if 32 <= b < 127 else "." for b in part)  # noqa: PLR2004 - printable ASCII
        yield f"  {at:06x}  {part.hex(' '):47}  {letters}"
    if len(raw) > most:
        yield f"  … {len(raw) - most} more bytes; -o json shows all"
