"""`farandole ledger rebuild`: what is kept in SQL, dropped and read anew from the ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import emit_one, lasted
from farandole.cli.output import output_option
from farandole.cli.sql import export
from farandole.errors import DIFFERENCES, FINE

if TYPE_CHECKING:
    from farandole.kafka.reader import TopicReader
    from farandole.ledger.projector import Decode


@click.group()
def ledger() -> None:
    """The ledger: every run's state in one topic, and what is built from it."""


ledger.add_command(export)


@ledger.command()
@click.option("--pipeline", default="", metavar="PIPELINE", help="What this stopped pipeline keeps, instead.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def rebuild(pipeline: str, yes: bool, output: str | None) -> int:
    """Drop the projection, or what a pipeline keeps, and read it anew from the ledger topic.

    Prints a digest over its rows before and after: the same digest means the same answers. Leaves with 2 where they
    differ: then something had written into the projection besides the ledger, or retention has taken old entries away.
    Nothing waits for the projection, so pipelines go on meanwhile; the service projector may run. With --pipeline it is
    the settled keys, open rows, joins and epochs of one pipeline, which must be stopped and have nothing unpublished.

    \b
    Examples:
      farandole ledger rebuild
      farandole ledger rebuild --yes -o json
      farandole ledger rebuild --pipeline merge
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.clock import SystemClock
    from farandole.ledger.database import open_projection
    from farandole.ledger.rebuild import rebuild as build_anew
    from farandole.settings import load_settings

    clock = SystemClock()
    began = clock.monotonic()
    if pipeline:
        return _of_pipeline(pipeline, output, yes=yes)
    _sure("drop the projection and read the whole ledger again", yes=yes)
    database = open_projection(load_settings().database("projector"))
    try:
        with _ledger() as (reader, decode):
            found = build_anew(database, reader, decode, _progress())
    finally:
        database.close()
    seconds = clock.monotonic() - began
    answer = {
        "same": found.same,
        "entries": found.lines,
        "seconds": round(seconds, 3),
        "tables": [
            {"table": name, "rows": after.rows, "after": after.sha256, "before": _before(found.before, name)}
            for name, after in found.after.items()
        ],
    }
    if not emit_one(answer, output):
        _say(answer, seconds)
    return DIFFERENCES if found.same is False else FINE


def _of_pipeline(pipeline: str, output: str | None, *, yes: bool) -> int:
    from farandole.clock import SystemClock
    from farandole.fill import event_class
    from farandole.find import find_declaration
    from farandole.rebuilding import rebuild_tables
    from farandole.settings import load_settings

    declaration = find_declaration(pipeline)
    for name in declaration.topics:
        event_class(name)  # what a key is made of is known by the classes
    _sure(f"drop what {declaration.name} keeps and read it again from the ledger", yes=yes)
    clock = SystemClock()
    began = clock.monotonic()
    found = rebuild_tables(load_settings(), declaration)
    seconds = clock.monotonic() - began
    answer = {
        "same": found.same,
        "entries": found.entries,
        "seconds": round(seconds, 3),
        "tables": [
            {"table": name, "rows": rows, "after": after, "before": found.before[name][1]}
            for name, (rows, after) in found.after.items()
        ],
    }
    if not emit_one(answer, output):
        _say(answer, seconds)
    return FINE if found.same else DIFFERENCES


def _before(before: Any, name: str) -> str | None:
    return None if before is None else before[name].sha256


def _say(answer: dict[str, Any], seconds: float) -> None:
    for row in answer["tables"]:
        was = "" if row["before"] in (None, row["after"]) else f"   before {row['before'][:16]}"
        click.echo(f"  {row['table']:12} {row['rows']:>9,} rows   {row['after'][:16]}{was}")
    verdict = {True: "the same answers", False: "other answers than before", None: "there was nothing to compare with"}
    click.echo(f"rebuilt from {answer['entries']:,} entries in {lasted(seconds)}: {verdict[answer['same']]}")


def _sure(what: str, *, yes: bool) -> None:
    """Ask a person; where there is none, `--yes` must say it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}: say --yes")
    click.confirm(f"{what}?", abort=True)


@contextmanager
def _ledger() -> Iterator[tuple[TopicReader, Decode]]:
    """The ledger topic, and how its records are read."""
    from farandole.cli.records import clients
    from farandole.kafka.codec import Codec
    from farandole.ledger.entry import LEDGER_TOPIC, ledger_schema

    with clients() as at, at.reader(LEDGER_TOPIC) as reader:
        codec = Codec(at.registry, {LEDGER_TOPIC: ledger_schema()})
        yield reader, lambda record: codec.decode(LEDGER_TOPIC, record.value, record.headers)


def _progress() -> Callable[[int], None]:
    """Tells how far it is: on a terminal one line that changes, else a line for each 100,000 entries."""
    live = sys.stderr.isatty()
    step, said = (1000 if live else 100_000), 0

    def told(entries: int) -> None:
        nonlocal said
        if entries // step > said:
            said = entries // step
            click.echo(f"\r{entries:,} entries read" if live else f"{entries:,} entries read", nl=not live, err=True)

    return told
