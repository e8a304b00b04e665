"""How commands print: a table for a person, JSON lines for a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

Row = Mapping[str, Any]
_GAP = "  "


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``-o/--output`` of every list and show; the parameter is `output`, None if not given."""
    choice = click.Choice(["table", "json", "jsonl"])
    text = "How to print; a table on a terminal, else jsonl."
    return click.option("-o", "--output", type=choice, default=None, help=text)(command)


def emit(rows: Iterable[Row], output: str | None, *, columns: Sequence[str] | None = None, empty: str = "") -> int:
    """Print rows and return how many there were.

    `columns` are a table's, by default those of the first row; JSON carries every field. With jsonl each
    row is printed as it comes, so `rows` may never end. `empty` is said (to a person) when there are none.
    """
    output = output or ("table" if sys.stdout.isatty() else "jsonl")
    if output == "jsonl":
        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007 - the count is the answer
            click.echo(json.dumps(row, default=plain, ensure_ascii=False))
        return count
    kept = list(rows)
    if output == "json":
        click.echo(json.dumps(kept, default=plain, ensure_ascii=False, indent=2))
    elif not kept:
        click.echo(empty or "none", err=True)
    else:
        _table(kept, list(columns or kept[0]))
    return len(kept)


def for_a_person(output: str | None) -> bool:
    """Whether what is asked for is a table: by the option, else on a terminal."""
    return (output or ("table" if sys.stdout.isatty() else "jsonl")) == "table"


def plain(value: Any) -> Any:
    """What JSON has no form for: times in RFC 3339, bytes in hex, Avro records and other values as themselves."""
    from datetime import datetime

    from farandole.clock import iso

    match value:
        case datetime():
            return iso(value)
        case bytes():
            return value.hex()
        case set() | frozenset():
            return sorted(value)
        case Mapping():
            return dict(value)
    return value.record() if hasattr(value, "record") else str(value)


def _table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
        for line in cells:
            table.add_row(*map(Text, line))  # Text: a value in [brackets] is no markup
        Console().print(table)
        return
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    for line in [list(columns), *cells]:
        click.echo(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case dict() | list() | tuple():
            return json.dumps(value, default=plain, ensure_ascii=False)
    said = plain(value) if not isinstance(value, int | float) else value
    return json.dumps(said) if isinstance(said, dict) else str(said)
