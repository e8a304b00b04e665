"""`farandole dlq`: what pipelines could not settle, why, and the way back."""

from __future__ import annotations

import click

from farandole.cli import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "groups": ("farandole.cli.dlq_read:groups", "Count dead letters by cause."),
    "list": ("farandole.cli.dlq_read:list_letters", "List dead letters, the newest first."),
    "show": ("farandole.cli.dlq_read:show", "Show one dead letter whole, and every life of its run."),
    "redrive": ("farandole.cli.dlq_redrive:redrive", "Plan to run dead letters again, and do it."),
    "apply": ("farandole.cli.dlq_redrive:apply", "Carry a plan out, or go on with it."),
    "plans": ("farandole.cli.dlq_redrive:plans", "List the plans and how far they are."),
    "edit": ("farandole.cli.dlq_edit:edit", "Run a dead letter again with a mended value."),
    "resolve": ("farandole.cli.dlq_redrive:resolve", "Settle dead letters without running them, with a reason."),
    "export": ("farandole.cli.dlq_take:export", "Write dead letters as JSON lines, whole."),
    "to-test": ("farandole.cli.dlq_take:to_test", "Write a failing test from a dead letter."),
}
"""Every command: where it is, and its line in ``--help``."""


@click.group(cls=LazyGroup, table=COMMANDS)
def dlq() -> None:
    """Dead letters: events that a pipeline could not settle, kept whole with the reason.

    \b
    Examples:
      farandole dlq groups
      farandole dlq redrive --group 3f2a09 --plan
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
