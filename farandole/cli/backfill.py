"""`farandole backfill`: the runs of a span of data intervals that are missing or have failed; a plan first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from farandole.cli import orders
from farandole.cli.answer import emit_one, tell
from farandole.cli.output import output_option
from farandole.cli.replay import SCOPES, order_argument, reason_option
from farandole.errors import DIFFERENCES, FarandoleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from farandole.backfill import Backfill
    from farandole.orders import Order

_SHOWN = 40


@click.group()
def backfill() -> None:
    """Run what is missing or has failed of a span of data intervals, beside live work.

    \b
    Examples:
      farandole backfill plan mart-delays --from 2013-03-01 --to 2013-03-31
      farandole backfill start mart-delays --from 2013-03-01 --to 2013-03-31 --reason "re-run March" --only all
      farandole backfill status
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


def spanning(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a plan: which intervals, which of their runs, how far it reaches, how fast."""
    for option in reversed(
        (
            click.argument("pipeline"),
            click.option("--from", "since", type=orders.Moment(), required=True, help="Intervals that begin here…"),
            click.option(
                "--to", "until", type=orders.Moment(end=True), required=True, help="And before this; a date counts."
            ),
            click.option(
                "--only", type=click.Choice(["missing", "failed", "missing,failed", "all"]), default="missing,failed",
                show_default=True, help="Which runs: never done, given up, both, or those that are done too.",
            ),
            click.option(
                "--cascade", type=click.Choice(SCOPES), default="all", show_default=True,
                help="Who takes its outputs as news: nobody, those who listen, or everybody after them too.",
            ),
            click.option("--rate", type=orders.Rate(), help="At most so many events over all instances: 200/s, 600/m."),
            click.option("--concurrency", type=click.IntRange(1), help="Slots of each instance; a quarter otherwise."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@backfill.command()
@spanning
@output_option
def plan(output: str | None, **asked: Any) -> int:
    """Say which intervals are done, missing or failed, what would run, and who comes after. Does nothing.

    What one run is about is known from its events, and what became of them from the ledger; no schedule is needed.
    PIPELINE is a folder under services/ or module:object.
    """
    with orders.office(asked["pipeline"]) as desk:
        found = _planned(desk, asked, "")
        _show(found, asked["only"], output)
    return 0


@backfill.command()
@spanning
@click.option("--plan", "plan_id", default="", metavar="PLAN", help="Only if it is still this plan.")
@reason_option
@click.option("--yes", is_flag=True, help="Order it without asking.")
@output_option
def start(plan_id: str, reason: str, yes: bool, output: str | None, **asked: Any) -> int:
    """Plan as `plan` does, and order it: exact offsets, each event once in a new epoch, whatever is killed meanwhile.

    With `--plan` it is refused, with exit code 2, where something has happened since that plan was made.
    """
    with orders.office(asked["pipeline"]) as desk:
        found = _planned(desk, asked, reason)
        if plan_id and plan_id != found.id:
            tell(f"the plan is stale: it is {found.id} now, and not {plan_id}")
            _show(found, asked["only"], output)
            return DIFFERENCES
        _show(found, asked["only"], output)
        if not found.prospect.runs:
            tell("there is nothing to run")
        return orders.given(desk, found.prospect.order, output, only_plan=False, yes=yes)


def _planned(desk: orders.Office, asked: dict[str, Any], reason: str) -> Backfill:
    from farandole.backfill import plan_backfill

    since, until = asked["since"], asked["until"]
    if since >= until:
        raise FarandoleError("--to is not after --from", hint="write --from 2013-03-01 --to 2013-03-31")
    found = plan_backfill(desk.planner, _order(desk, asked, reason), since, until, asked["only"])
    found.prospect.downstream = orders.neighbours(desk.declaration)
    return found


def _order(desk: orders.Office, asked: dict[str, Any], reason: str) -> Order:
    from farandole.orders import Order

    return Order(
        orders.fresh_id(),
        desk.declaration.name,
        (),
        "backfill",
        f"{_at(asked['since'])}/{_at(asked['until'])} {asked['only']}",
        cascade=asked["cascade"],
        rate=asked["rate"] or 0.0,
        concurrency=asked["concurrency"] or 0,
        reason=reason,
    )


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def _show(found: Backfill, only: str, output: str | None) -> None:
    from farandole.backfill import WANTED

    rows = list(found.rows(WANTED[only]))
    told = {"plan": found.id, **orders.shown(found.prospect), "intervals": rows, "absent": list(map(str, found.absent))}
    if not emit_one(told, output):
        for line in _told(found, rows):
            click.echo(line)


def _told(found: Backfill, rows: list[dict[str, Any]]) -> Iterator[str]:
    from farandole.backfill import STATES

    yield from orders.told(found.prospect)
    notable = [row for row in rows if row["ordered"] or row["done"] == 0]
    for row in notable[:_SHOWN]:
        states = ", ".join(f"{row[n]} {s}" for s in STATES if row[n := s.replace(" ", "_")])
        yield f"  {row['interval']}   {states}" + (f"   → {row['ordered']}" if row["ordered"] else "")
    if len(notable) > _SHOWN:
        yield f"  … and {len(notable) - _SHOWN} intervals more: -o json"
    if found.absent:
        first = ", ".join(map(str, found.absent[:3]))
        yield f"  {len(found.absent)} intervals have no event to run from: {first}" + " …" * (len(found.absent) > 3)  # noqa: PLR2004
    yield f"plan {found.id}"


@backfill.command()
@click.argument("name", default="", metavar="[PIPELINE|ORDER]")
@output_option
def status(name: str, output: str | None) -> int:
    """How far backfills are, the newest first, and how long they will take at their speed so far."""
    return orders.status("backfill", name, output)


@backfill.command()
@order_argument
@reason_option
@output_option
def pause(order: str, reason: str, output: str | None) -> int:
    """Let a backfill wait: what is under way ends, nothing else begins."""
    return orders.changed("backfill", order, "paused", reason, output)


@backfill.command()
@order_argument
@reason_option
@output_option
def resume(order: str, reason: str, output: str | None) -> int:
    """Let a backfill go on where it stood."""
    return orders.changed("backfill", order, "running", reason, output)


@backfill.command()
@order_argument
@reason_option
@output_option
def cancel(order: str, reason: str, output: str | None) -> int:
    """End a backfill: what it has done stays done, the rest is left."""
    return orders.changed("backfill", order, "cancelled", reason, output)
