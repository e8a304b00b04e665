"""`farandole close`: the books of a pipeline and an interval, closed by a person with a signed statement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, emit_one, local, projection
from farandole.cli.asking import interval_of, open_inquiry, settled
from farandole.cli.output import output_option
from farandole.errors import ATTENTION, FINE

if TYPE_CHECKING:
    from farandole.closing import Signed
    from farandole.declaration import Declaration
    from farandole.event import Interval
    from farandole.inquiry import Inquiry
    from farandole.settings import Settings


@click.command()
@click.argument("pipeline")
@click.argument("about", metavar="DAY|START/END")
@click.option("--reason", default="", help="Why, for the ledger and the audit.")
@click.option("--check", "check_only", is_flag=True, help="Only say whether the books are closed, and still as stated.")
@output_option
def close(pipeline: str, about: str, reason: str, output: str | None, *, check_only: bool) -> int:
    """Close the books of an interval: a signed statement of what landed and what became of it, by id.

    Refuses, and leaves with 3, while something is open: a gap, an event without an outcome, one that waits, is parked
    or dead, an expectation that is not met. It names what. The statement holds a digest of each set of ids, and stands
    in the ledger. What is done again later reopens the books: --check says so. The key of the signature is
    FARANDOLE_CLOSE_KEY.

    \b
    Examples:
      farandole close mart-delays 2013-01-01 --reason "month end"
      farandole close mart-delays 2013-01-01 --check -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.closing import changes, open_matters, sets_of, sign, verify
    from farandole.find import find_declaration
    from farandole.settings import load_settings

    declaration, settings = find_declaration(pipeline), load_settings()
    interval = interval_of(about, declaration, "DAY|START/END")
    with projection():  # says how old it is
        pass
    with open_inquiry(declaration) as inquiry:
        found = settled(inquiry, lambda: inquiry.evidence(declaration, interval), lambda e: e.current)
        sets = sets_of(found)
        matters = open_matters(found, sets)
        told = _statement(inquiry, found, sets, reason)
        before = _standing(inquiry, declaration, interval)
    if before is not None:
        verify(before, settings.close_key)
    differs = changes(before.statement, told) if before is not None else []
    if before is not None and not differs and not matters:
        return _answer("closed", before, output)
    if check_only or matters:
        state = "reopened" if differs or (before is not None and matters) else "open"
        return _answer(state, before, output, [*differs, *matters])
    if before is not None:
        told["supersedes"] = before.id
    signed = sign(told, settings.close_key)
    _write(settings, declaration, interval, signed, reason)
    return _answer("closed", signed, output)


def _statement(inquiry: Inquiry, found: Any, sets: Mapping[str, set[str]], reason: str) -> dict[str, Any]:
    from farandole.clock import iso
    from farandole.closing import statement
    from farandole.ledger.evidence import outputs_of
    from farandole.ledger.projection import positions

    with inquiry.projection() as conn:
        outputs = outputs_of(conn, [run["id"] for run in found.runs])
        read = {str(p): at for p, (at, _) in sorted(positions(conn).items())}
    by = {"closed_at": iso(inquiry.clock.now()), "actor": actor(), "reason": reason}
    return statement(found, sets, outputs, read, by)


def _standing(inquiry: Inquiry, declaration: Declaration, interval: Interval) -> Signed | None:
    """The statement that stands about this interval, if its books were closed."""
    from farandole.closing import Signed, fact_id
    from farandole.ledger.evidence import books

    wanted = fact_id(declaration.name, interval)
    with inquiry.projection() as conn:
        for one in books(conn, declaration.name):
            if one["id"] == wanted:
                return Signed(one["statement"], one["signature"], one["key"])
    return None


def _write(settings: Settings, declaration: Declaration, interval: Interval, signed: Signed, reason: str) -> None:
    """The command and the fact, in one transaction."""
    from farandole.cli.records import clients
    from farandole.clock import SystemClock
    from farandole.closing import fact_id
    from farandole.control import CLOSE, Command, books_id
    from farandole.event import Record
    from farandole.kafka.admin import Admin
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.ledger.entry import BOOKS_CLOSED, LEDGER_TOPIC, Entry, ledger_partition
    from farandole.topics import own_schemas

    name, at = declaration.name, SystemClock().millis()
    detail = {
        "statement": json.dumps(signed.statement, sort_keys=True),
        "signature": signed.signature,
        "key": signed.key,
    }
    entry = Entry("fact", name, fact_id(name, interval), state="fact", fact=BOOKS_CLOSED, detail=detail)
    entry.started_at = entry.ended_at = at
    with clients() as opened:
        codec = Codec(opened.registry, own_schemas(), trusted=own_schemas())
        bootstrap, properties = settings.bootstrap(), settings.client_properties()
        partitions = Admin(bootstrap, properties).partitions([LEDGER_TOPIC])[LEDGER_TOPIC]
        value = codec.encode(LEDGER_TOPIC, entry.record())
        record = Record(LEDGER_TOPIC, entry.key, value, [], ledger_partition(name, partitions))
        about = {"interval": str(interval), "statement": signed.id}
        command = Command(books_id(name, str(interval)), CLOSE, name, "", actor(), reason, at, detail=about)
        Control(bootstrap, codec, properties).give(command, beside=[record])


def _answer(state: str, signed: Signed | None, output: str | None, open_: list[str] | None = None) -> int:
    answer = {
        "schema": "farandole.cli/close/1",
        "state": state,
        "open": open_ or [],
        "statement": signed and dict(signed.statement),
        "signature": signed and signed.signature,
        "key": signed and signed.key,
        "id": signed and signed.id,
    }
    if not emit_one(answer, output):
        for line in _told(state, signed, open_ or []):
            click.echo(line)
    return FINE if state == "closed" else ATTENTION


def _told(state: str, signed: Signed | None, open_: list[str]) -> Iterator[str]:
    yield click.style(state, fg="green" if state == "closed" else "red")
    for matter in open_:
        yield f"  {matter}"
    if signed is None:
        return
    told = signed.statement
    yield f"  {told['pipeline']} about {told['interval']['start']} to {told['interval']['end']}"
    yield f"  closed at {local(told['closed_at'])} by {told['actor']}{': ' + told['reason'] if told['reason'] else ''}"
    for name, one in told["sets"].items():
        if one["count"] or name == "landed":
            yield f"    {name:<10} {one['count']:>8}  sha256 {one['sha256'][:16]}…"
    yield f"    {'outputs':<10} {told['outputs']['count']:>8}  sha256 {told['outputs']['sha256'][:16]}…"
    yield f"  signed {signed.signature[:16]}… with key {signed.key}"
