"""`farandole status`: did last night run, in one sentence, then what needs a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import emit_one, lasted, local, projection
from farandole.cli.output import output_option
from farandole.errors import ATTENTION, FINE

if TYPE_CHECKING:
    from datetime import date

    from farandole.ledger.status import Status

_RED = {"MISSING", "DEAD", "FOUND", "STOPPED", "INCOMPLETE", "UNCERTAIN", "REOPENED"}


@click.command()
@click.option("--day", default="", metavar="DATE", help="Of this day; today by default.")
@output_option
def status(day: str, output: str | None) -> int:
    """Did everything that was expected of a day happen? One sentence, then what is late, missing, dead or restated.

    Leaves with 3 when a person should look: something is late, missing, dead, stopped or incomplete, a sweep has found
    something, or the answer is too old. Read from the projection; nothing is changed.

    \b
    Examples:
      farandole status
      farandole status --day 2026-11-23 -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.clock import SystemClock
    from farandole.ledger.status import status as ask

    now = SystemClock().now()
    wanted = _day(day) if day else now.astimezone().date()
    with projection() as conn:
        found = ask(conn, wanted, now)
    if not emit_one(found.record(), output):
        for line in _told(found, today=now.astimezone().date()):
            click.echo(line)
    return ATTENTION if found.attention else FINE


def _day(written: str) -> date:
    from datetime import date

    try:
        return date.fromisoformat(written)
    except ValueError:
        raise click.BadParameter(f"{written!r} is no date; write it like 2026-11-23", param_hint="--day") from None


def _told(found: Status, *, today: date) -> Iterator[str]:
    name = "Last night · " if found.day == today else ""
    age = "nobody knows yet" if found.as_of is None or found.age is None else _age(found)
    yield f"{name}{found.day:%a %d %b %Y} · {age}"
    yield f"  {_sentence(found)}"
    rows = list(_rows(found))
    if rows:
        yield ""
    wide = max((len(who) for _, who, _ in rows), default=0)
    for what, who, text in rows:
        yield f"  {click.style(f'{what:<11}', fg='red' if what in _RED else 'yellow')} {who:<{wide}}  {text}"
    if following := next(_following(found), ""):
        yield ""
        yield f"next   {following}"


def _age(found: Status) -> str:
    assert found.as_of is not None  # noqa: S101 - asked by the caller
    assert found.age is not None  # noqa: S101
    old = " · too old to rely on: farandole run projector" if found.blind else ""
    return f"as of {local(found.as_of.isoformat())[11:]} ({lasted(found.age.total_seconds())} ago){old}"


def _sentence(found: Status) -> str:
    done, late = len(found.in_state("done", "done late")), found.in_state("done late")
    ran = f"{found.runs} runs of {found.pipelines} pipelines are done"
    parts = [
        f"{done} of {len(found.expected)} that were expected came" if found.expected else f"nothing is expected; {ran}"
    ]
    parts += [f"{len(late)} of them late"] if late else []
    for word in ("late", "missing", "due", "waived"):
        if many := len(found.in_state(word)):
            parts.append(f"{many} not due yet" if word == "due" else f"{many} {word}")
    if letters := sum(one["letters"] for one in found.dead):
        parts.append(f"{letters} dead in {len(found.dead)} group{'s' * (len(found.dead) > 1)}")
    for troubled, word in ((found.stopped, "stopped"), (found.incomplete, "incomplete")):
        parts += [f"{len({one['pipeline'] for one in troubled})} {word}"] if troubled else []
    parts += [f"{sum(one['runs'] for one in found.restated)} restated"] if found.restated else []
    return " · ".join(parts)


def _rows(found: Status) -> Iterator[tuple[str, str, str]]:
    for word in ("missing", "late", "done late", "due", "waived"):
        for one in found.in_state(word):
            yield word.upper(), one["name"], _expected(one, word)
    for one in found.dead:
        yield (
            one["state"].upper(),
            one["pipeline"],
            f"{one['letters']} times {_short(one['error'])}   since {local(one['first'])}",
        )
    for one in found.stopped:
        at = f"{one['at']}   " if one["at"] else ""
        yield "STOPPED", one["pipeline"], f"{at}{one['why']} since {local(one['since'])}"
    for one in found.incomplete:
        many = f"{one['records_at_most']} records at most" if one["records_at_most"] else "records"
        yield (
            "INCOMPLETE",
            one["pipeline"],
            f"{many} of {one['topic']}[{one['partition']}] are lost from {one['from']} on",
        )
    for one in found.findings:
        yield "HINT" if one["hint"] else "FOUND", one["pipeline"], f"{one['kind']}: {one['says']}"
    for one in found.restated:
        about = f" about {one['from']} to {one['to']}" if one["from"] else ""
        yield "RESTATED", one["pipeline"], f"{one['runs']} runs in epoch {one['epoch']}{about}"
        for interval in one["reopens"]:
            yield "REOPENED", one["pipeline"], f"the books of {interval} were closed before"


def _expected(one: dict[str, Any], word: str) -> str:
    about = f"   about {one['interval']['start']} to {one['interval']['end']}" if one["interval"] else ""
    by = f"due {local(one['deadline'])}"
    if word == "waived":
        return f"{by}{about}   by {one['actor']}: {one['reason']}"
    late = f"   {lasted(one['late_seconds'])} {'late' if word == 'done late' else 'ago'}" if one["late_seconds"] else ""
    return f"{by}{late}{about}"


def _short(error: str | None) -> str:
    first = (error or "no error").splitlines()[0]
    return first if len(first) <= 100 else f"{first[:99]}…"  # noqa: PLR2004 - a line of a terminal


def _following(found: Status) -> Iterator[str]:
    """What to do next about the first thing that is wrong."""
    for one in found.in_state("missing", "late"):
        about = f"{one['interval']['start']}/{one['interval']['end']}" if one["interval"] else one["day"]
        events = f"farandole events tail {one['event_type']}"
        yield f"farandole why {one['pipeline']} --for {about}" if one["pipeline"] else events
    if found.dead:
        yield f"farandole dlq list {found.dead[0]['pipeline']}"
    if found.incomplete:
        yield f"farandole gaps {found.incomplete[0]['pipeline']}"
    if not found.expected:
        yield "say what must have come by when: `expect` in a pipeline, or topology/expectations.yaml"
