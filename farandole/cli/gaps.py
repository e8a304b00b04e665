"""`farandole gaps`: records that are lost to a pipeline, until somebody marks them as known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, projection
from farandole.cli.output import emit, output_option
from farandole.errors import ATTENTION, FINE

if TYPE_CHECKING:
    from farandole.control import Command


class _ListByDefault(click.Group):
    """A group that lists where no command of it is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`gaps`, `gaps merge` and `gaps -o json` are `gaps list …`."""
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])


@click.group(cls=_ListByDefault)
def gaps() -> None:
    """Records that are lost to a pipeline: retention ate them, or their topic was deleted.

    `farandole gaps [PIPELINE]` lists the open ones. While there are any, the pipeline is incomplete. `farandole gaps
    close` marks those as known whose records were told again, or are not missed.
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


@gaps.command("close")
@click.argument("gap_ids", metavar="[ID]...", nargs=-1)
@click.option("--pipeline", default="", help="All open gaps of one pipeline.")
@click.option("--all", "every", is_flag=True, help="All open gaps of all pipelines.")
@click.option("--reason", required=True, help="Why: it stands in the ledger and in the audit, beside your name.")
@output_option
def close(gap_ids: tuple[str, ...], pipeline: str, every: bool, reason: str, output: str | None) -> int:
    """Mark gaps as known: their pipeline is complete again. Nothing is read or run by it.

    An ID is as `farandole gaps` tells it, or its beginning. A gap that is closed already stays as it was closed.

    \b
    Examples:
      farandole gaps close merge:T1/3/10 --reason "told again by the producer"
      farandole gaps close --pipeline merge --reason "the test system, nobody misses it"
    """  # noqa: D301 - as above
    from farandole.ledger.gaps import gap_named
    from farandole.ledger.gaps import gaps as ask

    if bool(gap_ids) + bool(pipeline) + every != 1:
        raise click.UsageError("say which: one or more IDs, or --pipeline NAME, or --all")
    if not reason.strip():
        raise click.BadParameter("say why, in words", param_hint="--reason")
    with projection() as conn:
        named = {gap["id"]: gap for one in gap_ids for gap in [gap_named(conn, one)]}
        found = list(named.values()) if gap_ids else ask(conn, pipeline)
    wanted = [gap for gap in found if gap["state"] == "open"]
    if wanted:
        _close(wanted, reason)
    now = [gap | {"state": "closed", "actor": actor(), "reason": reason} if gap in wanted else gap for gap in found]
    columns = ["id", "pipeline", "state", "topic", "partition", "from", "to", "actor", "reason"]
    emit(now, output, columns=columns, empty="no gap is open there")
    return FINE


def _close(wanted: list[dict[str, Any]], reason: str) -> None:
    """The commands and the facts, in one transaction: all gaps are closed, or none."""
    from farandole.cli.records import clients
    from farandole.clock import SystemClock
    from farandole.control import CLOSE, Command, gap_id_of
    from farandole.event import Record
    from farandole.kafka.admin import Admin
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
    from farandole.ledger.gaps import closed
    from farandole.topics import own_schemas

    with clients() as opened:
        bootstrap, properties = opened.settings.bootstrap(), opened.settings.client_properties()
        codec = Codec(opened.registry, own_schemas(), trusted=own_schemas())
        partitions = Admin(bootstrap, properties).partitions([LEDGER_TOPIC])[LEDGER_TOPIC]
        at = SystemClock().millis()

        def told(gap: dict[str, Any]) -> tuple[Command, Record]:
            mine = {"gap": gap["id"], "topic": gap["topic"]}
            command = Command(gap_id_of(gap["id"]), CLOSE, gap["pipeline"], "", actor(), reason, at, detail=mine)
            entry = closed(gap, command)
            to = ledger_partition(gap["pipeline"], partitions)
            return command, Record(LEDGER_TOPIC, entry.key, codec.encode(LEDGER_TOPIC, entry.record()), [], to)

        pairs = [told(gap) for gap in wanted]
        beside = [record for _, record in pairs]
        Control(bootstrap, codec, properties).give(*(command for command, _ in pairs), beside=beside)
