"""The command line. Commands are imported when they are called, so that ``--help`` stays quick."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from farandole import __version__
from farandole.errors import ERROR, FINE, USAGE, FarandoleError

INTERRUPTED = 130

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("farandole.cli.stack:up", "Start Kafka and a schema registry on this machine."),
    "down": ("farandole.cli.stack:down", "Stop what `farandole up` started; the data stays."),
    "doctor": ("farandole.cli.stack:doctor", "Check this machine and every server a pipeline needs."),
    "demo": ("farandole.cli.demo:demo", "A chain of pipelines on real data, end to end."),
    "check": ("farandole.cli.check:check", "Find every mistake that can be known before running."),
    "run": ("farandole.cli.run:run", "Run pipelines as services."),
    "events": ("farandole.cli.events:events", "Emit, follow and show events."),
    "runs": ("farandole.cli.runs:runs", "List, show, cancel and release runs."),
    "ledger": ("farandole.cli.ledger:ledger", "Build anew what is kept in SQL, from the ledger."),
    "status": ("farandole.cli.status:status", "Did last night run: what is late, missing, dead or restated."),
    "why": ("farandole.cli.why:why", "Why a pipeline did, or did not, run about a day."),
    "close": ("farandole.cli.close:close", "Close the books of a day with a signed statement."),
    "sql": ("farandole.cli.sql:sql", "Ask the ledger's projection in SQL."),
    "expect": ("farandole.cli.expect:expect", "What must have come by when: list, waive, suggest."),
    "alerts": ("farandole.cli.alerts:alerts", "The routes by which people are told."),
    "gaps": ("farandole.cli.gaps:gaps", "Records that are lost to a pipeline."),
    "lineage": ("farandole.cli.runs:lineage", "What an event or run came from, and what came of it."),
    "dlq": ("farandole.cli.dlq:dlq", "Dead letters: count, show, mend, send back."),
    "pause": ("farandole.cli.steer:pause", "Let a pipeline wait, on all its instances."),
    "resume": ("farandole.cli.steer:resume", "Let a paused pipeline go on where it stood."),
    "audit": ("farandole.cli.steer:audit", "Who paused, resumed, cancelled or redrove what, and why."),
    "schedules": ("farandole.cli.schedules:schedules", "What the clock tells, and when it comes next."),
    "reconcile": (
        "farandole.cli.reconcile:reconcile",
        "Compare what landed with what ran; send again what was missed.",
    ),
    "replay": ("farandole.cli.replay:replay", "Process a range of events again, beside live work."),
    "backfill": ("farandole.cli.backfill:backfill", "Run what is missing or failed of a span of data intervals."),
    "topology": ("farandole.cli.topology:topology", "Plan and apply topics, schemas and offsets."),
    "schemas": ("farandole.cli.schemas:schemas", "Generate and check the event classes."),
}
"""Every command: where it is, and its line in ``--help``."""


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported one at a time."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands, in the table's order."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in self._table:
            return None
        module, _, name = self._table[cmd_name][0].partition(":")
        try:
            found: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise FarandoleError(
                f"`farandole {cmd_name}` needs {error.name}, which is not installed",
                hint="pip install 'farandole[demo]' brings everything",
            ) from error
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of ``--help``, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 fine, 1 error, 2 differences, 3 attention needed, 64 usage.",
)
@click.version_option(__version__, prog_name="farandole", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show where an error came from. May stand anywhere.")
def cli(debug: bool) -> None:
    """Pipelines that start because something happened.

    \b
    Start here:
      farandole up        # Kafka and a schema registry, nothing but Python needed
      farandole demo      # see a chain of pipelines at work
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; an int that a command returns is its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("FARANDOLE_DEBUG"))
    sys.exit(_run([word for word in arguments if word != "--debug"], debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        code = cli.main(arguments, prog_name="farandole", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else ERROR
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `farandole events tail | head`: the reader has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except Exception as error:
        if debug:
            raise
        return _say(error)
    return code if isinstance(code, int) else FINE


def _say(error: Exception) -> int:
    """Print the error as a person reads it; its exit code."""
    if isinstance(error, FarandoleError):
        _red(f"{error.place}  {error.message}" if error.place else error.message)
        if error.hint:
            click.echo(f"  hint  {error.hint}", err=True)
        return error.exit_code
    _red(f"unexpected {type(error).__name__}: {error}")
    click.echo("  hint  this is a bug; the same command with --debug shows where", err=True)
    return ERROR


def _red(text: str) -> None:
    click.secho(text, fg="red", err=True, color=False if os.environ.get("NO_COLOR") else None)
