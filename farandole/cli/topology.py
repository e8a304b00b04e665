"""`farandole topology plan` and `apply`: from what the repository says to what stands on the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.output import emit, output_option
from farandole.errors import DIFFERENCES, ERROR, FINE

if TYPE_CHECKING:
    from farandole.topology.topology import Topology


def _shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    reorder = "Allow more partitions for a topic that exists: record keys move, and their order is lost at the border."
    for option in (
        output_option,
        click.option("--accept-reorder", is_flag=True, help=reorder),
        click.option(
            "--cluster",
            envvar="FARANDOLE_CLUSTER",
            default="local",
            show_default=True,
            help="Which file of topology/clusters/.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def topology() -> None:
    """Topics, schemas and offsets: what the repository says, and what stands.

    Read from topology/topics.yaml, topology/clusters/, schemas/avro/ and the services' declarations. Nothing
    is ever deleted or recreated, and topics that the repository does not name are left alone.
    """


@topology.command()
@_shared_options
@click.option("--detailed-exitcode", is_flag=True, help="Leave with 2 when there is something to do.")
def plan(cluster: str, accept_reorder: bool, output: str | None, detailed_exitcode: bool) -> int:
    """Say what `apply` would do, and do nothing.

    \b
    Examples:
      farandole topology plan
      farandole topology plan --cluster prod --detailed-exitcode
      farandole topology plan -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.topology.explain import explain, rows

    with _open(cluster) as opened:
        found = opened.plan(accept_reorder=accept_reorder)
    if output in {"json", "jsonl"}:
        emit(rows(found), output)
    else:
        click.echo(explain(found))
        if found.changes and not found.refused:
            click.echo("apply with   farandole topology apply")
    if found.refused:
        return ERROR
    return DIFFERENCES if found.changes and detailed_exitcode else FINE


@topology.command()
@_shared_options
def apply(cluster: str, accept_reorder: bool, output: str | None) -> int:
    """Bring about what the repository says. Running it again does nothing.

    If anything is refused, nothing is done.

    \b
    Examples:
      farandole topology apply
      farandole topology apply --cluster prod
    """  # noqa: D301 - as above
    from farandole.topology.explain import explain, rows, sum_of, told

    words = output not in {"json", "jsonl"}
    with _open(cluster) as opened:
        found = opened.plan(accept_reorder=accept_reorder)
        if found.refused:
            click.echo(explain(found), err=True)
            return ERROR
        opened.apply(found, made=lambda change: click.echo(told(change)) if words else None)
    if words:
        click.echo(sum_of(found, done=True))
    else:
        emit(rows(found), output)
    return FINE


def _open(cluster: str) -> Topology:
    from farandole.settings import load_settings
    from farandole.topology.topology import open_topology

    return open_topology(load_settings(), cluster=cluster)
