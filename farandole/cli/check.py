"""`farandole check`: every mistake that can be known before running."""

from __future__ import annotations

import click

from farandole.cli.output import emit, output_option
from farandole.errors import ERROR, FINE


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@output_option
def check(services: tuple[str, ...], output: str | None) -> int:
    """Find every mistake that can be known before running, all at once.

    SERVICE is a folder under services/ or module:object; all services by default.

    \b
    Examples:
      farandole check
      farandole check mart_delays
      farandole check -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.check import check_services

    reports = check_services(services)
    mistakes = sum(len(report.problems) for report in reports)
    if output in {"json", "jsonl"}:
        rows = [
            {
                "service": report.service,
                "kind": "note" if problem.note else "mistake",
                "place": problem.place,
                "message": problem.message,
                "hint": problem.hint,
            }
            for report in reports
            for problem in (*report.problems, *report.notes)
        ]
        emit(rows, output)
        return ERROR if mistakes else FINE
    for report in reports:
        for problem in report.problems:
            click.secho(f"{problem.place}  {problem.message}" if problem.place else problem.message, fg="red")
            if problem.hint:
                click.echo(f"  hint  {problem.hint}")
        if not report.problems:
            click.echo(f"{report.service}  fine")
            for note in report.notes:
                click.secho(f"  {note.message.partition(': ')[2]}", dim=True)
    if mistakes:
        click.echo(
            f"\n{mistakes} mistake{'s' * (mistakes > 1)} in {sum(bool(r.problems) for r in reports)} of {len(reports)}"
        )
    return ERROR if mistakes else FINE
