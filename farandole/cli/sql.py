"""`farandole sql`: what the ledger knows, asked in SQL; and `farandole ledger export`, as Parquet files."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import projection, tell
from farandole.cli.output import emit, plain
from farandole.errors import FINE

if TYPE_CHECKING:
    from farandole.store.engine import Database

_FORMS = ("table", "json", "jsonl", "csv")


@click.command()
@click.argument("statement", default="", metavar="['SELECT …']")
@click.option("--views", is_flag=True, help="What there is to be asked: every view and column.")
@click.option("--limit", default=10_000, show_default=True, type=click.IntRange(1), help="Rows that are shown at most.")
@click.option("-o", "--output", type=click.Choice(_FORMS), default=None, help="A table on a terminal, else jsonl.")
def sql(statement: str, limit: int, output: str | None, *, views: bool) -> int:
    """Ask the projection of the ledger one statement of SQL. Nothing can be written.

    The views are `runs`, `steps`, `events`, `ranges`, `facts` and `expectations`; any client of the database sees them
    too. Without a statement it shows them. The dialect is that of the projection's database, SQLite or PostgreSQL.

    \b
    Examples:
      farandole sql "select pipeline, state, count(*) as runs from runs group by pipeline, state"
      farandole sql "select name, deadline from expectations where state = 'missed'" -o csv
      farandole sql --views
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.ledger.asked import answered
    from farandole.ledger.views import VIEWS

    if views or not statement:
        told = ({"view": v.name, "column": c.name, "about": c.about} for v in VIEWS for c in v.columns)
        _emit(told, output)
        return FINE
    with _database() as database, closing(answered(database, statement)) as rows:
        _emit(islice(rows, limit), output)
        if next(rows, None) is not None:
            tell(f"there are more than {limit} rows: --limit shows more")
    return FINE


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--view", "names", multiple=True, help="Only this view; may be repeated.")
@click.option("-o", "--output", type=click.Choice(_FORMS), default=None, help="A table on a terminal, else jsonl.")
def export(folder: str, names: tuple[str, ...], output: str | None) -> int:
    """Write the views of the projection as Parquet files: for DuckDB, for a notebook, for keeping.

    \b
    Examples:
      farandole ledger export exported
      duckdb -c "select state, count(*) from 'exported/runs.parquet' group by all"
    """  # noqa: D301 - as above
    from pathlib import Path

    from farandole.ledger.asked import exported
    from farandole.ledger.views import VIEWS

    known = [view.name for view in VIEWS]
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"there is no view {unknown[0]!r}; there are {', '.join(known)}", param_hint="--view")
    with _database() as database:
        _emit(({"view": v, "file": str(p), "rows": n} for v, p, n in exported(database, Path(folder), names)), output)
    return FINE


@contextmanager
def _database() -> Iterator[Database]:
    from farandole.ledger.database import read_projection
    from farandole.settings import load_settings

    with projection():  # says how old it is
        pass
    database = read_projection(load_settings().database("projector"))
    try:
        yield database
    finally:
        database.close()


def _emit(rows: Iterable[dict[str, Any]], output: str | None) -> None:
    if output != "csv":
        emit(rows, output)
        return
    written = csv.writer(sys.stdout, lineterminator="\n")
    for at, row in enumerate(rows):
        if at == 0:
            written.writerow(row)
        written.writerow(
            [
                "" if value is None else value if isinstance(value, int | float | str) else plain(value)
                for value in row.values()
            ]
        )
