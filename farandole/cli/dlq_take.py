"""`farandole dlq export|to-test`: dead letters taken away, whole, and as tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.letters import letters_of, places, run_of, selecting, selection, the_letter, topic_option
from farandole.cli.output import emit
from farandole.cli.records import Clients, clients
from farandole.errors import FINE, FarandoleError

if TYPE_CHECKING:
    from farandole.deadletter import DeadLetter
    from farandole.event import RawRecord
    from farandole.selection import Selection


@click.command()
@click.argument("pipeline", required=False)
@selecting
@click.option("-o", "--output", type=click.Choice(["json", "jsonl"]), default="jsonl", help="A list, or a line each.")
def export(pipeline: str | None, group: str, key: str | None, since: str, until: str, topic: str, output: str) -> int:
    """Dead letters whole, as JSON: key, value and headers in base64, and where each stands.

    What it writes can be read again: `farandole dlq to-test --from` takes letters from it.

    \b
    Examples:
      farandole dlq export merge --group 3f2a09 > letters.jsonl
      farandole dlq export --since 1d | jq .id
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    wanted = selection((), group, key, since, until)
    with clients() as c:
        emit(_exported(c, pipeline, topic, wanted), output)
    return FINE


def _exported(c: Clients, pipeline: str | None, topic: str, wanted: Selection) -> Iterator[dict[str, Any]]:
    from farandole.letters import exported

    for where in places(c, pipeline, topic):
        with letters_of(c, *where) as letters:
            for batch in letters.every(wanted.since, wanted.until, whole=True):
                for letter in batch:
                    if wanted.takes(letter):
                        told = {
                            name: getattr(letter, name) for name in ("id", "group", "fingerprint", "run_id", "life")
                        }
                        yield told | exported(letter.raw)


@click.command("to-test")
@click.argument("letter_id", metavar="ID")
@click.option("--pipeline", help="Look only into this pipeline's letters.")
@topic_option
@click.option(
    "--from", "source", metavar="FILE", help="Letters that `farandole dlq export` wrote, instead of the topic."
)
@click.option("--service", default="", help="What the test loads, if not the pipeline's name: module:object.")
@click.option("--out", metavar="FILE", help="The file to write; standard output if it is not given.")
def to_test(letter_id: str, pipeline: str | None, topic: str, source: str | None, service: str, out: str | None) -> int:
    """A test on a Stage that fails as the letter says, as long as its cause is there, and passes after.

    It holds the bytes and headers of the event as they stand, and the schema that they were written with. Look
    at what it holds before it is committed: it is real data.

    \b
    Examples:
      farandole dlq to-test 6f1c2a --out services/merge/test_6f1c2a.py
      pytest services/merge/test_6f1c2a.py
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.testing.written import written

    with clients() as c:
        if source is None:
            letters = _stood(c, letter_id, pipeline, topic)
        else:
            letters = [(letter, letter.event()) for letter in _read(source, letter_id)]
        text = written(service or letters[0][0].group, letters, _writers(c, [event for _, event in letters]))
    if out is None:
        click.echo(text, nl=False)
    else:
        Path(out).write_text(text, encoding="utf-8")
        click.echo(out)
    return FINE


def _stood(c: Clients, letter_id: str, pipeline: str | None, topic: str) -> list[tuple[DeadLetter, RawRecord]]:
    """The letters of a run in one life, with their events, in the order of the set."""
    from farandole.letters import pointed

    owner, stands, letter = the_letter(c, letter_id, pipeline, topic)
    parts = run_of(c, (owner, stands), letter)
    return [(part, part.event(pointed(c.reader, part) if part.pointer else None)) for part in parts]


def _read(path: str, identity: str) -> list[DeadLetter]:
    from farandole.deadletter import DeadLetter
    from farandole.letters import imported
    from farandole.selection import Selection

    try:
        with click.open_file(path, encoding="utf-8") as file:
            letters = [DeadLetter.of(imported(json.loads(line))) for line in file if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FarandoleError(
            f"these are no exported letters: {error}", place=path, hint="`farandole dlq export` writes them"
        ) from error
    wanted = Selection((identity,))
    found = [letter for letter in letters if wanted.takes(letter)]
    if len({(letter.run_id, letter.life) for letter in found}) != 1:
        raise FarandoleError(
            f"{len(found)} letters are named {identity!r}", place=path, hint="give the whole id of one of them"
        )
    return sorted(found, key=lambda letter: letter.part)


def _writers(c: Clients, events: list[RawRecord]) -> dict[int | str, Any]:
    """The schemas that the values were written with, as far as the registry has them."""
    from farandole.kafka.codec import schema_named
    from farandole.kafka.registry import UnknownSchema, UnreadableSchema

    found: dict[int | str, Any] = {}
    for event in events:
        name = schema_named(event.value, event.headers)
        if name is None:
            continue
        try:
            known = c.registry.schema(name) if isinstance(name, int) else c.registry.schema_by_guid(name)
        except (UnknownSchema, UnreadableSchema):
            continue  # the test fails as the pipeline did: nobody can read these bytes
        found[name] = known.schema
    return found
