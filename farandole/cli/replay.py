"""`farandole replay`: a pipeline processes a range of events again, beside its live work; a plan first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from farandole.cli import orders
from farandole.cli.answer import emit_one, tell
from farandole.cli.output import output_option

if TYPE_CHECKING:
    from datetime import datetime

SCOPES = ("none", "direct", "all")
order_argument = click.argument("order", metavar="ORDER")
reason_option = click.option("--reason", default="", help="Why, for the ledger and the audit.")


class _Replay(click.Group):
    """`farandole replay PIPELINE …` orders; a command's name in its place is that command."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """What is no command is a pipeline."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, "events")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The pipeline stays where it is: it is what the command is about."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["events", *args])


@click.group(cls=_Replay)
def replay() -> None:
    """Process a range of events again, beside live work and in an epoch of its own.

    \b
    Examples:
      farandole replay merge --from 2013-01-01 --to 2013-01-31 --plan
      farandole replay merge --from 2013-01-01T06:00Z --to 2013-01-01T07:00Z --cascade none --yes
      farandole replay status
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@replay.command()
@click.argument("pipeline")
@click.option("--from", "since", type=orders.Moment(), required=True, help="Events written at or after this time.")
@click.option("--to", "until", type=orders.Moment(end=True), required=True, help="And before it; a date is included.")
@click.option("--key", help="Only events with this record key.")
@click.option(
    "--cascade", type=click.Choice(SCOPES), default="all", show_default=True,
    help="Who takes its outputs as news: nobody, those who listen, or everybody after them too.",
)  # fmt: skip
@click.option("--rate", type=orders.Rate(), help="At most so many events over all instances: 200/s, 600/m.")
@click.option("--concurrency", type=click.IntRange(1), help="Slots of each instance; a quarter of them otherwise.")
@reason_option
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Order it without asking.")
@output_option
def events(
    pipeline: str,
    since: datetime,
    until: datetime,
    key: str | None,
    cascade: str,
    rate: float | None,
    concurrency: int | None,
    reason: str,
    only_plan: bool,
    yes: bool,
    output: str | None,
) -> int:
    """Order a replay: `farandole replay PIPELINE --from T --to T`, this word left out.

    First a plan: which events, what became of them before, who comes after. Then an order over exact offsets on the
    control topic, which the pipeline's instances carry out beside their live work, whose events go first. Each event
    runs once, in a new epoch, whatever is killed meanwhile. What the pipeline has not settled yet is left to its live
    work. PIPELINE is a folder under services/ or module:object.
    """
    from farandole.orders import Order, Stretch

    with orders.office(pipeline) as desk:
        start, end = (round(moment.timestamp() * 1000) for moment in (since, until))
        order = Order(
            orders.fresh_id(),
            desk.declaration.name,
            tuple(map(Stretch, desk.planner.ranges(start, end))),
            about=_about(since, until, key),
            key=None if key is None else key.encode().hex(),
            since=start,
            until=end,
            cascade=cascade,
            rate=rate or 0.0,
            concurrency=concurrency or 0,
            reason=reason,
        )
        return planned(desk, order, output, only_plan=only_plan, yes=yes)


def planned(desk: orders.Office, order: Any, output: str | None, *, only_plan: bool, yes: bool) -> int:
    """Show what an order would come to, and give it if that is wanted."""
    from dataclasses import replace

    found = desk.planner.prospect(order)
    found.downstream = orders.neighbours(desk.declaration)
    if not emit_one(orders.shown(found), output):
        for line in orders.told(found):
            click.echo(line)
    if not found.records:
        tell("there is nothing to do again")
    return orders.given(desk, replace(order, events=found.records), output, only_plan=only_plan, yes=yes)


def _about(since: datetime, until: datetime, key: str | None) -> str:
    return f"{since:%Y-%m-%dT%H:%MZ}/{until:%Y-%m-%dT%H:%MZ}" + (f" key {key}" if key is not None else "")


@replay.command()
@click.argument("name", default="", metavar="[PIPELINE|ORDER]")
@output_option
def status(name: str, output: str | None) -> int:
    """How far replays are, the newest first, and how long they will take at their speed so far."""
    return orders.status("replay", name, output)


@replay.command()
@order_argument
@reason_option
@output_option
def pause(order: str, reason: str, output: str | None) -> int:
    """Let a replay wait: what is under way ends, nothing else begins."""
    return orders.changed("replay", order, "paused", reason, output)


@replay.command()
@order_argument
@reason_option
@output_option
def resume(order: str, reason: str, output: str | None) -> int:
    """Let a replay go on where it stood."""
    return orders.changed("replay", order, "running", reason, output)


@replay.command()
@order_argument
@reason_option
@output_option
def cancel(order: str, reason: str, output: str | None) -> int:
    """End a replay: what it has done stays done, the rest is left."""
    return orders.changed("replay", order, "cancelled", reason, output)
