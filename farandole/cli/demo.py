"""`farandole demo`: the chain on real data, with a verdict."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farandole.errors import ERROR, FINE, FarandoleError

if TYPE_CHECKING:
    from farandole.demo.perform import Report

YEAR = 366
"""Days of 2013: the last evening of New York is UTC's next year."""


@click.command()
@click.option(
    "--days", default=7, show_default=True, type=click.IntRange(1, YEAR), help="Days of data, from 1 January 2013."
)
@click.option("--all", "whole", is_flag=True, help="The whole year: 336,776 flights, about half an hour.")
@click.option(
    "--fresh", is_flag=True, help="Begin anew, with new servers; what stood here is kept in a folder beside it."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print the end.")
def demo(days: int, *, whole: bool, fresh: bool, output: str) -> int:
    """A chain of five services on the flights of New York, 2013, from files that land to a mart.

    Starts Kafka and a registry if none runs here. Every landing is told twice and a service is killed in the
    middle; then the mart is compared, row for row, with the same join made straight from the data. Exit code
    1 if anything differs. A second time everything is told again, and nothing happens twice.

    \b
    Examples:
      farandole demo
      farandole demo --days 1 -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    import json
    from dataclasses import asdict

    from farandole.demo.display import Display
    from farandole.demo.perform import perform

    if not Path("services/landing").is_dir() or not Path("topology/sources").is_dir():
        raise FarandoleError(
            "the demo runs the services of Farandole's repository, and this folder is not it",
            place=str(Path.cwd()),
            hint="clone the repository and call `make demo` there",
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its services end with it, as with Ctrl-C
    with Display() as display:
        report = perform(YEAR if whole else days, display, fresh=fresh)
    if output == "json":
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        _table(report)
        _verdict(report)
    return ERROR if report.differences else FINE


def _table(report: Report) -> None:
    rows: list[tuple[str, Any, str]] = [
        ("files landed", report.files, f"{report.days} days, hour by hour, each told twice"),
        ("events", report.events, "records in the chain's topics, copies and all"),
        ("duplicates absorbed", report.duplicates, "told again, and known"),
        *((f"runs of {name}", number, "") for name, number in report.runs.items()),
        *((f"rows of {name}", number, "") for name, number in report.tables.items()),
        ("rows of the mart", report.mart_rows, "flights with the weather of their origin and hour"),
    ]
    if report.killed:
        rows.append(("killed with SIGKILL", f"{report.killed}", "in the middle, and started again"))
    width = max(len(name) for name, _, _ in rows)
    click.echo()
    for name, value, remark in rows:
        shown = f"{value:,}" if isinstance(value, int) else value
        click.echo(f"  {name:{width}}  {shown:>9}  {remark}".rstrip())
    click.echo("\n  " + " · ".join(f"{phase} {seconds:.1f} s" for phase, seconds in report.seconds.items()))


def _verdict(report: Report) -> None:
    click.echo()
    if report.differences:
        click.secho(f"  not as it must be: {len(report.differences)} differences", fg="red")
        for line in report.differences:
            click.echo(f"    {line}")
        click.echo(f"  logs are in {report.logs}")
        return
    click.secho("  the mart equals the direct join, row for row; every run ended exactly once", fg="green")
    if report.again:
        click.echo("  all of it had landed before, so nothing ran again; `farandole demo --fresh` starts anew")
    name = _called()
    click.echo("\n  try next")
    for command in (
        f"{name} runs list --pipeline mart-delays --limit 5",
        f"{name} lineage {report.run_id[:13]}",
        f"{name} events tail mart.delays.refreshed.v1 -n 3",
    ):
        click.echo(f"    {command}")
    click.echo(f"  the servers run on; they stop with\n    {name} down")


def _called() -> str:
    """How this command can be called from here: by name where the shell finds it."""
    own = Path(sys.argv[0])
    found = shutil.which("farandole")
    if found and own.exists() and Path(found).samefile(own):
        return "farandole"
    return str(own.relative_to(Path.cwd())) if own.is_absolute() and own.is_relative_to(Path.cwd()) else str(own)
