"""`farandole backfill`: the runs of a span of data intervals that are missing or have failed; a plan first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from farandole.cli import orders
from farandole.cli.answer import actor, emit_one, tell
from farandole.cli.output import output_option
from farandole.cli.replay import SCOPES, order_argument, reason_option
from farandole.errors import ATTENTION, DIFFERENCES, FarandoleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from farandole.backfill import Backfill
    from farandole.orders import Order
    from farandole.reconciler.report import Compared

_SHOWN = 40


@click.group()
def backfill() -> None:
    """Run what is missing or has failed of a span of data intervals, beside live work.

    \b
    Examples:
      farandole backfill plan mart-delays --from 2013-03-01 --to 2013-03-31
      farandole backfill start mart-delays --from 2013-03-01 --to 2013-03-31 --reason "re-run March" --only all
      farandole backfill status
      farandole backfill start landing --from 2013-03-01 --to 2013-03-31 --reason "lost by the proxy"
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


def spanning(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a plan: which intervals, which of their runs, how far it reaches, how fast."""
    for option in reversed(
        (
            click.argument("pipeline", metavar="PIPELINE|SOURCE"),
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
    PIPELINE is a folder under services/ or module:object. Of a SOURCE with an inventory (services/landing) it says
    which of its files about these intervals were never told.
    """
    if _is_source(asked):
        with _stock(asked) as told:
            _show_stock(told(plan=True), asked, output)
        return 0
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

    With `--plan` it is refused, with exit code 2, where something has happened since that plan was made. Of a SOURCE
    each file that was never told is told now, under the id that its own service would give.
    """
    if _is_source(asked):
        return _tell_stock(asked, plan_id, reason, output, yes=yes)
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


def _is_source(asked: dict[str, Any]) -> bool:
    """Whether a source is asked for; refuses what can be wanted of a pipeline alone."""
    from farandole.find import inventories

    name = asked["pipeline"]
    if name not in inventories():
        return False
    if asked["only"] not in ("missing", "missing,failed"):
        raise FarandoleError(
            f"{name} is a source: what it has told is told once",
            hint="to run it again: farandole backfill start PIPELINE --only all",
        )
    for option in ("cascade", "rate", "concurrency"):
        if asked[option] not in (None, "all"):
            raise FarandoleError(f"{name} is a source: --{option} is for pipelines", hint=f"leave --{option} out")
    _spans(asked)
    return True


@contextmanager
def _stock(asked: dict[str, Any]) -> Iterator[Callable[..., Compared]]:
    """What gives a source's files against its topic, and tells those that are missing where it is no plan."""
    from farandole.find import find_declaration, find_inventory, readable, services
    from farandole.reconciler.cluster import Limits
    from farandole.reconciler.reconciler import open_reconciler
    from farandole.settings import load_settings

    name, within = asked["pipeline"], (asked["since"], asked["until"])
    readers = list(readable(services(), find_declaration)[0].values())
    with open_reconciler(load_settings(), [], {name: find_inventory(name)}, readers) as reconciler:

        def told(*, plan: bool, most: int = sys.maxsize, **why: str) -> Compared:
            return reconciler.told(name, within, Limits(plan, most), {"span": _span(asked), **why} if why else {})

        yield told


def _tell_stock(asked: dict[str, Any], plan_id: str, reason: str, output: str | None, *, yes: bool) -> int:
    with _stock(asked) as told:
        found = told(plan=True)
        identity = _show_stock(found, asked, output)
        if plan_id and plan_id != identity:
            tell(f"the plan is stale: it is {identity} now, and not {plan_id}")
            return DIFFERENCES
        if found.note or not found.missed:
            tell(found.note or "there is nothing to tell")
            return ATTENTION if found.note else 0
        if not orders.agreed(yes=yes):
            return 0
        done = told(plan=False, most=found.missed, actor=actor(), reason=reason)
    if not emit_one({"source": done.pipeline, "told": done.announced, "missing": done.missed}, output):
        click.echo(f"{done.announced} events are told: {done.topic}")
    if done.note:
        tell(done.note)
    return 0 if done.announced == done.missed else ATTENTION


def _show_stock(found: Compared, asked: dict[str, Any], output: str | None) -> str:
    """The plan of a source, as it is shown; what it is called."""
    from farandole.backfill import plan_name

    identity = plan_name([_span(asked), *sorted(found.ids)])
    rows = [{"interval": str(i), "files": files, "missing": gone} for i, (files, gone) in found.intervals.items()]
    told = {
        "plan": identity,
        "source": found.pipeline,
        "topic": found.topic,
        "files": found.landed,
        "missing": found.missed,
        "wrong": found.wrong,
        "note": found.note or None,
        "intervals": rows,
    }
    if not emit_one(told, output):
        click.echo(f"{found.pipeline} {_span(asked)}: {found.landed} files, {found.missed} never told to {found.topic}")
        for said in [*found.wrong, *([found.note] if found.note else [])]:
            click.echo(f"  {said}")
        notable = [row for row in rows if row["missing"]]
        for row in notable[:_SHOWN]:
            click.echo(f"  {row['interval']}   {row['files']} files   → {row['missing']}")
        if len(notable) > _SHOWN:
            click.echo(f"  … and {len(notable) - _SHOWN} intervals more: -o json")
        click.echo(f"plan {identity}")
    return identity


def _span(asked: dict[str, Any]) -> str:
    return f"{_at(asked['since'])}/{_at(asked['until'])}"


def _spans(asked: dict[str, Any]) -> None:
    if asked["since"] >= asked["until"]:
        raise FarandoleError("--to is not after --from", hint="write --from 2013-03-01 --to 2013-03-31")


def _planned(desk: orders.Office, asked: dict[str, Any], reason: str) -> Backfill:
    from farandole.backfill import plan_backfill

    _spans(asked)
    order = _order(desk, asked, reason)
    found = plan_backfill(desk.planner, order, asked["since"], asked["until"], asked["only"])
    found.prospect.downstream = orders.neighbours(desk.declaration)
    return found


def _order(desk: orders.Office, asked: dict[str, Any], reason: str) -> Order:
    from farandole.orders import Order

    return Order(
        orders.fresh_id(),
        desk.declaration.name,
        (),
        "backfill",
        f"{_span(asked)} {asked['only']}",
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
