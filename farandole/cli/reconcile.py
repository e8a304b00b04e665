"""`farandole reconcile`: whether everything that landed has come to something, and what was missed sent again."""

from __future__ import annotations

import threading

import click

from farandole.cli.answer import tell
from farandole.cli.output import emit, output_option
from farandole.errors import ATTENTION, FINE

_COLUMNS = (
    "pipeline", "topic", "landed", "told", "done", "filtered", "duplicate", "waiting", "parked", "dead", "missed",
    "reemitted", "behind",
)  # fmt: skip


@click.command()
@click.argument("pipelines", nargs=-1, metavar="[PIPELINE]...")
@click.option("--once", is_flag=True, help="One sweep, then end; otherwise every FARANDOLE_RECONCILE_EVERY.")
@click.option("--plan", is_flag=True, help="Only say what is missing; nothing is sent.")
@click.option("--most", type=click.IntRange(1), help="Send so many events of a partition, whatever its share.")
@output_option
def reconcile(pipelines: tuple[str, ...], most: int | None, output: str | None, *, once: bool, plan: bool) -> int:
    """Compare what landed with what ran, by id, and send again what was missed.

    For each subscription: landed = done + filtered + duplicate + waiting + parked + dead + missed, up to where the
    pipeline stands; `behind` is what it has not come to yet. A missed event goes to the retry topic of the one
    pipeline that missed it, with its own id and bytes. After three times it is a dead letter. More than one percent of
    a partition (and more than 100 events) is not sent: somebody should look first. PIPELINE is a folder under
    services/ or module:object; all of services/ unless one is named. Leaves with 3 when something is missing and was
    not sent, a declaration cannot be read (the others are swept), or a finding stands that is more than a hint.

    Findings are told beside: a subscription that takes nothing any more, runs that nobody holds, what is
    denied by ACL, events that nobody takes.

    A source with an inventory (services/landing: the files in the raw folder) is compared too: landed = told + missed.
    A file that was never told is told now, with the id that its own service would give.

    \b
    Examples:
      farandole reconcile --once
      farandole reconcile landing --once
      farandole reconcile merge --once --plan -o json
      farandole reconcile merge --once --most 5000
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.find import find_declaration, find_inventory, inventories, readable, services
    from farandole.reconciler.cluster import Limits
    from farandole.reconciler.reconciler import open_reconciler, period
    from farandole.reconciler.report import whole
    from farandole.settings import load_settings

    sources = [name for name in inventories() if not pipelines or name in pipelines]
    named = [name for name in pipelines or services() if name not in sources]
    declared, unreadable = readable(named, find_declaration)
    stocks, unlisted = readable(sources, find_inventory)
    unreadable |= unlisted
    for name in unreadable if pipelines else ():
        (find_inventory if name in sources else find_declaration)(name)  # it raises: what is named must be there
    readers = list(readable(services(), find_declaration)[0].values()) if sources or not pipelines else []
    with open_reconciler(load_settings(), list(declared.values()), stocks, readers, unreadable) as reconciler:
        while True:
            swept = list(reconciler.sweep(Limits(plan, most)))
            rows = [row for one in swept for row in one.rows()]
            emit(rows, output, columns=_COLUMNS, empty="no pipelines: there is none under services/")
            for row in rows:
                for said in [row["note"], *(f"{one['kind']}: {one['says']}" for one in row["findings"])]:
                    if said:
                        tell(f"{row['pipeline']}  {row['topic'] or ''}  {said}")
            if once or plan:
                return FINE if whole(swept) else ATTENTION
            threading.Event().wait(period())
