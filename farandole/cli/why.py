"""`farandole why`: the one cause for which a pipeline did, or did not, run about a day or an interval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import emit_one, projection
from farandole.cli.asking import interval_of, open_inquiry, settled
from farandole.cli.output import output_option, plain
from farandole.errors import ATTENTION, FINE

if TYPE_CHECKING:
    from farandole.why import Verdict


@click.command()
@click.argument("pipeline")
@click.option("--for", "about", default="", metavar="DAY|START/END", help="About which data; today by default.")
@output_option
def why(pipeline: str, about: str, output: str | None) -> int:
    """Why a pipeline ran or did not run about a day (or an interval): one cause, with the ids that prove it.

    What it waits for is asked in turn, so that the answer is at the pipeline, the feed or the person where the cause
    lies. A day is one of the zone of the pipeline's expectation, else of UTC. PIPELINE is a folder under services/ or
    module:object. Asks the projection, the broker and the topics; changes nothing. Leaves with 3 when a person should
    look.

    \b
    Examples:
      farandole why mart-delays --for 2013-01-01
      farandole why merge --for 2013-01-01T05:00Z/2013-01-01T06:00Z -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.find import find_declaration

    declaration = find_declaration(pipeline)
    interval = interval_of(about, declaration, "--for")
    with projection():  # says how old it is, and where there is none
        pass
    with open_inquiry(declaration) as inquiry:
        found = settled(
            inquiry, lambda: inquiry.verdict(declaration.name, interval), lambda verdict: verdict.cause != "blind"
        )
    if not emit_one({"pipeline_asked": declaration.name, **found.record()}, output):
        for line in _told(declaration.name, about or str(interval), found):
            click.echo(line)
    return FINE if found.fine else ATTENTION


def _told(asked: str, about: str, found: Verdict) -> Iterator[str]:
    if found.cause in ("ran", "caught") and found.pipeline == asked:
        yield f"{asked} has run about {about}"
    else:
        yield f"{asked} has not run about {about} because"
    for who, what in found.chain:
        yield f"  {who} waits for {what}"
    yield f"  {click.style(found.pipeline, bold=True)}: {found.says}"
    yield f"  cause  {click.style(found.cause, fg='green' if found.fine else 'red')}"
    for proof in found.proof:
        yield "    " + "  ".join(
            f"{name} {plain_text(value)}" for name, value in proof.items() if value not in (None, "", [])
        )
    if found.following:
        yield f"next   {found.following}"


def plain_text(value: Any) -> str:
    """A part of a proof as a person reads it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    said = value if isinstance(value, str | int) else plain(value)
    return str(said)
