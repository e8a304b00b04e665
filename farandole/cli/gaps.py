"""`farandole gaps`: records that are lost to a pipeline, until somebody marks them as known."""

from __future__ import annotations

import click

from farandole.cli.answer import projection
from farandole.cli.output import emit, output_option
from farandole.errors import ATTENTION, FINE


class _ListByDefault(click.Group):
    """A group that lists where no command of it is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`gaps`, `gaps merge` and `gaps -o json` are `gaps list …`."""
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])


@click.group(cls=_ListByDefault)
def gaps() -> None:
    """Records that are lost to a pipeline: retention ate them, or their topic was deleted.

    `farandole gaps [PIPELINE]` lists the open ones. While there are any, the pipeline is incomplete.
    """


@gaps.command("list")
@click.argument("pipeline", default="")
@click.option("--all", "closed", is_flag=True, help="Those too that were closed.")
@output_option
def list_gaps(pipeline: str, closed: bool, output: str | None) -> int:
    """The open gaps, of one pipeline or of all. Leaves with 3 while there are any.

    \b
    Examples:
      farandole gaps
      farandole gaps merge -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.ledger.gaps import gaps as ask

    with projection() as conn:
        found = ask(conn, pipeline, closed=closed)
    columns = ["id", "pipeline", "state", "topic", "partition", "from", "to", "records_at_most", "recorded_at"]
    emit(found, output, columns=columns, empty="no gaps: nothing is known to be lost")
    return ATTENTION if any(gap["state"] == "open" for gap in found) else FINE
